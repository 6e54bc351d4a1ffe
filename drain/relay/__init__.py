"""Outgoing mail: taken on loopback, kept safe, handed to the smarthost or provider.

::

    client ─▶ listener ─▶ intake ─────────────▶ queue ─▶ dispatch ─▶ upstream (`drain.upstreams`)
     (SMTP,    AUTH, TLS   policy, submission    │            │
      AUTH)                (complete, sign)      │            └─▶ a DSN: an entry too ─▶ returns
                                                 └─ state in SQLite, bodies encrypted    (inbound injection)

The client's 250 follows the body's fsync and the commit of the queue, never before.

One message is one row of ``mail`` and one body; its recipients are in one or more
*entries*, each of which goes upstream in one piece. The states of an entry, each
committed before the step that it guards:

============  ===================  ==============================  ==============================
state         committed            a crash right after leaves      the next start
============  ===================  ==============================  ==============================
(no row)                           perhaps a body of no mail       deletes that body; the client
                                                                   had no 250
``waiting``   before the 250,      the entry                       sends it when it is due
              and after a failure
``sending``   before anything is   unknown: the upstream may have  sends it again with the same
              sent                 it                              idempotency key, counts it in
                                                                   ``unknown``
``relayed``   after its answer     the body, perhaps               deletes that body
``failed``    together with the    the same                        the same
              entry of the DSN
``removed``   by a person          the same                        the same
``held``      by a person          the entry                       leaves it alone
============  ===================  ==============================  ==============================

``sending`` is a lease, and ends with the process: `lock` lets one process at a time have
the queue, and what it finds ``sending`` at its start is nobody's.

Where an upstream takes some recipients and not others, the entry is split in the
same commit that notes the answer; what is sent again later has a key of its own,
but for those whom the upstream may have taken under the old one.

After the answer was asked for and did not come there is no "failed", only
"unknown": that, and a crash in the same place, are the only ways to send twice,
and only to an upstream that knows no idempotency key.

A DSN is an entry like any other, but its upstream is the inbound injection, its
sender is ``<>``, and nothing is ever returned for it.

========== ======================================================================
relay      the parts together: starts, stops, one at a time on this machine
listener   SMTP: connections, AUTH, TLS, limits; knows nothing of mail
users      who may log in: a file with scrypt hashes
guard      delay and lock-out after wrong passwords
intake     from what the client sent to an entry of the queue
policy     who may send what to whom
author     who a mail says that it is from
submission what a mail still needs: Date, Message-ID, Received; what it must lose
signing    DKIM
queue      the states above
tables     their tables, version by version
bodies     the messages on the disk, encrypted
rates      how much each user sent
suppressed addresses that bounced
dispatch   what is due goes upstream, and what became of it is noted
gate       whether the upstream can be reached; while it cannot, one tries
returns    DSNs into the person's own mailbox
dsn        what a DSN looks like
refusal    what the client is told
waiting    how much is to be sent, for who only wants to know that
step       the points at which the crash suite kills the process
========== ======================================================================
"""
