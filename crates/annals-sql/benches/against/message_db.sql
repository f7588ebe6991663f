-- The table, the indexes and `write_message` of Message DB 1.3, shortened to what an append does.
CREATE SCHEMA message_store;

CREATE TABLE message_store.messages (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    stream_name text NOT NULL,
    type text NOT NULL,
    position bigint NOT NULL,
    global_position bigserial NOT NULL PRIMARY KEY,
    data jsonb,
    metadata jsonb,
    time timestamp without time zone DEFAULT (now() AT TIME ZONE 'utc') NOT NULL
);

CREATE FUNCTION message_store.category(stream_name varchar) RETURNS varchar AS $$
BEGIN
    RETURN SPLIT_PART(category.stream_name, '-', 1);
END
$$ LANGUAGE plpgsql IMMUTABLE;

CREATE FUNCTION message_store.hash_64(value varchar) RETURNS bigint AS $$
DECLARE
    _hash bigint;
BEGIN
    SELECT left('x' || md5(hash_64.value), 17)::bit(64)::bigint INTO _hash;
    RETURN _hash;
END
$$ LANGUAGE plpgsql IMMUTABLE;

CREATE UNIQUE INDEX messages_id ON message_store.messages (id);
CREATE UNIQUE INDEX messages_stream ON message_store.messages (stream_name, position);
CREATE INDEX messages_category ON message_store.messages (
    message_store.category(stream_name), global_position, message_store.category(metadata->>'correlationStreamName'));

CREATE FUNCTION message_store.write_message(
    id varchar, stream_name varchar, "type" varchar, data jsonb, metadata jsonb DEFAULT NULL,
    expected_version bigint DEFAULT NULL
) RETURNS bigint AS $$
DECLARE
    _stream_version bigint;
    _next_position bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(message_store.hash_64(message_store.category(write_message.stream_name)));
    SELECT max(m.position) INTO _stream_version FROM message_store.messages AS m
    WHERE m.stream_name = write_message.stream_name;
    _stream_version := coalesce(_stream_version, -1);
    IF write_message.expected_version IS NOT NULL AND write_message.expected_version <> _stream_version THEN
        RAISE EXCEPTION 'Wrong expected version: % (Stream: %, Stream Version: %)',
            write_message.expected_version, write_message.stream_name, _stream_version;
    END IF;
    _next_position := _stream_version + 1;
    INSERT INTO message_store.messages (id, stream_name, position, type, data, metadata)
    VALUES (
        write_message.id::uuid, write_message.stream_name, _next_position, write_message.type, write_message.data,
        write_message.metadata);
    RETURN _next_position;
END
$$ LANGUAGE plpgsql VOLATILE;
