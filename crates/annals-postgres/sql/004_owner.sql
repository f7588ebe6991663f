-- Whose place this is: at most one row, the tenant of a directory that has its log here, or no tenant if the directory is
-- here. Written under the lock of the log.
CREATE TABLE owner (
    alone boolean PRIMARY KEY DEFAULT true CHECK (alone),
    directory uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL
);
