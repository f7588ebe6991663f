-- Checks under the lock of the log that it is the log that the caller means, that it still has an event that the caller
-- knows, and that the session is the one that the caller has set. The messages have what the caller needs to say what is
-- wrong.
CREATE PROCEDURE assert_log(
    IN in_store BINARY(16),         -- the identity of the log
    IN in_position BIGINT,
    IN in_event BINARY(16),         -- the event at that position; any if the position is 0
    IN in_session VARCHAR(64) CHARACTER SET utf8mb4 -- what @annals_session was set to
)
SQL SECURITY INVOKER
BEGIN
    DECLARE found_store BINARY(16);
    DECLARE found_event BINARY(16);
    DECLARE problem VARCHAR(128) CHARACTER SET utf8mb4;

    SELECT l.store_id INTO found_store FROM log AS l FOR UPDATE;
    IF NOT (CAST(@annals_session AS BINARY) <=> CAST(in_session AS BINARY)) THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 9004, MESSAGE_TEXT = 'the settings of the session are gone';
    END IF;
    IF NOT (found_store <=> in_store) THEN
        SET problem = CONCAT(HEX(in_store), ' ', COALESCE(HEX(found_store), 'none'));
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 9002, MESSAGE_TEXT = problem;
    END IF;
    IF in_position > 0 THEN
        SET found_event = (SELECT e.event_id FROM events AS e WHERE e.position = in_position);
        IF NOT (found_event <=> in_event) THEN
            SET problem = CONCAT(in_position, ' ', HEX(in_event));
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 9003, MESSAGE_TEXT = problem;
        END IF;
    END IF;
END
