-- Begins to write a group of appends: locks the end of the log, and says behind what the group stands, if what it assumes of
-- its streams is so. If a stream is at another version it raises an error, so that nothing behind it in the same text is done.
--
-- Each statement sees everything that was committed before it begins (READ COMMITTED). So what comes after the lock
-- sees all that the one who held it before has written.
--
-- The end of the log stays in @annals_position and @annals_recorded, for the statements that write the rows.
CREATE PROCEDURE append_begin(
    IN in_stream VARBINARY(1024), -- the stream, if there is one only ...
    IN in_assumed BIGINT,         -- ... and the version that it must have; NULL if any will do
    IN in_streams LONGTEXT CHARACTER SET utf8mb4 -- otherwise [[stream, version], ...]
)
BEGIN
    DECLARE versions LONGTEXT;
    DECLARE otherwise INTEGER;
    DECLARE has_moved BOOLEAN;

    SELECT l.position, l.recorded_at, l.moved INTO @annals_position, @annals_recorded, has_moved FROM log AS l FOR UPDATE;
    IF has_moved AND @annals_moving IS NULL THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 9001, MESSAGE_TEXT = 'this log has moved to another database';
    END IF;

    IF in_streams IS NULL THEN
        SELECT COALESCE((SELECT e.entity_version FROM entities AS e WHERE e.entity_id = in_stream), 0) INTO versions;
        SET otherwise = COALESCE(in_assumed <> CAST(versions AS SIGNED), FALSE);
    ELSE
        SELECT
            GROUP_CONCAT(COALESCE(e.entity_version, 0) ORDER BY s.place SEPARATOR ' '),
            SUM(COALESCE(s.assumed <> COALESCE(e.entity_version, 0), FALSE))
        INTO versions, otherwise
        FROM JSON_TABLE(in_streams, '$[*]' COLUMNS (
            place FOR ORDINALITY,
            id VARCHAR(1024) CHARACTER SET utf8mb4 PATH '$[0]',
            assumed BIGINT PATH '$[1]'
        )) AS s
        LEFT JOIN entities AS e ON e.entity_id = CAST(s.id AS BINARY);
    END IF;
    IF otherwise > 0 THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a stream is at another version';
    END IF;
    SELECT @annals_position, @annals_recorded, versions;
END
