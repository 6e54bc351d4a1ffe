"""All that drain knows in one file, and back again.

A backup is made while everything runs; a restore has drain's lock and the relay's.
A restore forgets nothing: what the ledger, the queue and the files know that are
there now stays, and what only the backup knows is added, so that it can be run again
after whatever interrupted it. Then the ledger is compared with the bucket, which is
no part of a backup and so is never old. What drain did over time (the logbook) is no
part of it either: it is about the past only.

===================================  ============================================================
what is the case                     what a restore makes of it
===================================  ============================================================
delivered after the backup           it lies under ``processed/``: entered as settled
deferred, or its end not known, in   lies under ``processed/``: settled. Under ``quarantine/``:
the backup                           quarantined. Else as it was: it is tried again, or missed
delivered, not yet moved             by the ledger of now: stays so. By the backup: settled, since it
                                     may be gone from there. Found under ``pending/`` it is only moved
quarantined, released since          lies under ``processed/``: settled
quarantined, gone from there since   stays so: found again it is set aside again
waiting to be replayed               by the ledger of now: stays so. By the backup: settled, since
                                     it may have been replayed; a person can do that again
new mail, with a name that the       another version of the object: opened, as every other
backup knows
the same mail for somebody else      another identity: nothing that is known of one is of the other
mail that comes meanwhile            stays under ``pending/`` for the next pass
known to both                        the later one counts; but "delivered" is not undone by a try
known to a ledger that is damaged    what can still be read of it counts as if it were sound
no ledger in the backup              what lies under ``processed/`` is entered all the same
outgoing, and waited in the backup   ``held``: it may have been sent since, so a person decides.
                                     Where the queue of now has it, that counts
outgoing, and the relay has another  put under that one, if the key of then is in the backup or
key now                              beside the one of now (``.restored``); else left in the backup
===================================  ============================================================

What neither knows, as a delivery after the backup whose object was not moved before
the ledger was lost, comes twice, as after any loss of the ledger. Mailboxes are not
drain's: where they were lost too, what was delivered after the backup is under
``processed/`` only, and a restore says so.

========== ======================================================================
archive    the file: a tar with a manifest, its sums checked before it is used
places     where on this machine everything is
snapshot   copies of SQLite's files that are in use
writing    from the places into the file
restoring  from the file to the places
ledgers    what two ledgers and the bucket know, as one
queues     the relay's queue that is there, and what it lacks
standin    a file of SQLite, or another in its place where it is gone or damaged
========== ======================================================================
"""
