"""The ledger's tables, version by version."""

from drain.database import Schema

# Step N makes version N out of version N - 1. What was released is never changed.
_STEPS = (
    """
CREATE TABLE mail (
    identity        TEXT PRIMARY KEY,
    state           TEXT NOT NULL,
    recipient       TEXT NOT NULL,           -- of the envelope; "" for none
    sender          TEXT NOT NULL,           -- of the envelope; "" for <>
    size            INTEGER NOT NULL,        -- bytes as fetched and opened
    mailbox         TEXT,                    -- the address that the server took
    reason          TEXT,                    -- short code of a deferral or quarantine
    words           TEXT,                    -- the same in words, often the server's
    attempts        INTEGER NOT NULL DEFAULT 0,
    undecided       INTEGER NOT NULL DEFAULT 0,  -- tries that the server failed without a verdict on the mail
    reinjections    INTEGER NOT NULL DEFAULT 0,  -- tries whose end was not known and that another followed
    next_attempt_at REAL,                    -- Unix time
    first_seen_at   REAL NOT NULL,
    updated_at      REAL NOT NULL,
    missing_at      REAL                     -- when its object was found gone without our doing
) WITHOUT ROWID;
CREATE INDEX mail_unfinished ON mail (state) WHERE state NOT IN ('settled', 'quarantined', 'discarded');
CREATE INDEX mail_settled ON mail (updated_at) WHERE state IN ('settled', 'discarded');
CREATE TABLE object (
    key           TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL,             -- ISO 8601, UTC, as LIST has it
    identity      TEXT NOT NULL,
    PRIMARY KEY (key, etag, last_modified)
) WITHOUT ROWID;
CREATE INDEX object_identity ON object (identity);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
""",
    # released: 1 if a person did, and the filters are passed over.
    """
ALTER TABLE mail ADD COLUMN released INTEGER NOT NULL DEFAULT 0;
CREATE TABLE verdict (
    identity TEXT NOT NULL,
    filter   TEXT NOT NULL,
    settings TEXT NOT NULL,                  -- digest of the filter's settings; with others it is asked again
    score    REAL,
    action   TEXT NOT NULL,
    code     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    evidence TEXT NOT NULL,                  -- JSON, a list of strings
    at       REAL NOT NULL,
    PRIMARY KEY (identity, filter)
) WITHOUT ROWID;
""",
)

LEDGER = Schema(
    name="The ledger",
    steps=_STEPS,
    if_newer="Install that version again, or move the ledger away and rebuild it.",
    if_damaged="Move it away and run `drain ledger rebuild`, or mail delivered before may come again.",
)
