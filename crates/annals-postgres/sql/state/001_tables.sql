-- The state beside a log: what is made of its events and can be made again. `docs/sql-stores.md` describes the tables.

-- One row: the log that this is the state of.
CREATE TABLE state (
    alone boolean PRIMARY KEY DEFAULT true CHECK (alone),
    store_id uuid NOT NULL
);

-- The folded state of a stream at a version. `event_id` is the event of that version: if the stream has another one
-- there, the snapshot is of a history that is no more.
CREATE TABLE snapshots (
    entity_type text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    entity_version bigint NOT NULL,
    snapshot_type text COLLATE "C" NOT NULL,
    snapshot_json text NOT NULL,
    event_id uuid NOT NULL,
    position bigint NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (entity_id, snapshot_type, entity_version)
);

-- How far a subscriber has come: everything up to `position` is handled. `event_id` is the event there, to tell when
-- the log has been brought back and has gone another way since.
CREATE TABLE checkpoints (
    subscriber text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    event_id uuid
);
