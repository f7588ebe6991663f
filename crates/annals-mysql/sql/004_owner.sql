-- Whose place this is: at most one row, the tenant of a directory that has its log here, or no tenant if the directory is
-- here. Written under the lock of the log.
CREATE TABLE IF NOT EXISTS owner (
    alone BOOLEAN NOT NULL DEFAULT TRUE PRIMARY KEY CHECK (alone = TRUE),
    directory BINARY(16) NOT NULL,
    tenant VARBINARY(1024) NOT NULL
) ENGINE = InnoDB
