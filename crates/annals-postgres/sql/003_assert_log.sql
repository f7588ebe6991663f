-- Checks under the lock of the log that it is the log that the caller means, that it still has an event that the caller
-- knows, and that the session is the one that the caller has set. The caller gets what it needs to say what is wrong.
CREATE FUNCTION assert_log(
    expected uuid,      -- the identity of the log
    seen_position bigint,
    seen_id uuid,       -- the event at that position; any if the position is 0
    session_name text   -- what `annals.session` was set to
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    found uuid;
    event uuid;
BEGIN
    PERFORM pg_advisory_xact_lock('log'::regclass::oid::integer, 1);
    SELECT l.store_id, (SELECT e.event_id FROM events AS e WHERE e.position = seen_position) INTO found, event FROM log AS l;
    IF current_setting('annals.session', true) IS DISTINCT FROM session_name THEN
        RAISE EXCEPTION SQLSTATE 'AN004' USING MESSAGE = 'the settings of the session are gone';
    END IF;
    IF found IS DISTINCT FROM expected THEN
        RAISE EXCEPTION SQLSTATE 'AN002' USING MESSAGE = coalesce(found::text, 'none'), DETAIL = expected::text;
    END IF;
    IF seen_position > 0 AND event IS DISTINCT FROM seen_id THEN
        RAISE EXCEPTION SQLSTATE 'AN003' USING
            MESSAGE = 'the log no longer has this event', DETAIL = seen_position || '@' || seen_id;
    END IF;
END
$$;
