-- Ends a run and adds up its steps; returns what is audited.
WITH raw AS (
    SELECT
        CASE WHEN jsonb_typeof(payload->'duration_ms') = 'number' THEN (payload->>'duration_ms')::numeric END AS d,
        CASE WHEN jsonb_typeof(payload->'metrics'->'gen_ai.usage.input_tokens') = 'number'
             THEN (payload->'metrics'->>'gen_ai.usage.input_tokens')::numeric END AS i,
        CASE WHEN jsonb_typeof(payload->'metrics'->'gen_ai.usage.output_tokens') = 'number'
             THEN (payload->'metrics'->>'gen_ai.usage.output_tokens')::numeric END AS o,
        CASE WHEN jsonb_typeof(payload->'metrics'->'gen_ai.usage.cache_read.input_tokens') = 'number'
             THEN (payload->'metrics'->>'gen_ai.usage.cache_read.input_tokens')::numeric END AS c,
        CASE WHEN jsonb_typeof(payload->'metrics'->'cost_usd') = 'number'
             THEN (payload->'metrics'->>'cost_usd')::numeric END AS u
    FROM skill_system.run_events
    WHERE tenant_id = skill_system.current_tenant() AND run_id = $1 AND event_type = 'step_completed'
), sums AS (
    SELECT jsonb_strip_nulls(jsonb_build_object(
            'steps', count(*),
            'duration_ms', sum(d) FILTER (WHERE d BETWEEN 0 AND 1e15),
            'gen_ai.usage.input_tokens', sum(i) FILTER (WHERE i BETWEEN 0 AND 1e15),
            'gen_ai.usage.output_tokens', sum(o) FILTER (WHERE o BETWEEN 0 AND 1e15),
            'gen_ai.usage.cache_read.input_tokens', sum(c) FILTER (WHERE c BETWEEN 0 AND 1e15),
            'cost_usd', sum(u) FILTER (WHERE u BETWEEN 0 AND 1e15))) AS added,
        count(*) AS steps
    FROM raw
)
UPDATE skill_system.runs r SET
    status = $2::skill_system.run_status,
    started_at = coalesce(started_at, created_at),
    ended_at = clock_timestamp(),
    error = coalesce($3, error),
    metrics = CASE WHEN jsonb_typeof(metrics) = 'object' THEN metrics ELSE '{}' END || sums.added || coalesce($4, '{}')
FROM sums WHERE r.tenant_id = skill_system.current_tenant() AND r.id = $1
RETURNING jsonb_strip_nulls(jsonb_build_object(
    'run_id', r.id, 'status', $2, 'steps', sums.steps, 'error', left(r.error, 200)))
