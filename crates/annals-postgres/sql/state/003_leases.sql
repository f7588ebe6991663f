-- Who may do what, of several processes: the lease of a name. `token` grows with each acquisition and never goes back: a write
-- under a lease compares it in its transaction. Without a holder the lease is free. Without an end it lasts as long as the session
-- of its holder, who has the lock of its name; times are microseconds since 1970, by the clock of this server.
CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    token bigint NOT NULL,
    holder text COLLATE "C",
    lease_until bigint,
    lease_length bigint NOT NULL DEFAULT 0
);
