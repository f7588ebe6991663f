SELECT whole.*, listed.*
FROM ({whole}) AS whole
LEFT JOIN (
    SELECT entity_id, entity_version, position FROM entities WHERE entity_id > $2 ORDER BY entity_id LIMIT $3
) AS listed ON true
ORDER BY listed.entity_id
