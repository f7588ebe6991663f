SELECT e.entity_id, e.entity_version
FROM JSON_TABLE($1, '$[*]' COLUMNS (id VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$')) AS asked
JOIN entities AS e ON e.entity_id = CAST(asked.id AS BINARY)
