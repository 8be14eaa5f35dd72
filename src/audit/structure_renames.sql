-- An object that is missing, and the only one of its kind that does not belong here and is the same but for its name: what it was
-- called, and the statement that gives it this name back. A new column comes after those that the extension created.
, named AS (
    SELECT d.*, CASE kind WHEN 'table' THEN (SELECT string_agg(c.name || ' ' || c.state, ', ' ORDER BY c.name COLLATE "C")
            FROM (SELECT * FROM wanted WHERE d.wanted IS NOT NULL UNION ALL SELECT * FROM actual WHERE d.wanted IS NULL) c
            WHERE c.kind = 'column' AND c.relation = d.name)
        WHEN 'index' THEN replace(coalesce(wanted, actual), name, '') WHEN 'unique index' THEN replace(coalesce(wanted, actual), name, '')
        WHEN 'trigger' THEN replace(coalesce(wanted, actual), ' ' || name || ' ', '') ELSE coalesce(wanted, actual) END AS same
    FROM difference d
    WHERE kind IN ('table', 'view', 'sequence', 'type', 'function', 'event trigger', 'column', 'constraint', 'index', 'unique index',
        'trigger')
        AND (kind <> 'column' OR actual IS NULL OR (SELECT a.attnum FROM pg_attribute a
            WHERE a.attrelid = to_regclass(format('skill_system.%I', relation)) AND a.attname = name)
            <= (SELECT count(*) FROM wanted w WHERE w.kind = 'column' AND w.relation = d.relation))
), pair AS (
    SELECT kind, relation, same, (array_agg(name) FILTER (WHERE actual IS NULL))[1] AS wanted_name,
        (array_agg(name) FILTER (WHERE wanted IS NULL))[1] AS actual_name
    FROM named GROUP BY kind, relation, same
    HAVING count(*) FILTER (WHERE actual IS NULL) = 1 AND count(*) FILTER (WHERE wanted IS NULL) = 1 AND count(*) = 2
)
SELECT format('%s %s, called %s', kind, wanted_name, actual_name), CASE
    WHEN kind = 'function' THEN format('ALTER FUNCTION skill_system.%s RENAME TO %I', actual_name, split_part(wanted_name, '(', 1))
    WHEN kind = 'column' THEN format('ALTER TABLE skill_system.%I RENAME COLUMN %I TO %I', relation, actual_name, wanted_name)
    WHEN kind = 'constraint' THEN format('ALTER TABLE skill_system.%I RENAME CONSTRAINT %I TO %I', relation, actual_name, wanted_name)
    WHEN kind = 'trigger' THEN format('ALTER TRIGGER %I ON skill_system.%I RENAME TO %I', actual_name, relation, wanted_name)
    WHEN kind = 'event trigger' THEN format('ALTER EVENT TRIGGER %I RENAME TO %I', actual_name, wanted_name)
    ELSE format('ALTER %s skill_system.%I RENAME TO %I', replace(kind, 'unique ', ''), actual_name, wanted_name) END
FROM pair ORDER BY relation <> '', 1
