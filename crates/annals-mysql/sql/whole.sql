-- What every read says beside what it was asked for: which log this is, whether it still has the event at $1, whether the
-- session is the caller's, and whether the server only reads, as one that follows another does.
SELECT
    l.store_id AS store,
    (SELECT s.event_id FROM events AS s WHERE s.position = $1) AS seen,
    @annals_session AS session,
    CAST(@@read_only AS CHAR) NOT IN ('0', 'OFF') AS follows,
    ({end}) AS until
FROM log AS l
