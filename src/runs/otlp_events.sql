-- The events of a run. Of a payload larger than $2 bytes of text it returns the members that tell what the step was, and the
-- number of the others. OFFSET 0: what is sorted are the texts that are kept, not the payloads.
SELECT e.* FROM (
    SELECT id, ts, level, event_type,
        CASE WHEN NOT is_large THEN payload::text ELSE coalesce(
            (SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(payload) m
             WHERE m.key = ANY ($3) AND octet_length(m.value::text) <= 4096),
            '{}')::text END AS payload,
        CASE WHEN is_large THEN (SELECT count(*) FROM jsonb_each(payload) m WHERE m.key <> ALL ($3) OR octet_length(m.value::text) > 4096)
            ELSE 0 END AS dropped
    FROM skill_system.run_events CROSS JOIN LATERAL (SELECT jsonb_typeof(payload) = 'object'
        AND (pg_column_size(payload) > $2 OR octet_length(payload::text) > $2) AS is_large OFFSET 0) s
    WHERE tenant_id = skill_system.current_tenant() AND run_id = $1 OFFSET 0) e
ORDER BY e.ts, e.id
