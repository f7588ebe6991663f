-- The state beside a log: what is made of its events and can be made again. `docs/sql-stores.md` describes the tables.
-- Names are bytes, so that they are compared as such.

-- One row: the log that this is the state of.
CREATE TABLE IF NOT EXISTS state (
    alone BOOLEAN NOT NULL DEFAULT TRUE PRIMARY KEY CHECK (alone = TRUE),
    store_id BINARY(16) NOT NULL
) ENGINE = InnoDB;

-- The folded state of a stream at a version. `event_id` is the event of that version: if the stream has another one
-- there, the snapshot is of a history that is no more.
CREATE TABLE IF NOT EXISTS snapshots (
    entity_type VARBINARY(1024) NOT NULL,
    entity_id VARBINARY(1024) NOT NULL,
    entity_version BIGINT NOT NULL,
    snapshot_type VARBINARY(1100) NOT NULL,
    snapshot_json LONGTEXT NOT NULL,
    event_id BINARY(16) NOT NULL,
    position BIGINT NOT NULL,
    -- Microseconds since 1970.
    taken_at BIGINT NOT NULL,
    PRIMARY KEY (entity_id, snapshot_type, entity_version)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- How far a subscriber has come: everything up to `position` is handled. `event_id` is the event there, to tell when
-- the log has been brought back and has gone another way since.
CREATE TABLE IF NOT EXISTS checkpoints (
    subscriber VARBINARY(1024) NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    event_id BINARY(16)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
