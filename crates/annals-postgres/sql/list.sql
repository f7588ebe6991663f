SELECT entity_id, entity_version, position FROM entities WHERE entity_id > $1 ORDER BY entity_id LIMIT $2
