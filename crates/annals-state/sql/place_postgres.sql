-- What every schema of a read model has beside the tables of its projection.

-- One row: what the rows are made of, and up to where. It is written last, so without it nothing here counts.
CREATE TABLE annals_checkpoint (
    projection text NOT NULL PRIMARY KEY,
    store_id uuid NOT NULL,
    definition text NOT NULL,
    position bigint NOT NULL,
    event_id uuid
);

-- The processes that use the rows, and when each has said so last.
CREATE TABLE annals_holders (
    instance text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);
