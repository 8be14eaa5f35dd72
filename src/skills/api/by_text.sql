q AS (
    SELECT websearch_to_tsquery('pg_catalog.english', $1) AS strict,
           CASE WHEN $1 ~ '"|(^|\s)-' THEN '{}'
                ELSE ARRAY(SELECT '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
                           FROM unnest(to_tsvector('pg_catalog.english', $1))) END AS words),
t AS (
    SELECT strict, strict || array_to_string(words, ' | ')::tsquery AS any_of,
           CASE WHEN words = '{}' THEN ARRAY[strict] ELSE words::tsquery[] END AS terms
    FROM q)
SELECT v.id, d.document @@ t.strict,
       ARRAY(SELECT ts_rank(d.document, term, 1) FROM unnest(t.terms) WITH ORDINALITY u (term, n) ORDER BY n),
       (SELECT count(*) FROM visible)
FROM t, skill_system.skill_search s JOIN visible v ON v.tenant_id = s.tenant_id AND v.id = s.skill_id
     -- Read once, not for each word.
     CROSS JOIN LATERAL (SELECT s.document || '' AS document OFFSET 0) d
WHERE s.document @@ t.any_of
ORDER BY v.skill_name, v.id
