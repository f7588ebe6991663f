SELECT position, entity_id, entity_version, event_id FROM events WHERE position BETWEEN ? AND ?
