SELECT e.idempotency_key, e.position
FROM JSON_TABLE($1, '$[*]' COLUMNS (name VARCHAR(2048) CHARACTER SET utf8mb4 PATH '$')) AS asked
JOIN events AS e ON e.idempotency_key = CAST(asked.name AS BINARY)
