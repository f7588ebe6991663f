-- The tables of an outbox in SQLite. Put them into your own migrations, or let `Outbox::migrate` make them: every statement
-- may be run again. All names begin with `outbox`; replace it for another name. Times are microseconds since 1970.

-- Each message, in the order in which the messages of one aggregate were committed.
CREATE TABLE IF NOT EXISTS outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    -- Among the messages of the aggregate: 1, 2, 3, without gaps.
    sequence INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    -- NULL means JSON, which is in event_data. Other data is in event_binary.
    content_type TEXT,
    event_data TEXT,
    event_binary BLOB,
    -- A JSON object whose values are text.
    headers TEXT,
    created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    -- Is a dead letter, or waits for one.
    held INTEGER NOT NULL DEFAULT 0,
    processed INTEGER NOT NULL DEFAULT 0,
    processed_at INTEGER,
    -- Discarded: it counts as processed and was not published.
    dropped INTEGER NOT NULL DEFAULT 0,
    UNIQUE (aggregate_type, aggregate_id, sequence)
);
CREATE INDEX IF NOT EXISTS outbox_pending ON outbox (held, position) WHERE processed = FALSE;
CREATE INDEX IF NOT EXISTS outbox_processed ON outbox (processed_at) WHERE processed_at IS NOT NULL;

-- Each aggregate: its newest sequence.
CREATE TABLE IF NOT EXISTS outbox_aggregates (
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITHOUT ROWID;

-- Messages that were refused: retried at `next_attempt_at`, or dead letters, which wait to be retried or discarded.
CREATE TABLE IF NOT EXISTS outbox_failures (
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    position INTEGER NOT NULL UNIQUE,
    attempts INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    last_error TEXT NOT NULL,
    dead INTEGER NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
);

-- One row: the holder of the lease, and its end. `format` is the version of these tables.
CREATE TABLE IF NOT EXISTS outbox_publisher (
    alone INTEGER NOT NULL DEFAULT 1 PRIMARY KEY CHECK (alone = 1),
    format INTEGER NOT NULL DEFAULT 1,
    holder TEXT,
    lease_until INTEGER
);
INSERT INTO outbox_publisher (alone) VALUES (1) ON CONFLICT DO NOTHING;
