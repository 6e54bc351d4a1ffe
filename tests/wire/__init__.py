"""Whole passes over a bucket and a mail server that are fakes at the wire: every fault, every reply."""
