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
, released INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO "mail" VALUES('41044ca8ab6c3d438dbcff13ec4a7844ac7ceaf7f5aa8809134ecd0d7da455c8','setting_aside','alice@example.test','a@x.test',13,NULL,'mail-refused','554 5.6.0 no',1,0,0,NULL,2004.0,2004.0,NULL,0);
INSERT INTO "mail" VALUES('46ccb299c8cec5b388ee950ab9565c0eb84e40d6e62d7edb6afcf88f40088665','deferred','alice@example.test','a@x.test',7,NULL,'session-lost','gone',1,0,0,3000.0,2000.0,2000.0,2009.0,0);
INSERT INTO "mail" VALUES('5bdd9cd7cd990b3f3d9c169817f519d176765ba560349b21321912fb072a0b2a','injecting','alice@example.test','a@x.test',9,'alice@example.test',NULL,NULL,0,0,0,NULL,2000.0,2000.0,NULL,0);
INSERT INTO "mail" VALUES('9e58d3c77623b8f00c587b5b3f6b7a67f3b52b6107007eadfe0de6c983c9c2bc','deferred','alice@example.test','a@x.test',8,NULL,'released',NULL,0,0,0,NULL,2005.0,2009.0,NULL,1);
INSERT INTO "mail" VALUES('c5e0bc69746c2f5f8e115571dd80e9b892d0a9f9e711fecde05b1452321afeac','deferred','alice@example.test','a@x.test',8,NULL,'recipient-refused','RCPT: 450 4.2.1 later',1,0,0,3000.0,2003.0,2003.0,NULL,0);
INSERT INTO "mail" VALUES('d0d3a13cf2d45850954f170d6a3dbe4a2edbe6018e011f2f64aa26c8f993909c','discarding','alice@example.test','a@x.test',10,NULL,'policy','no',1,0,0,NULL,2007.0,2007.0,NULL,0);
INSERT INTO "mail" VALUES('d95efcbe09dbd7063c744f7b50599f05586391146a0fc2a12dc61ef6b2fcc870','delivered','alice@example.test','a@x.test',9,'alice@example.test',NULL,'250 2.0.0 filed',0,0,0,NULL,2000.0,2001.0,NULL,0);
INSERT INTO "mail" VALUES('e526950bbefe6f090fffdb6f0e8527205982e160eae5c2758aef19713d4f68f9','quarantined','alice@example.test','a@x.test',11,NULL,'virus','Eicar',1,0,0,NULL,2005.0,2006.0,NULL,0);
INSERT INTO "mail" VALUES('f1186a3ca38bf25f4abd69f1a8acacddebd0d4ed33c7210260e6d2cc3efb3d2d','settled','alice@example.test','a@x.test',7,'alice@example.test',NULL,'250 2.0.0 filed',0,0,0,NULL,2000.0,2002.0,NULL,0);
INSERT INTO "mail" VALUES('f5ec7c7d4681898621a44d63abcdcdc70ff22737dfd4127e5ae2f732efca2098','discarded','alice@example.test','a@x.test',9,NULL,'policy','no',1,0,0,NULL,2007.0,2008.0,NULL,0);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "note" VALUES('key 0123456789abcdef','999.0');
INSERT INTO "note" VALUES('pruned_at','1008.0');
INSERT INTO "note" VALUES('told filter ai','1009.0 It is away.');
CREATE TABLE object (
    key           TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL,             -- ISO 8601, UTC, as LIST has it
    identity      TEXT NOT NULL,
    PRIMARY KEY (key, etag, last_modified)
) WITHOUT ROWID;
INSERT INTO "object" VALUES('pending/setting_aside','"setting_aside"','2026-01-01T00:00:00.000+00:00','41044ca8ab6c3d438dbcff13ec4a7844ac7ceaf7f5aa8809134ecd0d7da455c8');
INSERT INTO "object" VALUES('pending/missing','"missing"','2026-01-01T00:00:00.000+00:00','46ccb299c8cec5b388ee950ab9565c0eb84e40d6e62d7edb6afcf88f40088665');
INSERT INTO "object" VALUES('pending/injecting','"injecting"','2026-01-01T00:00:00.000+00:00','5bdd9cd7cd990b3f3d9c169817f519d176765ba560349b21321912fb072a0b2a');
INSERT INTO "object" VALUES('quarantine/released','"r"','2026-01-01T00:00:00.000+00:00','9e58d3c77623b8f00c587b5b3f6b7a67f3b52b6107007eadfe0de6c983c9c2bc');
INSERT INTO "object" VALUES('pending/deferred','"deferred"','2026-01-01T00:00:00.000+00:00','c5e0bc69746c2f5f8e115571dd80e9b892d0a9f9e711fecde05b1452321afeac');
INSERT INTO "object" VALUES('pending/discarding','"discarding"','2026-01-01T00:00:00.000+00:00','d0d3a13cf2d45850954f170d6a3dbe4a2edbe6018e011f2f64aa26c8f993909c');
INSERT INTO "object" VALUES('pending/delivered','"delivered"','2026-01-01T00:00:00.000+00:00','d95efcbe09dbd7063c744f7b50599f05586391146a0fc2a12dc61ef6b2fcc870');
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
INSERT INTO "verdict" VALUES('e526950bbefe6f090fffdb6f0e8527205982e160eae5c2758aef19713d4f68f9','clamav','abc',NULL,'quarantine','virus','Eicar','[]',2000.0);
CREATE INDEX mail_unfinished ON mail (state) WHERE state NOT IN ('settled', 'quarantined', 'discarded');
CREATE INDEX mail_settled ON mail (updated_at) WHERE state IN ('settled', 'discarded');
CREATE INDEX object_identity ON object (identity);
COMMIT;
PRAGMA user_version = 2;
