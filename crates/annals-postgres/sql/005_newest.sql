-- The versions that a group assumes of its streams, with one that no stream has where the newest event that is assumed is not
-- there. An event that is there stays there, so this needs no lock; it must be asked of the server that writes the group.
--
-- A loop of lookups that are the same for all values: they are planned once.
CREATE FUNCTION assumed_after(
    stream_ids text[],
    stream_assumed bigint[],
    stream_newest uuid[] -- NULL if the version is enough
) RETURNS bigint[]
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    FOR place IN 1 .. cardinality(stream_ids) LOOP
        IF stream_newest[place] IS NOT NULL AND NOT EXISTS (
            SELECT FROM events AS e
            WHERE e.entity_id = stream_ids[place] AND e.entity_version = stream_assumed[place]
                AND e.event_id = stream_newest[place]
        ) THEN
            stream_assumed[place] := -1;
        END IF;
    END LOOP;
    RETURN stream_assumed;
END
$$;
