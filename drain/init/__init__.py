"""drain.env and the keys, for somebody who begins, and what is left to do elsewhere.

Asks only for what cannot be known; each question has an explanation and, where there
can be one, a default. All is asked before anything is written. Run again, it asks for
what is missing, and keeps what is there.

=========== ======================================================================
questions   what is asked, in order, and what an answer has to be
answers     where answers come from: drain.env, the environment, a file, the person
person      a question asked at the terminal
sample      drain.env with every setting, each with a comment
writing     the keys, then drain.env
steps       what to do at Cloudflare, with the person's own names
records     the DNS records of a mail domain
=========== ======================================================================
"""
