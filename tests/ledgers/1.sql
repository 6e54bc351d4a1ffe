BEGIN TRANSACTION;
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
INSERT INTO "mail" VALUES('31e73513cf2d6e41fbfea471202339ca049c838ba3ee1498a0c211992bfe2435','injecting','alice@example.test','a@x.test',7,'alice@example.test','no-reply','The line broke.',1,0,0,2000.0,1000.0,1003.0,NULL);
INSERT INTO "mail" VALUES('41044ca8ab6c3d438dbcff13ec4a7844ac7ceaf7f5aa8809134ecd0d7da455c8','setting_aside','alice@example.test','a@x.test',13,NULL,'mail-refused','554 5.6.0 no',1,0,0,NULL,1005.0,1005.0,NULL);
INSERT INTO "mail" VALUES('5bdd9cd7cd990b3f3d9c169817f519d176765ba560349b21321912fb072a0b2a','injecting','alice@example.test','a@x.test',9,'alice@example.test',NULL,NULL,0,0,0,NULL,1000.0,1000.0,NULL);
INSERT INTO "mail" VALUES('c5e0bc69746c2f5f8e115571dd80e9b892d0a9f9e711fecde05b1452321afeac','deferred','alice@example.test','a@x.test',8,NULL,'recipient-refused','RCPT: 450 4.2.1 later',1,0,0,3000.0,1004.0,1004.0,NULL);
INSERT INTO "mail" VALUES('d95efcbe09dbd7063c744f7b50599f05586391146a0fc2a12dc61ef6b2fcc870','delivered','alice@example.test','a@x.test',9,'alice@example.test',NULL,'250 2.0.0 filed',0,0,0,NULL,1000.0,1001.0,NULL);
INSERT INTO "mail" VALUES('e526950bbefe6f090fffdb6f0e8527205982e160eae5c2758aef19713d4f68f9','quarantined','alice@example.test','a@x.test',11,NULL,'damaged','It is sealed, but it was changed.',1,0,0,NULL,1006.0,1007.0,NULL);
INSERT INTO "mail" VALUES('f1186a3ca38bf25f4abd69f1a8acacddebd0d4ed33c7210260e6d2cc3efb3d2d','settled','alice@example.test','a@x.test',7,'alice@example.test',NULL,'250 2.0.0 filed',0,0,0,NULL,1000.0,1002.0,NULL);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "note" VALUES('key 0123456789abcdef','999.0');
INSERT INTO "note" VALUES('pruned_at','1008.0');
CREATE TABLE object (
    key           TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL,             -- ISO 8601, UTC, as LIST has it
    identity      TEXT NOT NULL,
    PRIMARY KEY (key, etag, last_modified)
) WITHOUT ROWID;
INSERT INTO "object" VALUES('pending/unknown','"e"','2026-01-01T00:00:00.000+00:00','31e73513cf2d6e41fbfea471202339ca049c838ba3ee1498a0c211992bfe2435');
INSERT INTO "object" VALUES('pending/setting_aside','"e"','2026-01-01T00:00:00.000+00:00','41044ca8ab6c3d438dbcff13ec4a7844ac7ceaf7f5aa8809134ecd0d7da455c8');
INSERT INTO "object" VALUES('pending/injecting','"e"','2026-01-01T00:00:00.000+00:00','5bdd9cd7cd990b3f3d9c169817f519d176765ba560349b21321912fb072a0b2a');
INSERT INTO "object" VALUES('pending/deferred','"e"','2026-01-01T00:00:00.000+00:00','c5e0bc69746c2f5f8e115571dd80e9b892d0a9f9e711fecde05b1452321afeac');
INSERT INTO "object" VALUES('pending/delivered','"e"','2026-01-01T00:00:00.000+00:00','d95efcbe09dbd7063c744f7b50599f05586391146a0fc2a12dc61ef6b2fcc870');
CREATE INDEX mail_unfinished ON mail (state) WHERE state NOT IN ('settled', 'quarantined', 'discarded');
CREATE INDEX mail_settled ON mail (updated_at) WHERE state IN ('settled', 'discarded');
CREATE INDEX object_identity ON object (identity);
COMMIT;
PRAGMA user_version=1;
