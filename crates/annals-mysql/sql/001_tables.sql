-- The tables of a log. `docs/sql-stores.md` describes them for those who read them with other tools.
-- Names are bytes, so that they are compared and ordered as such; the view `events_readable` shows them as text.

-- One row: the end of the log. An append locks it until the end of the transaction.
CREATE TABLE IF NOT EXISTS log (
    alone BOOLEAN NOT NULL DEFAULT TRUE PRIMARY KEY CHECK (alone = TRUE),
    store_id BINARY(16) NOT NULL,
    position BIGINT NOT NULL DEFAULT 0,
    recorded_at BIGINT NOT NULL,
    -- Whether it has moved to another database and takes no appends here any more.
    moved BOOLEAN NOT NULL DEFAULT FALSE,
    -- The newest move that has said so or the contrary.
    move_number BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS events (
    position BIGINT NOT NULL PRIMARY KEY,
    append_position BIGINT NOT NULL,
    entity_type VARBINARY(1024) NOT NULL,
    entity_id VARBINARY(1024) NOT NULL,
    entity_version BIGINT NOT NULL,
    event_id BINARY(16) NOT NULL,
    event_type VARBINARY(256) NOT NULL,
    schema_version INTEGER NOT NULL,
    content_type VARCHAR(256),
    event_data LONGTEXT,
    event_binary LONGBLOB,
    event_bytes INTEGER NOT NULL,
    tags MEDIUMTEXT,
    triggering_event TEXT,
    process_id VARBINARY(1024),
    initiator VARBINARY(1024),
    trace MEDIUMTEXT,
    metadata MEDIUMTEXT,
    -- Microseconds since 1970.
    occurred_at BIGINT,
    recorded_at BIGINT NOT NULL,
    idempotency_key VARBINARY(2048),
    UNIQUE KEY events_version (entity_id, entity_version),
    UNIQUE KEY events_id (event_id, entity_id),
    UNIQUE KEY events_key (idempotency_key),
    KEY events_by_type (event_type, position),
    KEY events_by_category (entity_type, position),
    KEY events_by_process (process_id, position),
    KEY events_by_initiator (initiator, position)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS event_tags (
    tag VARBINARY(256) NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (tag, position)
) ENGINE = InnoDB;

-- Each stream: its version and the position of its newest event.
CREATE TABLE IF NOT EXISTS entities (
    entity_type VARBINARY(1024) NOT NULL,
    entity_id VARBINARY(1024) NOT NULL PRIMARY KEY,
    entity_version BIGINT NOT NULL,
    position BIGINT NOT NULL,
    KEY entities_by_category (entity_type, entity_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE OR REPLACE VIEW events_readable AS
SELECT
    position, CONVERT(entity_type USING utf8mb4) AS entity_type, CONVERT(entity_id USING utf8mb4) AS entity_id,
    entity_version, LOWER(HEX(event_id)) AS event_id, CONVERT(event_type USING utf8mb4) AS event_type, schema_version,
    content_type, event_data, event_binary, tags, triggering_event, CONVERT(process_id USING utf8mb4) AS process_id,
    CONVERT(initiator USING utf8mb4) AS initiator, trace, metadata,
    TIMESTAMPADD(MICROSECOND, occurred_at, '1970-01-01') AS occurred_at,
    TIMESTAMPADD(MICROSECOND, recorded_at, '1970-01-01') AS recorded_at,
    CONVERT(idempotency_key USING utf8mb4) AS idempotency_key
FROM events;
