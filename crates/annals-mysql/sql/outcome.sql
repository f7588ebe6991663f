-- The events of the append that had this key: they stand next to each other, the first one has the key.
SELECT e.entity_id, e.entity_version, e.position, e.recorded_at
FROM (
    SELECT f.position, COALESCE((
        SELECT o.position FROM events AS o
        WHERE o.position > f.position AND o.append_position <> f.position
        ORDER BY o.position LIMIT 1
    ), 9223372036854775807) AS next
    FROM events AS f WHERE f.idempotency_key = ?
) AS first
JOIN events AS e ON e.position >= first.position AND e.position < first.next
ORDER BY e.position
