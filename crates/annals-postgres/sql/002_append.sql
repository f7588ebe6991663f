-- Writes a group of appends behind the end of the log, if what it assumes of the log is so; says behind what it stands.
-- Returns no row, and has written nothing, if it is not so: a stream is at another version, or a key or an id is used.
--
-- Each statement of the function sees everything that was committed before it begins. So what comes after the row of
-- `log` is locked sees all that the one who held it before has written.
CREATE FUNCTION append_group(
    -- The streams that it writes or assumes something of.
    stream_ids text[],
    stream_types text[],
    stream_assumed bigint[], -- the version that it must have; NULL if any will do
    stream_counts bigint[],  -- how many events it gets
    stream_lasts bigint[],   -- the place of the last of them among the events, from 1
    -- The events, in order; NULL for a column in which there is nothing. Numbers are places among them, from 1; a version is one among the stream's.
    event_streams bigint[],
    event_entities text[],
    event_categories text[],
    event_versions bigint[],
    event_appends bigint[],
    event_ids uuid[],
    event_types text[],
    event_schemas integer[],
    event_contents text[],
    event_texts text[],
    event_binaries bytea[],
    event_tags_json text[],
    event_triggers text[],
    event_processes text[],
    event_initiators text[],
    event_traces text[],
    event_metadata text[],
    event_occurred timestamptz[],
    event_recorded timestamptz[],
    event_keys text[]
) RETURNS TABLE (behind bigint, held timestamptz, versions bigint[])
LANGUAGE plpgsql
-- Its statements are the same whatever the values: they are planned once.
SET plan_cache_mode TO force_generic_plan
AS $$
#variable_conflict use_variable
DECLARE
    otherwise boolean;
BEGIN
    -- Waits for whoever holds the row, and goes on from what they have left.
    UPDATE log AS l SET
        position = l.position + cardinality(event_ids),
        held_at = l.recorded_at,
        recorded_at = greatest(l.recorded_at, event_recorded[cardinality(event_recorded)])
    RETURNING l.position - cardinality(event_ids), l.held_at INTO STRICT behind, held;

    SELECT array_agg(f.version ORDER BY f.place), bool_or(f.assumed <> f.version) INTO versions, otherwise
    FROM (
        SELECT s.place, s.assumed, coalesce((
            SELECT e.entity_version FROM entities AS e WHERE e.entity_type = s.kind AND e.entity_id = s.id
        ), 0) AS version
        FROM unnest(stream_types, stream_ids, stream_assumed) WITH ORDINALITY AS s (kind, id, assumed, place)
    ) AS f;
    IF otherwise THEN
        RAISE integrity_constraint_violation;
    END IF;

    INSERT INTO events AS e (
        position, append_position, entity_type, entity_id, entity_version, event_id, event_type, schema_version,
        content_type, event_data, event_binary, tags, triggering_event, process_id, initiator, trace, metadata,
        occurred_at, recorded_at, idempotency_key)
    SELECT
        behind + n.place, behind + n.append, n.category, n.entity,
        versions[n.stream] + n.version, n.id, n.kind, n.shape, n.content, n.words, n.bytes, n.tags::jsonb,
        n.cause, n.process, n.initiator, n.trace, n.own::jsonb, n.occurred, greatest(n.recorded, held), n.key
    FROM unnest(
        event_streams, event_entities, event_categories, event_versions, event_appends, event_ids, event_types,
        event_schemas, event_contents, event_texts, event_binaries, event_tags_json, event_triggers, event_processes, event_initiators,
        event_traces, event_metadata, event_occurred, event_recorded, event_keys
    ) WITH ORDINALITY AS n (
        stream, entity, category, version, append, id, kind, shape, content, words, bytes, tags, cause, process, initiator,
        trace, own, occurred, recorded, key, place);

    IF event_tags_json IS NOT NULL THEN
        INSERT INTO event_tags AS t (tag, position)
        SELECT DISTINCT w.tag, behind + n.place
        FROM
            unnest(event_tags_json) WITH ORDINALITY AS n (tags, place),
            jsonb_array_elements_text(n.tags::jsonb) AS w (tag)
        WHERE n.tags IS NOT NULL;
    END IF;

    INSERT INTO entities AS e (entity_type, entity_id, entity_version, position)
    SELECT s.kind, s.id, s.found + s.count, behind + s.last
    FROM unnest(stream_types, stream_ids, versions, stream_counts, stream_lasts) AS s (kind, id, found, count, last)
    WHERE s.count > 0
    ON CONFLICT (entity_id)
    DO UPDATE SET entity_version = excluded.entity_version, position = excluded.position;

    RETURN NEXT;
-- All that was done above is undone.
EXCEPTION WHEN unique_violation OR integrity_constraint_violation THEN
    RETURN;
END
$$;
