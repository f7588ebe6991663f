SELECT e.position, e.entity_id, e.entity_version, e.event_id
FROM unnest($1::bigint[], $2::bigint[]) AS asked (first, last)
JOIN events AS e ON e.position BETWEEN asked.first AND asked.last
