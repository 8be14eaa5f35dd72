-- Appended to: WITH wanted AS (the lines of structure.tsv, $1), actual AS (structure.sql).
-- What differs between the two. Parts of an object that is missing, or that does not belong here, are not listed.
, difference AS (
    SELECT kind, relation, name, w.state AS wanted, a.state AS actual FROM wanted w FULL JOIN actual a USING (kind, relation, name)
    WHERE w.state IS DISTINCT FROM a.state
), lost AS (
    SELECT name FROM difference WHERE relation = '' AND (wanted IS NULL OR actual IS NULL)
), lost_column AS (
    SELECT relation, name FROM difference WHERE kind = 'column' AND (wanted IS NULL OR actual IS NULL)
), relevant AS (
    SELECT *, CASE WHEN relation = '' THEN format('%s %s', kind, name) WHEN kind = 'member' THEN format('%s %s', relation, name)
            ELSE format('%s %s of %s', kind, name, relation) END AS what,
        format('skill_system.%I', relation) AS relation_name
    FROM difference d
    WHERE CASE kind
        -- An object that is missing is reported as that; one that does not belong here, where it lies in the schema.
        WHEN 'member' THEN CASE WHEN wanted IS NULL THEN name NOT LIKE 'skill\_system.%'
            WHEN relation = 'function' THEN to_regprocedure(name) IS NOT NULL
            WHEN relation IN ('table', 'view', 'sequence') THEN to_regclass(name) IS NOT NULL
            WHEN relation = 'type' THEN to_regtype(name) IS NOT NULL ELSE true END
        -- An index of an administrator's.
        WHEN 'index' THEN wanted IS NOT NULL ELSE true END
        AND (kind = 'member' OR relation NOT IN (SELECT name FROM lost))
        AND (kind NOT IN ('not null', 'default')
            OR NOT EXISTS (SELECT FROM lost_column c WHERE c.relation = d.relation AND c.name = d.name))
)
