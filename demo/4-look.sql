-- What to look at afterwards.
\echo
\echo '#### 6. What was recorded'
\echo
SELECT to_char(recorded_at, 'HH24:MI:SS') AS at, event_type, session_user_name AS login, actor_id AS claims_to_be,
       left(signature, 26) || '...' AS signature
FROM skill_system.audit_logs ORDER BY recorded_at, id;
SELECT key_id, records, key_present, key_active FROM skill_system.audit_status();
\echo 'Success and duration by skill:'
SELECT skill, operation, count, round(success_rate::numeric, 2) AS success,
       round(success_rate_low::numeric, 2) || ' - ' || round(success_rate_high::numeric, 2) AS "95 % interval",
       round(p95_duration_ms) AS p95_ms, input_tokens AS tokens_in, cost_usd
FROM skill_system.run_stats ORDER BY skill, operation;
\echo 'A run as an OpenTelemetry trace, for any collector:'
SELECT s ->> 'name' AS span, s ->> 'spanId' AS span_id, s ->> 'parentSpanId' AS parent,
       round(((s ->> 'endTimeUnixNano')::numeric - (s ->> 'startTimeUnixNano')::numeric) / 1e6) AS ms
FROM jsonb_path_query(skill_system.run_otlp((SELECT min(id) FROM skill_system.runs)), '$.resourceSpans[*].scopeSpans[*].spans[*]') AS s;
\echo 'The checks of a monitoring system:'
SELECT "check", status, detail FROM skill_system.health();
DO $$
BEGIN
    ASSERT NOT EXISTS (SELECT FROM skill_system.health() WHERE status <> 'ok'), 'health() has something to report';
    ASSERT (SELECT count(*) FROM skill_system.runs) = 3, 'there should be three runs';
END
$$;
