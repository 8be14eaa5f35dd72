WITH old AS (
    SELECT * FROM jsonb_to_record($1) AS old(id bigint, run_id bigint, ts timestamptz, level text, event_type text, payload jsonb)
), existing AS (
    SELECT n.id, n.run_id = old.run_id AND n.ts = old.ts AND n.event_type = old.event_type AS same FROM old
    JOIN skill_system.run_events n ON n.tenant_id = skill_system.current_tenant() AND n.id = old.id
), added AS (
    INSERT INTO skill_system.run_events (id, run_id, ts, level, event_type, payload)
    SELECT id, run_id, ts, level, event_type, coalesce(payload, 'null') FROM old WHERE NOT EXISTS (SELECT FROM existing)
    RETURNING 1
)
SELECT (SELECT count(*) FROM added), (SELECT id FROM existing WHERE NOT same)
