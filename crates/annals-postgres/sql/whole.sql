-- What every read says beside what it was asked for: which log this is, whether it still has the event at $1, whether the
-- session is the caller's, and whether the server only follows another.
SELECT
    l.store_id AS store,
    (SELECT s.event_id FROM events AS s WHERE s.position = $1) AS seen,
    current_setting('annals.session', true) AS session,
    pg_is_in_recovery() AS follows,
    ({end}) AS until
FROM log AS l
