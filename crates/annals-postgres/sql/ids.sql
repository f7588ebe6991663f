SELECT e.entity_id, e.event_id, e.position
FROM unnest($1::text[], $2::uuid[]) AS asked (stream, id)
JOIN events AS e ON e.event_id = asked.id AND e.entity_id = asked.stream
