WITH added AS (
    INSERT INTO skill_system.run_events (run_id, ts, event_type, payload)
    SELECT old.run_id, old.created_at, old.event_type, old.payload
    FROM jsonb_to_record($1) AS old(run_id bigint, created_at timestamptz, event_type text, payload jsonb)
    WHERE NOT EXISTS (
        SELECT FROM skill_system.run_events n
        WHERE n.tenant_id = skill_system.current_tenant() AND n.run_id = old.run_id AND n.event_type = old.event_type
            AND (n.event_type = 'task_spec' OR n.payload -> 'id' = old.payload -> 'id'))
    RETURNING 1
)
SELECT count(*), NULL::bigint FROM added
