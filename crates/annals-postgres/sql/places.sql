SELECT position, entity_id, entity_version, event_id FROM events WHERE position BETWEEN $1 AND $2
