-- The state beside the log. Everything here can be made again from the log.

-- The log that all of this was derived from: one row.
CREATE TABLE IF NOT EXISTS log (store BLOB NOT NULL);

-- Folded state of an aggregate at a version. `event_id` is the event of that version: if the stream has
-- another one there, the snapshot is of a history that is no more.
CREATE TABLE IF NOT EXISTS snapshots (
    stream   TEXT    NOT NULL,
    schema   TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    event_id BLOB    NOT NULL,
    position INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    state    BLOB    NOT NULL,
    PRIMARY KEY (stream, schema, version)
) WITHOUT ROWID;

-- How far a subscriber has come: everything up to `position` is handled. `witness` is the event
-- there, to tell when the log has been brought back and has gone another way since; `ladder` are older ones, each the
-- position (8 bytes, big endian) and the id of an event. `state.rs` adds it to tables that were made without it.
CREATE TABLE IF NOT EXISTS checkpoints (
    subscriber       TEXT PRIMARY KEY NOT NULL,
    position         INTEGER NOT NULL,
    witness_position INTEGER,
    witness_id       BLOB,
    ladder           BLOB
) WITHOUT ROWID;

-- Who may do what, of several processes: the lease of a name. `token` grows with each acquisition and never goes back: a write
-- under a lease compares it. Times are microseconds since 1970.
CREATE TABLE IF NOT EXISTS leases (
    name         TEXT PRIMARY KEY NOT NULL,
    token        INTEGER NOT NULL,
    holder       TEXT,
    lease_until  INTEGER,
    lease_length INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
