SELECT entity_id, entity_version, position FROM entities
WHERE entity_id > ? AND entity_type = ?
ORDER BY entity_id
LIMIT ?
