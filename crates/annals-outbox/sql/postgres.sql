-- The tables of an outbox in PostgreSQL. Put them into your own migrations, or let `Outbox::migrate` make them: every
-- statement may be run again. All names begin with `outbox`; replace it for another name.

-- Each message, in the order in which the messages of one aggregate were committed.
CREATE TABLE IF NOT EXISTS outbox (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    -- Among the messages of the aggregate: 1, 2, 3, without gaps.
    sequence bigint NOT NULL,
    event_type text NOT NULL,
    -- NULL means JSON, which is in event_data. Other data is in event_binary.
    content_type text,
    event_data text,
    event_binary bytea,
    -- A JSON object whose values are text.
    headers text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Is a dead letter, or waits for one.
    held boolean NOT NULL DEFAULT FALSE,
    processed boolean NOT NULL DEFAULT FALSE,
    processed_at timestamptz,
    -- Discarded: it counts as processed and was not published.
    dropped boolean NOT NULL DEFAULT FALSE,
    CONSTRAINT outbox_id UNIQUE (id),
    CONSTRAINT outbox_sequence UNIQUE (aggregate_type, aggregate_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX IF NOT EXISTS outbox_pending ON outbox (held, position) WHERE processed = FALSE;
CREATE INDEX IF NOT EXISTS outbox_processed ON outbox (processed_at) WHERE processed_at IS NOT NULL;

-- Each aggregate: its newest sequence. The writer of a message locks this row until the end of the transaction.
CREATE TABLE IF NOT EXISTS outbox_aggregates (
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    sequence bigint NOT NULL,
    held boolean NOT NULL DEFAULT FALSE,
    PRIMARY KEY (aggregate_type, aggregate_id)
);

-- Messages that were refused: retried at `next_attempt_at`, or dead letters, which wait to be retried or discarded.
CREATE TABLE IF NOT EXISTS outbox_failures (
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    position bigint NOT NULL,
    attempts bigint NOT NULL,
    failed_at timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    last_error text NOT NULL,
    dead boolean NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id),
    CONSTRAINT outbox_failures_position UNIQUE (position)
);

-- One row: the holder of the lease, and its end. `format` is the version of these tables.
CREATE TABLE IF NOT EXISTS outbox_publisher (
    alone boolean NOT NULL DEFAULT TRUE PRIMARY KEY CHECK (alone),
    format bigint NOT NULL DEFAULT 1,
    holder text,
    lease_until timestamptz
);
INSERT INTO outbox_publisher (alone) VALUES (TRUE) ON CONFLICT DO NOTHING;
