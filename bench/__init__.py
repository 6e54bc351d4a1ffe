"""What drain costs beside the drain that people have today: ``python -m bench``, from a checkout.

The parts stand around what is measured, each a process of its own, so that none shares
Python's lock with it or with another::

    endpoint ◀── TLS ── link ◀── TLS ── drain, or the peer ── SMTP ──▶ sink
     (S3)               (TCP)

The rooms
=========

========== ======================================================================
works      what is measured, in the order in which it is: the rows of the table
transfers  passes over a backlog: far, near, narrow, big, sealed
idling     what it costs to find nothing
plenty     100,000 objects that wait, a ledger of a million mails
ledgers    ledgers that look like years of mail
runs       drain or the peer as a process of its own, every mail accounted for
peer       what drain is compared with
meter      runs one command and says what it took; apart from the package
figures    medians, ratios, goals and the table of them
child      a server in a process of its own, spoken to by lines of JSON
endpoint   S3 over TLS, with mails that are made when they are asked for
mails      what these mails look like
link       a TCP proxy: round trip, bandwidth, connections that break
wire       one direction of it: delay, and turns
sink       an SMTP server that takes mail and keeps what it was, not the mail
========== ======================================================================

`filters.py` and `relay.py` are scripts of their own; README.md has what all of them found.
"""
