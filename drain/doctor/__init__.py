"""Everything checked, in order, each with the next thing to do.

A check is a function that yields `Finding`s and raises nothing; what it could not
find out is `Level.UNKNOWN`, never "ok". It changes nothing but for objects under a
probe name, which it removes.

=========== ======================================================================
examination the checks, in order
finding     what a check found
files       configuration, and the modes of files
machine     disk space, the lock, Termux, systemd
bucket      clock, keys, lifecycle rules
seal        the private key against a sealed probe
server      the mail server: TCP, TLS, AUTH, RCPT, SIZE
dns         the mail domains: MX, SPF, DKIM, DMARC
services    each filter, each upstream, each outlet of alerts
=========== ======================================================================
"""
