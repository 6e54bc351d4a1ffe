BEGIN TRANSACTION;
CREATE TABLE event (
    identity TEXT NOT NULL,
    what     TEXT NOT NULL,                  -- a state, or what a person did
    words    TEXT NOT NULL,
    at       REAL NOT NULL,                  -- Unix time, of the first time
    last_at  REAL NOT NULL,                  -- of the last time in a row
    times    INTEGER NOT NULL DEFAULT 1
);
INSERT INTO "event" VALUES('674631d2af2e44a726bccd44ddb08ac11c78e69bcdb6cc4e070c1bd95926019c','injecting','alice@example.test',3000.0,3000.0,1);
INSERT INTO "event" VALUES('bde3a28332d43fe069365051bbc3203df22cc0f67ad4097ad6d2d14e3afb6ffa','injecting','alice@example.test',3000.0,3000.0,1);
INSERT INTO "event" VALUES('bde3a28332d43fe069365051bbc3203df22cc0f67ad4097ad6d2d14e3afb6ffa','no-reply','line dropped',3001.0,3001.0,1);
INSERT INTO "event" VALUES('bde3a28332d43fe069365051bbc3203df22cc0f67ad4097ad6d2d14e3afb6ffa','again','How the earlier try ended is not known.',3400.0,3400.0,1);
INSERT INTO "event" VALUES('bde3a28332d43fe069365051bbc3203df22cc0f67ad4097ad6d2d14e3afb6ffa','injecting','alice@example.test',3401.0,3401.0,1);
INSERT INTO "event" VALUES('da5021773389b95575aeefcb4c0e3e7d5a07c6d367bf2866681786df238f9673','injecting','alice@example.test',3000.0,3000.0,1);
INSERT INTO "event" VALUES('da5021773389b95575aeefcb4c0e3e7d5a07c6d367bf2866681786df238f9673','delivered','250 2.0.0 filed',3001.0,3001.0,1);
INSERT INTO "event" VALUES('fe9dafb2df2c3a94ae7b5598cfb3f16782b103df11c2ec42ff396eea0060536c','injecting','alice@example.test',3000.0,3000.0,1);
INSERT INTO "event" VALUES('fe9dafb2df2c3a94ae7b5598cfb3f16782b103df11c2ec42ff396eea0060536c','delivered','250 2.0.0 filed',3001.0,3001.0,1);
INSERT INTO "event" VALUES('fe9dafb2df2c3a94ae7b5598cfb3f16782b103df11c2ec42ff396eea0060536c','settled','',3002.0,3002.0,1);
INSERT INTO "event" VALUES('1999f3ed5e22c1c903643220a4c6bb4eed88d6c0a272231ce274d80a33e27b2c','deferred','recipient-refused: RCPT: 450 4.2.1 later',3003.0,3003.0,1);
INSERT INTO "event" VALUES('e55217eefe9cce16e26f027934ec185820d412a0e1390b4d081234206d9fd0ea','deferred','session-lost: gone',3003.0,3003.0,1);
INSERT INTO "event" VALUES('e55217eefe9cce16e26f027934ec185820d412a0e1390b4d081234206d9fd0ea','missing','Its object is gone from the bucket.',3009.0,3009.0,1);
INSERT INTO "event" VALUES('5d63c00af6023fe91f04be45c643657e3ebf13f3f46f32aaf9106d680e3f596b','setting_aside','mail-refused: 554 5.6.0 no',3004.0,3004.0,1);
INSERT INTO "event" VALUES('83e3a1e5e5225af072f2d5d98bd2e8a874126ddab7c2f22055463489652ff1f2','setting_aside','virus: Eicar',3005.0,3005.0,1);
INSERT INTO "event" VALUES('83e3a1e5e5225af072f2d5d98bd2e8a874126ddab7c2f22055463489652ff1f2','quarantined','',3006.0,3006.0,1);
INSERT INTO "event" VALUES('d11dd47d56b14d5616c84f0cb50d9314eba151619b5550629b5ae2087860a4f0','setting_aside','spam: 5.0 points',3005.0,3005.0,1);
INSERT INTO "event" VALUES('d11dd47d56b14d5616c84f0cb50d9314eba151619b5550629b5ae2087860a4f0','quarantined','',3006.0,3006.0,1);
INSERT INTO "event" VALUES('d11dd47d56b14d5616c84f0cb50d9314eba151619b5550629b5ae2087860a4f0','released','',3009.0,3009.0,1);
INSERT INTO "event" VALUES('6e1312400c0fc11ebc57b7e3edcf6c5d445afa5d5638ec51d018343c31bdc0b6','discarding','policy: no',3007.0,3007.0,1);
INSERT INTO "event" VALUES('eee6a2645967d21d39d366d9d9ef62ee59ffd719aad1a0c44b7c9cb9c6e46b93','discarding','policy: no',3007.0,3007.0,1);
INSERT INTO "event" VALUES('eee6a2645967d21d39d366d9d9ef62ee59ffd719aad1a0c44b7c9cb9c6e46b93','discarded','',3008.0,3008.0,1);
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
, released INTEGER NOT NULL DEFAULT 0, stored_at REAL, message_id TEXT) WITHOUT ROWID;
INSERT INTO "mail" VALUES('1999f3ed5e22c1c903643220a4c6bb4eed88d6c0a272231ce274d80a33e27b2c','deferred','alice@example.test','a@x.test',33,NULL,'recipient-refused','RCPT: 450 4.2.1 later',1,0,0,4000.0,3003.0,3003.0,NULL,0,1767225600.0,'784a1f3a6fe86498e8d50e7cadc3b6b9b404f7d456649721a55dc4e60cc4c1f9');
INSERT INTO "mail" VALUES('5d63c00af6023fe91f04be45c643657e3ebf13f3f46f32aaf9106d680e3f596b','setting_aside','alice@example.test','a@x.test',38,NULL,'mail-refused','554 5.6.0 no',1,0,0,NULL,3004.0,3004.0,NULL,0,1767225600.0,'a783c42ed3a8c60e5ad4bf6176c11914e46ee1e5393c312437f63ba959339d1d');
INSERT INTO "mail" VALUES('674631d2af2e44a726bccd44ddb08ac11c78e69bcdb6cc4e070c1bd95926019c','injecting','alice@example.test','a@x.test',34,'alice@example.test',NULL,NULL,0,0,0,NULL,3000.0,3000.0,NULL,0,1767225600.0,'ebfb93efa7b5abed8274d42417c5508b3032d22456338a0cc63f9783414248fc');
INSERT INTO "mail" VALUES('6e1312400c0fc11ebc57b7e3edcf6c5d445afa5d5638ec51d018343c31bdc0b6','discarding','alice@example.test','a@x.test',35,NULL,'policy','no',1,0,0,NULL,3007.0,3007.0,NULL,0,1767225600.0,'2f31a7631f3255b88555ce15446e0a4633321c541abebe081aec1fc935fd7190');
INSERT INTO "mail" VALUES('83e3a1e5e5225af072f2d5d98bd2e8a874126ddab7c2f22055463489652ff1f2','quarantined','alice@example.test','a@x.test',36,NULL,'virus','Eicar',1,0,0,NULL,3005.0,3006.0,NULL,0,1767225600.0,'d267e76688f213ca8fe2e748754c8ce470991519536d086f23de28aa0a44073f');
INSERT INTO "mail" VALUES('bde3a28332d43fe069365051bbc3203df22cc0f67ad4097ad6d2d14e3afb6ffa','injecting','alice@example.test','a@x.test',30,'alice@example.test','no-reply','line dropped',1,0,1,NULL,3000.0,3401.0,NULL,0,1767225600.0,'2f940e95b1b928185e033041a3fccd9d23d51f7403088f7ca5d9258a4b46089a');
INSERT INTO "mail" VALUES('d11dd47d56b14d5616c84f0cb50d9314eba151619b5550629b5ae2087860a4f0','deferred','alice@example.test','a@x.test',33,NULL,'released',NULL,0,0,0,NULL,3005.0,3009.0,NULL,1,1767225600.0,'cdd8f60c8ef89d74aaeacf9c4fef0150d928ed09bb1b1712dc5d5a22eda42268');
INSERT INTO "mail" VALUES('da5021773389b95575aeefcb4c0e3e7d5a07c6d367bf2866681786df238f9673','delivered','alice@example.test','a@x.test',34,'alice@example.test',NULL,'250 2.0.0 filed',0,0,0,NULL,3000.0,3001.0,NULL,0,1767225600.0,'b184893bc31862aaed5aacd427bc4e2b26e100a1dad84728b0de4fa5f17b4366');
INSERT INTO "mail" VALUES('e55217eefe9cce16e26f027934ec185820d412a0e1390b4d081234206d9fd0ea','deferred','alice@example.test','a@x.test',32,NULL,'session-lost','gone',1,0,0,4000.0,3003.0,3003.0,3009.0,0,1767225600.0,'d0a32a80b4f639a109282c107ffab35f93c934ce4e5a98ad8ba059c9be90ce71');
INSERT INTO "mail" VALUES('eee6a2645967d21d39d366d9d9ef62ee59ffd719aad1a0c44b7c9cb9c6e46b93','discarded','alice@example.test','a@x.test',34,NULL,'policy','no',1,0,0,NULL,3007.0,3008.0,NULL,0,1767225600.0,'025cc2c12335ee577324a8c42e7b3d8de0dc6b874c00770fa5da11a3a58eac5d');
INSERT INTO "mail" VALUES('fe9dafb2df2c3a94ae7b5598cfb3f16782b103df11c2ec42ff396eea0060536c','settled','alice@example.test','a@x.test',32,'alice@example.test',NULL,'250 2.0.0 filed',0,0,0,NULL,3000.0,3002.0,NULL,0,1767225600.0,'f22978bd224f582599f90c80ef557166a7dcfc198cf2aea9b2bddeefc704e527');
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "note" VALUES('key 0123456789abcdef','999.0');
INSERT INTO "note" VALUES('pruned_at','3008.0');
CREATE TABLE object (
    key           TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL,             -- ISO 8601, UTC, as LIST has it
    identity      TEXT NOT NULL,
    PRIMARY KEY (key, etag, last_modified)
) WITHOUT ROWID;
INSERT INTO "object" VALUES('pending/deferred','"deferred"','2026-01-01T00:00:00.000+00:00','1999f3ed5e22c1c903643220a4c6bb4eed88d6c0a272231ce274d80a33e27b2c');
INSERT INTO "object" VALUES('pending/setting_aside','"setting_aside"','2026-01-01T00:00:00.000+00:00','5d63c00af6023fe91f04be45c643657e3ebf13f3f46f32aaf9106d680e3f596b');
INSERT INTO "object" VALUES('pending/injecting','"injecting"','2026-01-01T00:00:00.000+00:00','674631d2af2e44a726bccd44ddb08ac11c78e69bcdb6cc4e070c1bd95926019c');
INSERT INTO "object" VALUES('pending/discarding','"discarding"','2026-01-01T00:00:00.000+00:00','6e1312400c0fc11ebc57b7e3edcf6c5d445afa5d5638ec51d018343c31bdc0b6');
INSERT INTO "object" VALUES('pending/again','"again"','2026-01-01T00:00:00.000+00:00','bde3a28332d43fe069365051bbc3203df22cc0f67ad4097ad6d2d14e3afb6ffa');
INSERT INTO "object" VALUES('quarantine/released','"released"','2026-01-01T00:00:00.000+00:00','d11dd47d56b14d5616c84f0cb50d9314eba151619b5550629b5ae2087860a4f0');
INSERT INTO "object" VALUES('pending/delivered','"delivered"','2026-01-01T00:00:00.000+00:00','da5021773389b95575aeefcb4c0e3e7d5a07c6d367bf2866681786df238f9673');
INSERT INTO "object" VALUES('pending/missing','"missing"','2026-01-01T00:00:00.000+00:00','e55217eefe9cce16e26f027934ec185820d412a0e1390b4d081234206d9fd0ea');
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
INSERT INTO "verdict" VALUES('83e3a1e5e5225af072f2d5d98bd2e8a874126ddab7c2f22055463489652ff1f2','clamav','abc',NULL,'quarantine','virus','Eicar','[]',3005.0);
INSERT INTO "verdict" VALUES('ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','ai','abc',1.0,'none','','','[]',3005.0);
CREATE INDEX mail_unfinished ON mail (state) WHERE state NOT IN ('settled', 'quarantined', 'discarded');
CREATE INDEX mail_settled ON mail (updated_at) WHERE state IN ('settled', 'discarded');
CREATE INDEX object_identity ON object (identity);
CREATE INDEX event_of ON event (identity);
CREATE INDEX event_ended ON event (at) WHERE what IN ('delivered', 'quarantined', 'discarded');
CREATE INDEX mail_seen ON mail (first_seen_at);
CREATE INDEX mail_quarantined ON mail (reason) WHERE state = 'quarantined';
CREATE INDEX mail_missing ON mail (missing_at) WHERE missing_at IS NOT NULL;
COMMIT;
PRAGMA user_version = 3;
