SELECT entity_id, entity_version, position FROM entities WHERE entity_id > ? ORDER BY entity_id LIMIT ?
