INSERT INTO events (
    position, append_position, entity_type, entity_id, entity_version, event_id, event_type, schema_version,
    content_type, event_data, event_binary, event_bytes, tags, triggering_event, process_id, initiator, trace,
    metadata, occurred_at, recorded_at, idempotency_key) VALUES
