"""drain.env and the keys, for somebody who begins, and what is left to do elsewhere.

Asks only for what cannot be known; each question has an explanation and, where there
can be one, a default. Run again, it asks for what is missing, and keeps what is there.

=========== ======================================================================
questions   what is asked, in order, and what an answer has to be
answers     where answers come from: drain.env, the environment, a file, the person
sample      drain.env with every setting, each with a comment
steps       what to do at Cloudflare, and the DNS records, with the person's own names
=========== ======================================================================
"""
