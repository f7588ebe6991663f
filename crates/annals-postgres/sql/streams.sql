SELECT e.entity_id, e.entity_version
FROM unnest($1::text[], $2::text[]) AS asked (kind, id)
JOIN entities AS e ON e.entity_type = asked.kind AND e.entity_id = asked.id
