"""The commands, one file for those that belong together: from words to parts, and what a person is told.

A command is called with its arguments and the environment, prints, and gives the
exit code (sysexits.h). What it imports it imports itself: boto3 and cryptography
are slow to load, and `drain config` needs neither.
"""
