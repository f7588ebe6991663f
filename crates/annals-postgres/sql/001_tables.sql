-- The tables of a log. `docs/sql-stores.md` describes them for those who read them with other tools.

-- One row: the identity of the log, and whether it has moved to another database and takes no appends here any more.
CREATE TABLE log (
    alone boolean PRIMARY KEY DEFAULT true CHECK (alone),
    store_id uuid NOT NULL,
    moved boolean NOT NULL DEFAULT false
);

-- Only ever inserted into: nothing is updated with an append, so a transaction that stays open for long, as that of a dump
-- does, slows no append down.
CREATE TABLE events (
    position bigint PRIMARY KEY,
    append_position bigint NOT NULL,
    entity_type text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    entity_version bigint NOT NULL,
    event_id uuid NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    schema_version integer NOT NULL,
    content_type text,
    event_data text,
    event_binary bytea,
    tags jsonb,
    triggering_event text,
    process_id text COLLATE "C",
    initiator text COLLATE "C",
    trace text,
    metadata jsonb,
    occurred_at timestamptz,
    recorded_at timestamptz NOT NULL,
    idempotency_key text COLLATE "C",
    CONSTRAINT events_version UNIQUE (entity_id, entity_version),
    CONSTRAINT events_id UNIQUE (event_id, entity_id),
    CONSTRAINT events_data CHECK (num_nonnulls(event_data, event_binary) = 1)
);

CREATE UNIQUE INDEX events_key ON events (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX events_by_type ON events (event_type, position);
CREATE INDEX events_by_category ON events (entity_type, position);
-- The streams: the first event of each.
CREATE INDEX events_first ON events (entity_id) WHERE entity_version = 1;
CREATE INDEX events_first_by_category ON events (entity_type, entity_id) WHERE entity_version = 1;
CREATE INDEX events_by_process ON events (process_id, position) WHERE process_id IS NOT NULL;
CREATE INDEX events_by_initiator ON events (initiator, position) WHERE initiator IS NOT NULL;

CREATE TABLE event_tags (
    tag text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tag, position)
);

-- Each stream: its version and the position of its newest event.
CREATE VIEW entities AS
SELECT first.entity_type, first.entity_id, newest.entity_version, newest.position
FROM events AS first
CROSS JOIN LATERAL (
    SELECT e.entity_version, e.position FROM events AS e
    WHERE e.entity_id = first.entity_id ORDER BY e.entity_version DESC LIMIT 1
) AS newest
WHERE first.entity_version = 1;
