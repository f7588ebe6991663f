SELECT asked.id, newest.entity_version
FROM unnest($1::text[]) AS asked (id)
CROSS JOIN LATERAL (
    SELECT e.entity_version FROM events AS e WHERE e.entity_id = asked.id ORDER BY e.entity_version DESC LIMIT 1
) AS newest
