SELECT e.position, e.entity_id, e.entity_version, e.event_id
FROM JSON_TABLE($1, '$[*]' COLUMNS (first BIGINT PATH '$[0]', last BIGINT PATH '$[1]')) AS asked
JOIN events AS e ON e.position BETWEEN asked.first AND asked.last
