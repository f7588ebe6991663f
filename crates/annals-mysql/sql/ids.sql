SELECT e.entity_id, e.event_id, e.position
FROM JSON_TABLE($1, '$[*]' COLUMNS (
    stream VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$[0]',
    id CHAR(32) PATH '$[1]'
)) AS asked
JOIN events AS e ON e.event_id = UNHEX(asked.id) AND e.entity_id = CAST(asked.stream AS BINARY)
