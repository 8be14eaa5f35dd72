-- Adds a step to a run that has not ended; returns the run's status, and the event's id unless the run has ended.
WITH r AS (
    SELECT id, status FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1
        FOR SHARE SKIP LOCKED
), e AS (
    INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload, skill_version_id)
    SELECT id, $2, $3, $4,
        coalesce($5, '{}')
            || CASE WHEN $6 IS NULL THEN jsonb_build_object('skill', $7, 'operation', $8, 'status', $9)
                    ELSE jsonb_build_object('skill', $7, 'operation', $8, 'status', $9, 'duration_ms', $6) END
            || CASE WHEN $10 IS NULL THEN '{}' ELSE jsonb_build_object('metrics', $10) END
            || CASE WHEN $11 IS NULL THEN '{}' ELSE jsonb_build_object('skill_version', $11) END,
        $12
    FROM r WHERE status IN ('queued', 'running')
    RETURNING id
)
SELECT r.status::text, (SELECT id FROM e) FROM r
