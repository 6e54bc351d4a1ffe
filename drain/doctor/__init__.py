"""Everything checked, in order, each with the next thing to do.

A check is a function that yields `Finding`s and raises nothing; what it could not
find out is `Level.UNKNOWN`, never "ok". It changes nothing but for objects under a
probe name, which it removes.

=========== ======================================================================
examination the checks, in order
finding     what a check found
say         findings of one check, made safe to show
bounded     findings, with a time limit
program     another program asked, with a time limit
settings    the configuration
files       modes and owners of files, and those of SQLite
machine     disk space, the lock
passes      whether passes come to their end, and what is written after them
systemd     units, linger, the journal
termux      wake lock, battery, Termux:API
bucket      clock, keys, lifecycle rules
seal        the private keys against sealed probes
server      the mail server: AUTH, RCPT, SIZE
connection  the way to it: TCP, its greeting, TLS
dns         the mail domains: MX, and the three below
records     what the DNS has at a name
spf         SPF, evaluated
dkim        the public key
dmarc       what a domain asks of receivers
services    each filter, each upstream, the relay, IMAP, each outlet of alerts
=========== ======================================================================
"""
