WITH member AS (
    SELECT c.oid, coalesce(o.refobjid, c.oid) AS owner, c.relkind = 'S' AS is_sequence
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        AND d.classid = 'pg_class'::regclass
    JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'S')
    LEFT JOIN pg_depend o ON c.relkind = 'S' AND o.classid = d.classid AND o.objid = c.oid AND o.refclassid = d.classid
        AND o.deptype IN ('a', 'i')
    WHERE e.extname = 'skill_system')
SELECT 'what pg_dump saves', format('UPDATE pg_catalog.pg_extension SET extconfig = %L, extcondition = %L WHERE extname = %L',
    (SELECT array_agg(oid ORDER BY owner, is_sequence) FROM member), (SELECT array_agg(''::text) FROM member), 'skill_system')
FROM pg_extension e WHERE e.extname = 'skill_system'
    AND EXISTS (SELECT FROM member WHERE member.oid <> ALL (coalesce(e.extconfig, '{}')))
