-- The events of the append that had this key: they stand next to each other, the first one has the key.
SELECT e.entity_id, e.entity_version, e.position, e.recorded_at
FROM events AS first
CROSS JOIN LATERAL (
    SELECT coalesce(min(other.position), 9223372036854775807) AS position
    FROM (
        SELECT position FROM events
        WHERE position > first.position AND append_position <> first.position
        ORDER BY position LIMIT 1
    ) AS other
) AS next
JOIN events AS e ON e.position >= first.position AND e.position < next.position
WHERE first.idempotency_key = $1
ORDER BY e.position
