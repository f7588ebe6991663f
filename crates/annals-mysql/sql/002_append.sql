-- Writes a group of appends behind the end of the log, if what it assumes of the log is so; says behind what it stands.
-- Returns no row, and has written nothing, if it is not so: a stream is at another version, or a key or an id is used.
--
-- `whole` says that the group is a transaction of its own; otherwise it is part of the caller's, who holds the lock.
-- Each statement sees everything that was committed before it begins (READ COMMITTED). So what comes after the lock
-- sees all that the one who held it before has written.
--
-- in_streams  [{"id", "kind", "assumed", "count", "last"}]: the streams that it writes or assumes something of. `assumed`
--             is the version that it must have, null if any will do; `last` the place of its last event, from 1.
-- in_events   [{...}]: the events in order. Numbers are places among them, from 1; a version is one among the stream's.
-- in_data     what may be long, of all of them, one after the other: the data of an event, then its tags, the writer's own
--             keys and the trace, if it has them. `at` says where it begins, and each has its number of bytes.
CREATE PROCEDURE append_group(
    IN in_streams LONGTEXT CHARACTER SET utf8mb4,
    IN in_events LONGTEXT CHARACTER SET utf8mb4,
    IN in_data LONGBLOB,
    IN in_count BIGINT,       -- how many events
    IN in_recorded BIGINT,    -- when the last of them is recorded
    IN in_tagged BOOLEAN,     -- whether any of them has a tag
    IN whole BOOLEAN
)
append_group: BEGIN
    DECLARE behind, held BIGINT;
    DECLARE versions LONGTEXT;
    DECLARE otherwise INTEGER;
    -- A key, an id or a version that is there already.
    DECLARE EXIT HANDLER FOR 1062 BEGIN ROLLBACK; END;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;

    IF whole THEN START TRANSACTION; END IF;
    SELECT l.position, l.recorded_at INTO behind, held FROM log AS l FOR UPDATE;

    SELECT
        GROUP_CONCAT(COALESCE(e.entity_version, 0) ORDER BY s.place SEPARATOR ' '),
        SUM(COALESCE(s.assumed <> COALESCE(e.entity_version, 0), FALSE))
    INTO versions, otherwise
    FROM JSON_TABLE(in_streams, '$[*]' COLUMNS (
        place FOR ORDINALITY,
        id VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.id',
        assumed BIGINT PATH '$.assumed'
    )) AS s
    LEFT JOIN entities AS e ON e.entity_id = CAST(s.id AS BINARY);
    IF otherwise > 0 THEN
        ROLLBACK;
        LEAVE append_group;
    END IF;

    INSERT INTO events (
        position, append_position, entity_type, entity_id, entity_version, event_id, event_type, schema_version,
        content_type, event_data, event_binary, event_bytes, tags, triggering_event, process_id, initiator, trace,
        metadata, occurred_at, recorded_at, idempotency_key)
    SELECT
        behind + n.place, behind + n.append, CAST(n.kind AS BINARY), CAST(n.stream AS BINARY),
        COALESCE(e.entity_version, 0) + n.version, UNHEX(n.id), CAST(n.type AS BINARY), n.shape, n.content,
        IF(n.text, CONVERT(SUBSTRING(in_data, n.at + 1, n.bytes) USING utf8mb4), NULL),
        IF(n.text, NULL, SUBSTRING(in_data, n.at + 1, n.bytes)),
        n.bytes,
        IF(n.tags > 0, CONVERT(SUBSTRING(in_data, n.at + 1 + n.bytes, n.tags) USING utf8mb4), NULL),
        n.cause, CAST(n.process AS BINARY), CAST(n.initiator AS BINARY),
        IF(n.trace >= 0, CONVERT(SUBSTRING(in_data, n.at + 1 + n.bytes + n.tags + n.own, n.trace) USING utf8mb4), NULL),
        IF(n.own > 0, CONVERT(SUBSTRING(in_data, n.at + 1 + n.bytes + n.tags, n.own) USING utf8mb4), NULL),
        n.occurred, GREATEST(n.recorded, held), CAST(n.name AS BINARY)
    FROM JSON_TABLE(in_events, '$[*]' COLUMNS (
        place FOR ORDINALITY,
        append BIGINT PATH '$.append',
        kind VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.kind',
        stream VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.stream',
        version BIGINT PATH '$.version',
        id CHAR(32) PATH '$.id',
        type VARCHAR(256) CHARACTER SET utf8mb4 PATH '$.type',
        shape INTEGER PATH '$.shape',
        content VARCHAR(256) CHARACTER SET utf8mb4 PATH '$.content',
        text BOOLEAN PATH '$.text',
        at BIGINT PATH '$.at',
        bytes BIGINT PATH '$.bytes',
        tags BIGINT PATH '$.tags',
        own BIGINT PATH '$.own',
        trace BIGINT PATH '$.trace',
        cause VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.cause',
        process VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.process',
        initiator VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.initiator',
        occurred BIGINT PATH '$.occurred',
        recorded BIGINT PATH '$.recorded',
        name VARCHAR(2048) CHARACTER SET utf8mb4 PATH '$.key'
    )) AS n
    LEFT JOIN entities AS e ON e.entity_id = CAST(n.stream AS BINARY);

    IF in_tagged THEN
        INSERT INTO event_tags (tag, position)
        SELECT DISTINCT CAST(n.tag AS BINARY), behind + n.place
        FROM JSON_TABLE(in_events, '$[*]' COLUMNS (
            place FOR ORDINALITY,
            NESTED PATH '$.words[*]' COLUMNS (tag VARCHAR(256) CHARACTER SET utf8mb4 PATH '$')
        )) AS n
        WHERE n.tag IS NOT NULL;
    END IF;

    INSERT INTO entities (entity_type, entity_id, entity_version, position)
    SELECT CAST(s.kind AS BINARY), CAST(s.id AS BINARY), s.count, behind + s.last
    FROM JSON_TABLE(in_streams, '$[*]' COLUMNS (
        id VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.id',
        kind VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$.kind',
        count BIGINT PATH '$.count',
        last BIGINT PATH '$.last'
    )) AS s
    WHERE s.count > 0
    ON DUPLICATE KEY UPDATE entity_version = entity_version + VALUES(entity_version), position = VALUES(position);

    UPDATE log SET position = behind + in_count, recorded_at = GREATEST(held, in_recorded);
    IF whole THEN COMMIT; END IF;
    SELECT behind, held, versions;
END
