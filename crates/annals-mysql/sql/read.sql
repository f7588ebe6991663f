-- A page: `until` is how far the log or the stream goes; of the events, those that are named, until the page has its bytes.
-- `meant` is how many there would be without that. The caller sorts: the database would copy the data to do so. `held` is
-- the event that the caller has seen, if it asks for it.
SELECT
    whole.until, e.position, e.append_position, e.entity_id, e.entity_version, e.event_id, e.event_type,
    e.schema_version, e.content_type, e.event_data, e.event_binary, e.tags, e.triggering_event, e.process_id,
    e.initiator, e.trace, e.metadata, e.occurred_at, e.recorded_at, e.idempotency_key, page.bytes, page.meant,
    whole.store, whole.seen, whole.session, whole.follows, ({held}) AS held
FROM ({whole}) AS whole
LEFT JOIN (
    SELECT
        f.position, f.size, COUNT(*) OVER () AS meant,
        CAST(SUM(f.size) OVER (ORDER BY f.position {direction} ROWS UNBOUNDED PRECEDING) AS SIGNED) AS bytes
    FROM ({events}) AS f
) AS page ON page.bytes - page.size < $5
LEFT JOIN events AS e ON e.position = page.position
