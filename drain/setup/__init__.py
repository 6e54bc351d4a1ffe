"""A mail server on this machine, set up for drain: loopback only, AUTH, mailboxes, a certificate, the way out.

What it shall be is made from drain.env and the templates (`drain/templates`), shown
as a difference, asked about, written, started, and proven: a login that is taken, and
somebody without one who is refused. Run again, it changes only what is not so already.

============= ======================================================================
postfix       Postfix: its files and its login
postfix_place where it is, how it is checked and started
maddy         Maddy: the same; also within Termux' proot-distro
maddy_people  its logins and mailboxes
maddy_former  what the one that is there has, and would have no longer
maddy_program its own commands, on this machine or in a proot
maddy_service its start
template      a template of `drain/templates`, filled in
changes       files as they shall be: shown, asked about, written
certificate   the certificate that drain pins (INJECT_TLS_CA_FILE)
apply         what is left to do: found, shown, done in order
wanted        what a server shall be: files, steps, its check and its start
relay_login   its login at drain's relay
command       a program that does something
plan          what both need to know, from drain.env
prove         whether it works, and lets nobody else in
listeners     its ports: on loopback alone, and nobody gets by without a login
============= ======================================================================
"""
