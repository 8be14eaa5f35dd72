WITH old AS (
    SELECT * FROM jsonb_to_record($1) AS old(id bigint, goal text, agent_id text, policy_name text, task_spec_id bigint, status text,
        started_at timestamptz, ended_at timestamptz, effective_policy jsonb, metrics jsonb, error text, created_at timestamptz)
), existing AS (
    SELECT n.id, n.created_at = old.created_at AS same FROM old
    JOIN skill_system.runs n ON n.tenant_id = skill_system.current_tenant() AND n.id = old.id
), added AS (
    INSERT INTO skill_system.runs (id, goal, agent_id, policy_profile_id, task_spec_id, status, started_at, ended_at,
        effective_policy, metrics, error, created_at)
    SELECT old.id, old.goal, old.agent_id, p.id, old.task_spec_id, old.status::skill_system.run_status, old.started_at, old.ended_at,
        coalesce(old.effective_policy, 'null'), coalesce(old.metrics, 'null'), old.error, old.created_at
    FROM old LEFT JOIN skill_system.policy_profiles p ON p.tenant_id = skill_system.current_tenant() AND p.name = old.policy_name
    WHERE NOT EXISTS (SELECT FROM existing)
    RETURNING 1
)
SELECT (SELECT count(*) FROM added), (SELECT id FROM existing WHERE NOT same)
