-- What makes the structure that of the extension again, in this order; never what rows are lost by.
SELECT what, statement FROM (
    SELECT 10 AS step, what, format('ALTER EXTENSION skill_system %s %s %s', CASE WHEN wanted IS NULL THEN 'DROP' ELSE 'ADD' END, relation,
        name) AS statement
    FROM relevant WHERE kind = 'member'
    UNION ALL
    SELECT 20, what, CASE kind WHEN 'child' THEN format('ALTER TABLE %s NO INHERIT %s', name, relation_name)
        ELSE format('ALTER TABLE %s NO INHERIT %s', relation_name, name) END
    FROM relevant WHERE kind IN ('child', 'parent') AND wanted IS NULL
        -- Partitions are not dealt with here.
        AND NOT (kind = 'child' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass(name) AND c.relispartition))
    UNION ALL
    SELECT 30, what || ' dropped', CASE kind WHEN 'constraint' THEN format('ALTER TABLE %s DROP CONSTRAINT %I', relation_name, name)
        WHEN 'unique index' THEN format('DROP INDEX skill_system.%I', name) WHEN 'index' THEN format('DROP INDEX skill_system.%I', name)
        ELSE format('DROP %s %I ON %s', kind, name, relation_name) END
    FROM relevant WHERE kind IN ('rule', 'trigger', 'constraint', 'unique index', 'index') AND actual IS NOT NULL
    UNION ALL
    -- A value can be renamed, never dropped.
    SELECT 40, what, (SELECT format('ALTER TYPE skill_system.%I RENAME VALUE %s TO %s', d.name, min(a.label), min(w.label))
        FROM string_to_table(d.actual, ', ') WITH ORDINALITY AS a(label, n)
        FULL JOIN string_to_table(d.wanted, ', ') WITH ORDINALITY AS w(label, n) USING (n)
        WHERE a.label IS DISTINCT FROM w.label HAVING count(*) = 1 AND count(a.label) = 1 AND count(w.label) = 1)
    FROM relevant d WHERE kind = 'type' AND wanted IS NOT NULL AND actual IS NOT NULL
    UNION ALL
    SELECT 41, what, format('ALTER SEQUENCE skill_system.%I %s', name, wanted) FROM relevant
    WHERE kind = 'sequence' AND wanted IS NOT NULL AND actual IS NOT NULL
    UNION ALL
    SELECT 50, what, format('ALTER TABLE %s ALTER %I %s', relation_name, name, coalesce('SET DEFAULT ' || wanted, 'DROP DEFAULT'))
    FROM relevant WHERE kind = 'default'
    UNION ALL
    SELECT 51, what, format('ALTER TABLE %s ALTER %I %s NOT NULL', relation_name, name, CASE WHEN wanted IS NULL THEN 'DROP' ELSE 'SET' END)
    FROM relevant WHERE kind = 'not null'
    UNION ALL
    SELECT CASE WHEN wanted LIKE 'FOREIGN KEY%' THEN 61 ELSE 60 END, what,
        format('ALTER TABLE %s ADD CONSTRAINT %I %s', relation_name, name, wanted)
    FROM relevant WHERE kind = 'constraint' AND wanted IS NOT NULL
    UNION ALL
    SELECT 70, what, wanted FROM relevant WHERE kind IN ('index', 'unique index') AND wanted IS NOT NULL
    UNION ALL
    SELECT 80, what, regexp_replace(wanted, '^ALWAYS ', '') FROM relevant WHERE kind = 'trigger' AND wanted IS NOT NULL
    UNION ALL
    SELECT 81, what || ' enabled always', format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation_name, name)
    FROM relevant WHERE kind = 'trigger' AND wanted LIKE 'ALWAYS %') AS found
WHERE statement IS NOT NULL ORDER BY step, what
