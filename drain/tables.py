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
    # stored_at: when its object was written, by the edge's clock. message_id: SHA-256 of its
    # Message-ID, in hex. event: what happened to each mail, in the order of their rowids.
    """
ALTER TABLE mail ADD COLUMN stored_at REAL;
ALTER TABLE mail ADD COLUMN message_id TEXT;
CREATE TABLE event (
    identity TEXT NOT NULL,
    what     TEXT NOT NULL,                  -- a state, or what a person did
    words    TEXT NOT NULL,
    at       REAL NOT NULL,                  -- Unix time, of the first time
    last_at  REAL NOT NULL,                  -- of the last time in a row
    times    INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX event_of ON event (identity);
CREATE INDEX event_ended ON event (at) WHERE what IN ('delivered', 'quarantined', 'discarded');
CREATE INDEX mail_seen ON mail (first_seen_at);
CREATE INDEX mail_quarantined ON mail (reason) WHERE state = 'quarantined';
CREATE INDEX mail_missing ON mail (missing_at) WHERE missing_at IS NOT NULL;
""",
    # What is too old is found without reading all that was ever said.
    """
CREATE INDEX verdict_given ON verdict (at);
""",
)

LEDGER = Schema(
    name="The ledger",
    steps=_STEPS,
    if_newer="Install that version again, or move the ledger away and rebuild it.",
    if_damaged="Move it away and run `drain ledger rebuild`, or mail delivered before may come again.",
)
