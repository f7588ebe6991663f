-- A page: `until` is how far the log or the stream goes; of the events, those that are named, until the page has its bytes.
-- `held` is the event that the caller has seen, if it asks for it.
SELECT whole.until, page.*, whole.store, whole.seen, whole.session, whole.follows, ({held}) AS held
FROM ({whole}) AS whole
LEFT JOIN (
    SELECT
        e.*,
        (sum(e.size) OVER (ORDER BY e.position {direction} ROWS UNBOUNDED PRECEDING))::bigint AS bytes
    FROM (
        SELECT
            position, append_position, entity_id, entity_version, event_id, event_type, schema_version, content_type,
            event_data, event_binary, tags::text, triggering_event, process_id, initiator, trace, metadata::text,
            occurred_at, recorded_at, idempotency_key,
            coalesce(octet_length(event_data), octet_length(event_binary))
                + coalesce(pg_column_size(metadata), 0) + 256 AS size
        FROM {events}
        ORDER BY {order} {direction}
        LIMIT $4
    ) AS e
) AS page ON page.bytes - page.size < $5
ORDER BY page.position {direction}
