-- The tables of an outbox in MariaDB or MySQL. Put them into your own migrations, or let `Outbox::migrate` make them: every
-- statement may be run again. All names begin with `outbox`; replace it for another name. Times are in UTC.

-- Each message, in the order in which the messages of one aggregate were committed.
CREATE TABLE IF NOT EXISTS outbox (
    position BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    aggregate_type VARCHAR(255) NOT NULL,
    aggregate_id VARCHAR(255) NOT NULL,
    -- Among the messages of the aggregate: 1, 2, 3, without gaps.
    sequence BIGINT NOT NULL,
    event_type VARCHAR(255) NOT NULL,
    -- NULL means JSON, which is in event_data. Other data is in event_binary.
    content_type VARCHAR(255),
    event_data LONGTEXT,
    event_binary LONGBLOB,
    -- A JSON object whose values are text.
    headers MEDIUMTEXT,
    created_at DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- Is a dead letter, or waits for one.
    held BOOLEAN NOT NULL DEFAULT FALSE,
    processed BOOLEAN NOT NULL DEFAULT FALSE,
    processed_at DATETIME(6),
    -- Discarded: it counts as processed and was not published.
    dropped BOOLEAN NOT NULL DEFAULT FALSE,
    UNIQUE KEY outbox_id (id),
    UNIQUE KEY outbox_sequence (aggregate_type, aggregate_id, sequence),
    KEY outbox_pending (processed, held, position),
    KEY outbox_processed (processed_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Each aggregate: its newest sequence. The writer of a message locks this row until the end of the transaction.
CREATE TABLE IF NOT EXISTS outbox_aggregates (
    aggregate_type VARCHAR(255) NOT NULL,
    aggregate_id VARCHAR(255) NOT NULL,
    sequence BIGINT NOT NULL,
    held BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (aggregate_type, aggregate_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Messages that were refused: retried at `next_attempt_at`, or dead letters, which wait to be retried or discarded.
CREATE TABLE IF NOT EXISTS outbox_failures (
    aggregate_type VARCHAR(255) NOT NULL,
    aggregate_id VARCHAR(255) NOT NULL,
    position BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    failed_at DATETIME(6) NOT NULL,
    next_attempt_at DATETIME(6) NOT NULL,
    last_error TEXT NOT NULL,
    dead BOOLEAN NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id),
    UNIQUE KEY outbox_failures_position (position)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row: the holder of the lease, and its end. `format` is the version of these tables.
CREATE TABLE IF NOT EXISTS outbox_publisher (
    alone BOOLEAN NOT NULL DEFAULT TRUE PRIMARY KEY CHECK (alone = TRUE),
    format BIGINT NOT NULL DEFAULT 1,
    holder VARCHAR(36),
    lease_until DATETIME(6)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
INSERT IGNORE INTO outbox_publisher (alone) VALUES (TRUE);
