"""A mail server on this machine, set up for drain: loopback only, AUTH, mailboxes, a certificate, the way out.

What it shall be is made from drain.env and the templates (`drain/templates`), shown
as a difference, asked about, written, started, and proven: a login that is taken, and
somebody without one who is refused. Run again, it changes only what is not so already.

=========== ======================================================================
postfix     Postfix: its files, its login, its start
maddy       Maddy: the same; also within Termux' proot-distro
template    a template of `drain/templates`, filled in
changes     files as they shall be: shown, asked about, written
certificate the certificate that drain pins (INJECT_TLS_CA_FILE)
plan        what both need to know, from drain.env
prove       whether it works, and lets nobody else in
=========== ======================================================================
"""
