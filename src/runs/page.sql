SELECT jsonb_build_object(
    'id', r.id, 'tenant', r.tenant_id, 'goal', left(r.goal, 500), 'agent_id', left(r.agent_id, 200), 'status', r.status,
    'error', left(r.error, 2000), 'begin', CASE WHEN isfinite(t.begun) THEN extract(epoch FROM t.begun) END,
    'end', CASE WHEN isfinite(r.ended_at) THEN extract(epoch FROM r.ended_at) END, 'now', extract(epoch FROM now()),
    'begun', to_char(t.begun AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
    'ended', to_char(r.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
    'policy', left(r.effective_policy ->> 'policy', 200), 'policy_version', left(r.effective_policy ->> 'version', 20),
    'policy_hash', left(r.effective_policy ->> 'hash', 80), 'policy_mode', left(r.effective_policy ->> 'mode', 20),
    'totals', (
        SELECT jsonb_build_object('steps', count(*), 'failed', count(*) FILTER (WHERE NOT s.succeeded),
            'input_tokens', sum(s.input_tokens)::text, 'output_tokens', sum(s.output_tokens)::text,
            'cost_usd', round(sum(s.cost_usd), 4)::text,
            'events', (SELECT count(*) FROM skill_system.run_events e
                WHERE e.tenant_id = r.tenant_id AND e.run_id = r.id AND e.event_type <> 'step_completed'))
        FROM skill_system.run_steps s WHERE s.tenant_id = r.tenant_id AND s.run_id = r.id),
    'steps', (
        SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.event_id), '[]') FROM (
            SELECT event_id, CASE WHEN isfinite(completed_at) THEN extract(epoch FROM completed_at) END AS at, duration_ms,
                left(skill, 200) AS skill, left(operation, 200) AS operation, left(model, 200) AS model,
                CASE succeeded WHEN true THEN 'succeeded' WHEN false THEN 'failed' ELSE 'unknown' END AS status,
                input_tokens::text, output_tokens::text, round(cost_usd, 4)::text AS cost_usd
            FROM skill_system.run_steps WHERE tenant_id = r.tenant_id AND run_id = r.id ORDER BY event_id LIMIT $2) s),
    'events', (
        SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.id), '[]') FROM (
            SELECT id, CASE WHEN isfinite(ts) THEN extract(epoch FROM ts) END AS at, left(level, 40) AS level,
                left(event_type, 200) AS event_type, left(payload::text, 400) AS payload
            FROM skill_system.run_events WHERE tenant_id = r.tenant_id AND run_id = r.id AND event_type <> 'step_completed'
            ORDER BY id LIMIT $2) e)
)::text
FROM skill_system.runs r CROSS JOIN LATERAL (SELECT coalesce(r.started_at, r.created_at) AS begun) t
WHERE r.tenant_id = skill_system.current_tenant() AND r.id = $1
