-- Writes a group of appends behind the end of the log, if what it assumes of the log is so; says behind what it stands.
-- If a stream is at another version, returns no row and writes nothing; fails if a key or an id is used.
--
-- Each statement of the function sees everything that was committed before it begins. So what comes after the log is
-- locked sees all that the one who held it before has written.
CREATE FUNCTION append_group(
    -- The streams that it writes or assumes something of.
    stream_ids text[],
    stream_assumed bigint[], -- the version that it must have; NULL if any will do
    -- The events, in order; NULL for a column in which there is nothing. Numbers are places among them, from 1; a version
    -- is one among the stream's.
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
    has_moved boolean;
    otherwise boolean;
    version bigint;
BEGIN
    -- Waits for its holder, and continues from the log as the holder left it.
    PERFORM pg_advisory_xact_lock('log'::regclass::oid::integer, 1);
    SELECT coalesce(e.position, 0), coalesce(e.recorded_at, '-infinity'), l.moved INTO behind, held, has_moved
    FROM log AS l
    LEFT JOIN LATERAL (SELECT n.position, n.recorded_at FROM events AS n ORDER BY n.position DESC LIMIT 1) AS e ON true;
    IF has_moved AND coalesce(current_setting('annals.moving', true), '') <> 'on' THEN
        RAISE EXCEPTION SQLSTATE 'AN001' USING MESSAGE = 'this log has moved to another database';
    END IF;

    IF cardinality(stream_ids) = 1 THEN
        SELECT e.entity_version INTO version FROM events AS e WHERE e.entity_id = stream_ids[1]
        ORDER BY e.entity_version DESC LIMIT 1;
        versions := ARRAY[coalesce(version, 0)];
        otherwise := stream_assumed[1] <> versions[1];
    ELSE
        SELECT array_agg(f.found ORDER BY f.place), bool_or(f.assumed <> f.found) INTO versions, otherwise
        FROM (
            SELECT s.place, s.assumed, coalesce((
                SELECT e.entity_version FROM events AS e WHERE e.entity_id = s.id ORDER BY e.entity_version DESC LIMIT 1
            ), 0) AS found
            FROM unnest(stream_ids, stream_assumed) WITH ORDINALITY AS s (id, assumed, place)
        ) AS f;
    END IF;
    IF otherwise THEN
        RETURN;
    END IF;

    -- To take apart arrays costs more than to write one event.
    IF cardinality(event_ids) = 1 THEN
        INSERT INTO events AS e (
            position, append_position, entity_type, entity_id, entity_version, event_id, event_type, schema_version,
            content_type, event_data, event_binary, tags, triggering_event, process_id, initiator, trace, metadata,
            occurred_at, recorded_at, idempotency_key)
        VALUES (
            behind + 1, behind + event_appends[1], event_categories[1], event_entities[1],
            versions[event_streams[1]] + event_versions[1], event_ids[1], event_types[1], event_schemas[1],
            event_contents[1], event_texts[1], event_binaries[1], event_tags_json[1]::jsonb,
            event_triggers[1], event_processes[1], event_initiators[1], event_traces[1], event_metadata[1]::jsonb,
            event_occurred[1], greatest(event_recorded[1], held), event_keys[1]);
    ELSE
        INSERT INTO events AS e (
            position, append_position, entity_type, entity_id, entity_version, event_id, event_type, schema_version,
            content_type, event_data, event_binary, tags, triggering_event, process_id, initiator, trace, metadata,
            occurred_at, recorded_at, idempotency_key)
        SELECT
            behind + n.place, behind + n.append, n.category, n.entity,
            versions[n.stream] + n.version, n.id, n.kind, n.shape,
            n.content, n.words, n.bytes, n.tags::jsonb, n.cause, n.process, n.initiator, n.trace, n.own::jsonb,
            n.occurred, greatest(n.recorded, held), n.key
        FROM unnest(
            event_streams, event_entities, event_categories, event_versions, event_appends, event_ids, event_types,
            event_schemas, event_contents, event_texts, event_binaries, event_tags_json, event_triggers,
            event_processes, event_initiators, event_traces, event_metadata, event_occurred, event_recorded, event_keys
        ) WITH ORDINALITY AS n (
            stream, entity, category, version, append, id, kind, shape, content, words, bytes, tags, cause, process,
            initiator, trace, own, occurred, recorded, key, place);
    END IF;

    IF event_tags_json IS NOT NULL THEN
        INSERT INTO event_tags AS t (tag, position)
        SELECT DISTINCT w.tag, behind + n.place
        FROM
            unnest(event_tags_json) WITH ORDINALITY AS n (tags, place),
            jsonb_array_elements_text(n.tags::jsonb) AS w (tag)
        WHERE n.tags IS NOT NULL;
    END IF;

    RETURN NEXT;
END
$$;
