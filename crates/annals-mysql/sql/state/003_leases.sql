-- Who may do what, of several processes: the lease of a name. `token` grows with each acquisition and never goes back: a write
-- under a lease compares it in its transaction. Without a holder the lease is free. Without an end it lasts as long as the session
-- of its holder, who has the lock of its name; times are microseconds since 1970, by the clock of this server.
CREATE TABLE IF NOT EXISTS leases (
    name VARBINARY(1024) NOT NULL PRIMARY KEY,
    token BIGINT NOT NULL,
    holder VARBINARY(1024),
    lease_until BIGINT,
    lease_length BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
