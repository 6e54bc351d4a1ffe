"""The commands, one file for those that belong together: from words to parts, and what a person is told.

A command is called with its arguments and the environment, prints, and gives the
exit code (sysexits.h). `drain.cli` loads its module when it is called: boto3 and
cryptography are slow to load, and `drain config` needs neither.
"""
