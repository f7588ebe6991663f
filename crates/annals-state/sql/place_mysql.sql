-- What every database of a read model has beside the tables of its projection. The first table of all: by it an unfinished
-- one is known.

-- One row: what the rows are made of, and up to where. It is written last, so without it nothing here counts.
CREATE TABLE annals_checkpoint (
    projection VARCHAR(100) NOT NULL PRIMARY KEY,
    store_id BINARY(16) NOT NULL,
    definition LONGTEXT NOT NULL,
    position BIGINT NOT NULL,
    event_id BINARY(16)
) ENGINE = InnoDB;

-- The processes that use the rows, and when each has said so last.
CREATE TABLE annals_holders (
    instance VARCHAR(36) PRIMARY KEY,
    seen_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB;
