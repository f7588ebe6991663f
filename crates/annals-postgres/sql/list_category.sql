SELECT entity_id, entity_version, position FROM entities
WHERE entity_type = $3 AND entity_id > $1
ORDER BY entity_type, entity_id
LIMIT $2
