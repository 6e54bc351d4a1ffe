"""What a person has to be told, how often, and the ways out.

After each pass it is looked at what is so and what is not (`conditions`). The
memory says what of that is news: once when it starts, again after
``ALERT_REPEAT``, once when it is over. News goes into the outbox, one entry a way
out, on the disk; each is tried until it is told, or overtaken by later news of the
same kind. Nothing here is waited for by mail, and no way out by another.

=========== =====================================================================
alert       an alert, its kinds, and what a way out is
conditions  what is so, of what a pass came to
memory      what of that is news
outbox      news on its way out
hook        the person's own command
ntfy        ntfy's topics
webhook     JSON to an address
letter      a mail into the admin mailbox
message     what every way out says
post        one request, to an address that is a secret
output      what a hook prints, bounded
ping        Healthchecks: not an alert, but that there was a pass
=========== =====================================================================
"""
