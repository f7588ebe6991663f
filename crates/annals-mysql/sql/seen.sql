, '$[*]' COLUMNS (
    id VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$[0]',
    version BIGINT PATH '$[1]',
    event CHAR(32) CHARACTER SET ascii PATH '$[2]'
)) AS s
STRAIGHT_JOIN events AS e ON e.entity_id = CAST(s.id AS BINARY)
    AND e.entity_version = s.version AND e.event_id = UNHEX(s.event))
