"""The tables of the relay's queue, version by version."""

from drain.database import Schema

_STEPS = (
    """
CREATE TABLE mail (
    id          TEXT PRIMARY KEY,            -- also the name of its body
    inbound     INTEGER NOT NULL,            -- 1: a DSN, which goes into the person's own mailbox
    user        TEXT NOT NULL,               -- who logged in; "" for a DSN
    sender      TEXT NOT NULL,               -- of the envelope; "" for <>
    return_path TEXT NOT NULL,               -- who hears that it failed; "" for nobody
    message_id  TEXT NOT NULL,
    size        INTEGER NOT NULL,            -- bytes
    received_at REAL NOT NULL                -- Unix time
) WITHOUT ROWID;
CREATE TABLE entry (
    id              TEXT PRIMARY KEY,        -- also the idempotency key
    mail            TEXT NOT NULL REFERENCES mail (id),
    inbound         INTEGER NOT NULL,        -- as of its mail
    state           TEXT NOT NULL,
    recipients      TEXT NOT NULL,           -- JSON, a list of addresses
    attempts        INTEGER NOT NULL DEFAULT 0,
    unknown         INTEGER NOT NULL DEFAULT 0,  -- tries whose end is not known
    next_attempt_at REAL NOT NULL,
    status          TEXT NOT NULL DEFAULT '',    -- RFC 3463, of the last answer
    diagnostic      TEXT NOT NULL DEFAULT '',    -- its words
    reference       TEXT NOT NULL DEFAULT '',    -- the upstream's own id of it
    updated_at      REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX entry_due ON entry (inbound, next_attempt_at) WHERE state = 'waiting';
CREATE INDEX entry_open ON entry (mail) WHERE state IN ('waiting', 'sending', 'held');
CREATE INDEX entry_finished ON entry (updated_at) WHERE state IN ('relayed', 'failed', 'removed');
CREATE TABLE suppressed (
    address    TEXT PRIMARY KEY,             -- in the form in which addresses are compared
    status     TEXT NOT NULL,
    diagnostic TEXT NOT NULL,
    at         REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE sent (user TEXT NOT NULL, at REAL NOT NULL, recipients INTEGER NOT NULL);
CREATE INDEX sent_user ON sent (user, at);
""",
)

QUEUE = Schema(
    name="The relay's queue",
    steps=_STEPS,
    if_newer="Install that version again; what waits in the queue is for it to send.",
    if_damaged="Move its folder away, and keep it: mails that wait are in it.",
)
