"""drain pulls sealed mail out of an R2 bucket and hands it to the mail server at home.

This page is the map. It names every state that a mail can be in and what a
crash leaves behind; the code is meant to look like these words.

The flow
========

::

    pending/<name> ─▶ sweep ─▶ delivery ───────────▶ handover ───────▶ processed/<identity>-<name>
      (bucket)       LIST,     fetch ▶ open ▶ filter ▶ route ▶ inject ▶ settle
                     lock          (opener) (filters) (routing) (inject) (ends)
                                   │            ledger              │
                                   └──────── one row a mail ────────┴──▶ quarantine/<identity>-<name>

One pass (`sweep`) lists ``pending/``. If there is nothing to do it ends there:
one request, no lock, no connection. Otherwise it takes the lock, logs in to the
mail server, and only then opens or moves anything. Everything that belongs to
one mail happens in `delivery`, on one of several threads: it is opened, judged
by the `filters`, and handed over to the mail server (`handover`) or kept back.

A mail is known by its *identity*: the SHA-256 of its bytes and its envelope
recipient in lower case (`mail.identity`). Names of objects are hints and no
more: the same name, with the same ETag, can hold another recipient's mail
tomorrow. So an object is left unopened only while the ledger has a row for this
very object (key, ETag and last-modified) which says that its mail is delivered
and wants moving, or that its next attempt is not due yet. The first can at most
finish a move, the second at most wait; neither can lose a mail.

The states, and what a crash leaves
===================================

The ledger (SQLite, WAL, ``synchronous=FULL``) has one row a mail. Each state is
committed *before* the step that it guards.

===============  ====================  ============================  ==========================
state            committed             a crash right after leaves    the next pass
===============  ====================  ============================  ==========================
(no row)                               nothing sent                  starts over
``injecting``    before DATA           unknown: the server may have  looks for it in the mailbox, if
                                       the mail                      it may; if not, or if it is not
                                                                     there, injects again, counts it
                                                                     in ``reinjections``, says so
``delivered``    after the 250         the object in ``pending/``    finishes the move
``settled``      after the move                                      nothing; found in
                                                                     ``pending/`` again: moved
                                                                     again, never sent again
``deferred``     after a refusal or    nothing sent                  tries again when due, as
                 failure before the                                  long as the object exists
                 final dot
``setting_aside``  before the move to  the object in ``pending/``    finishes that move
                 ``quarantine/``
``quarantined``  after that move                                     found in ``pending/`` again:
                                                                     set aside again
``discarding``   before the object is  the object in ``pending/``,   deletes it, if the person
                 deleted, undelivered  or none                       still lets filters discard;
                                                                     else sets it aside
``discarded``    after that                                          found in ``pending/`` again:
                                                                     the same again
===============  ====================  ============================  ==========================

Release from quarantine: a person makes ``deferred`` of ``quarantined``, with a mark
in the row (``released``) that filters are passed over. The object stays where it
is until it is delivered; so a pass looks under ``quarantine/`` for these.

Replay of a delivered mail makes ``deferred`` of ``settled`` in the same way; its
object stays under ``processed/`` all the time.

What filters say is kept beside the row (`verdicts`) where it cost something to
ask, so that a retry does not ask again.

There is no row before an object is opened: nothing has happened then that needs
one. So one that no key here opens has none; it waits in ``pending/``, and the
process remembers it (``delivery.NoKey``) until a key file changes.

After the final dot of DATA there is no "failed", only "unknown": a connection
that breaks between the dot and its reply leaves the row ``injecting``. That, a
crash in the same place, and a sender that sends again are the only ways to get
a mail twice; there is no way to lose one.

A move is COPY, then DELETE. COPY is asked for only if the object is still the
one that was opened, so another mail written meanwhile under the same name stays
in ``pending/``. The DELETE is made on a thread apart, at once; where it has to
wait for more than a second, or is made again, the object is asked for before.
What cannot be closed, since R2 has no conditional delete: a writer that
overwrites the same name between our COPY, or that question, and our DELETE. This
project's Worker never overwrites; a bucket filled by something that names objects
by content alone has this window, of a round trip mostly, and of a second at most.

The steps by name (`outcome.Step`) are the points at which the crash suite
kills the process.

The rooms
=========

Dependencies point downwards only:
``cli → service → sweep → delivery → {filters, handover} → {bucket, ledger, …}``, and
for outgoing mail ``cli → outbound → relay → upstreams``;
``tests/test_house.py`` keeps it so. A part is handed its settings one by one, by
`assembly`; none but that knows the whole configuration.

========== ======================================================================
cli        the words of the command line
commands   the commands: from words to parts, and the exit codes
demo       the main job shown with embedded servers
init       drain.env and the keys written, and what is left to do; has a map of its own
setup      a mail server on this machine, set up for drain; has a map of its own
doctor     everything checked, and what to do next; has a map of its own
selftest   a probe mail sent the whole way
outbound   from the settings to the parts of the relay
oversight  from the settings to what watches over passes
assembly   from the settings to the parts
show       what a person at a terminal sees, of a pass and of a mail
keygen     a key pair, and what to do with it
service    the loop of ``drain run``: polling, signals, systemd
sweep      one pass over ``pending/``
feeding    the mails of a pass, several at once
summary    what a pass came to
watch      what follows a pass: noted, told, shown
alerts     what a person has to be told, how often, and the ways out; has a map of its own
status     what is going on, read from the files
metrics    the same for Prometheus
page       the same as a page with curves
delivery   one mail, from its object to its end
relay      outgoing mail: taken on loopback, kept safe, sent; has a map of its own
upstreams  where it goes: one file a smarthost or provider
handover   one SMTP transaction, and the ledger around it
tools      what mails are worked on with, made when there is the first
ends       settled, set aside, discarded, deferred: commits and moves
quarantine what a person does with mail that was set aside
replay     mail out of ``processed/`` once more
backup     all that drain knows in one file, and back again; has a map of its own
outcome    what one look at one object came to, and the steps by name
crew       the threads of a pass, with a bound on the bytes in their hands
rebuild    the ledger, read back from ``processed/`` when it was lost
ledger     the states above
tables     its tables, version by version
database   a file of SQLite, brought up to date when it is opened
history    what happened to each mail, and when
verdicts   what filters said, kept
notes      what else is remembered: keys proven, budgets
logbook    what drain did over time, and what the person was told of it: a file of its own
state      where a mail is, and what the ledger knows of it
filters    what reaches the inbox: one file a filter, and the chain of them
marks      what a mail gets: lines on top, and a tag in its Subject
opener     object to mail: which kind is it, and what is inside
sealed     the format of this project's Worker
mailbridge the format of Mailbridge's
request    one POST to a service of the person's choice, bounded
unreachable why there was no answer to it, as a sentence
answer     JSON as it must be
fields     JSON from strangers
keys       private keys, their files and their ids
routing    which addresses to ask the mail server for, in which order
recipients which mailboxes exist, proven, for the Worker to know
directory  the mailboxes that the mail server's own lists name
sessions   the SMTP sessions of a pass
inject     one SMTP session with the mail server
login      the way into the mail server: TCP, TLS, AUTH
mailboxes  whether a mail is in its mailbox already
imap       one question to an IMAP server: which folder has a mail
prefixes   where mail lies in the bucket, and under which names
bucket     the S3 API, as R2 speaks it
listing    LIST, which an idle pass asks for and nothing else
direct     GET, COPY and DELETE, as an ordinary pass asks for them
s3http     the requests of both, signed, over connections that stay open
s3client   boto3's client, set up for R2: for all else, and where those had no answer
s3model    what S3 is to it: the part that drain speaks
s3errors   what R2 answers when something is wrong, as sentences
stamp      the ``X-Drain-Id`` line and the secret behind it
lock       one drain at a time
notify     what systemd wants to hear
log        what a person, journald or a program reads
backoff    how long to wait before another try
mail       envelope and bytes; identity; the form on the wire
header     its header, as bytes
settings   every setting, declared once
config     where their values come from, and what is wrong with them
envfile    where ``drain.env`` is and how it is read
setting    what a setting is, and how each kind of value is read
places     names of hosts, domains and mailboxes: how they are written and compared
disk       files that are whole or not there
errors     what can go wrong, told apart by what a person can do about it
text       words from outside, made safe to show
templates  Postfix and Maddy configurations to start from
========== ======================================================================
"""

__version__ = "0.1.0"
