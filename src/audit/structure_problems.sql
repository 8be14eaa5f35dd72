SELECT CASE
    WHEN kind = 'member' THEN what || CASE WHEN wanted IS NULL THEN ' belongs to the extension, which does not ship it'
        ELSE ' does not belong to the extension any more' END
    WHEN kind = 'not null' THEN format('column %s of %s %s', name, relation,
        CASE WHEN wanted IS NULL THEN 'is NOT NULL' ELSE 'may be NULL' END)
    WHEN kind IN ('child', 'parent') THEN format('%s %s of %s', CASE kind WHEN 'child' THEN name ELSE relation END,
        CASE WHEN wanted IS NULL THEN 'is a child' ELSE 'is no longer a part' END, CASE kind WHEN 'child' THEN relation ELSE name END)
    WHEN actual IS NULL THEN what || ' is missing'
    WHEN wanted IS NULL THEN what || ' was not created by the extension'
    WHEN kind = 'column' THEN format('%s has type %s, not %s', what, actual, wanted)
    WHEN kind IN ('default', 'type') THEN format('%s is %s, not %s', what, actual, wanted)
    ELSE what || ' is not as the extension created it' END
FROM relevant ORDER BY 1
