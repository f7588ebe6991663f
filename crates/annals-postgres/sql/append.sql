SELECT behind, held, versions
FROM
    assert_log($24, $25, $26, $27),
    append_group(
        $1, CASE WHEN $23::uuid[] IS NULL THEN $2 ELSE assumed_after($1, $2, $23) END,
        $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
