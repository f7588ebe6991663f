-- A stream whose newest event is assumed gets a version that none has if that event is not there: its group is not written.
SELECT behind, held, versions
FROM append_group(
    $1,
    CASE WHEN $23::uuid[] IS NULL THEN $2 ELSE (
        SELECT array_agg(CASE WHEN s.newest IS NULL OR EXISTS (
            SELECT FROM events AS e
            WHERE e.entity_id = s.id AND e.entity_version = s.assumed AND e.event_id = s.newest
        ) THEN s.assumed ELSE -1 END ORDER BY s.place)
        FROM unnest($1, $2, $23::uuid[]) WITH ORDINALITY AS s (id, assumed, newest, place)
    ) END,
    $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
