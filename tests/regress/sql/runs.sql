-- Runs: what ran, how long it took, what it cost, and how it ended.
-- Times and hashes vary, so they are compared, never printed.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error; -- no warning of roles that have members
CREATE EXTENSION skill_system;
RESET client_min_messages;
\pset null '(null)'
SET timezone = 'UTC';
SELECT count(*) AS starters FROM skill_system.install_starter_policies();

-- One step, one call: the run, its event, an audit record.
SELECT skill_system.log_run('skill-system-memory', 'search', 'ok', 118);
SELECT id, goal, agent_id, policy_profile_id, task_spec_id, status, effective_policy, metrics, error, idempotency_key, tenant_id,
       ended_at - started_at AS took, ended_at BETWEEN created_at AND clock_timestamp() AS just_ended FROM skill_system.runs;
SELECT e.id, e.run_id, e.level, e.event_type, e.payload, e.tenant_id, e.ts = r.ended_at AS at_the_end
FROM skill_system.run_events e JOIN skill_system.runs r ON r.id = e.run_id;
SELECT event_type, event_data, actor_id, actor_type FROM skill_system.audit_logs WHERE event_type LIKE 'run%';

-- All arguments. Keys of the server that the caller passes are replaced.
SELECT skill_system.log_run('search', 'query', 'error', 20, agent_id => 'coder', goal => 'find it', policy_name => 'dev',
    error => 'timeout',
    metrics => '{"gen_ai.usage.input_tokens": 900, "steps": 3}', payload => '{"skill": "forged", "duration_ms": 0, "exit_code": 1}',
        idempotency_key => 'job-1');
SELECT id, goal, agent_id, status, metrics, error, idempotency_key, effective_policy - 'hash' AS policy,
       policy_profile_id = (SELECT id FROM skill_system.policy_profiles WHERE name = 'dev') AS policy_named,
       effective_policy->>'hash' = (SELECT policy_hash FROM skill_system.check_policy('dev', '{}')) AS hash FROM skill_system.runs
           WHERE id = 2;
SELECT level, event_type, payload FROM skill_system.run_events WHERE run_id = 2;
SELECT event_data, actor_id, actor_type FROM skill_system.audit_logs WHERE event_type = 'run.logged' AND event_data->'run_id' = '2';
-- The same call with its key: the same run, nothing twice. Other content is an error, another agent's key is another key.
SELECT skill_system.log_run('search', 'query', 'failed', 20, agent_id => 'coder', goal => 'find it', policy_name => 'dev',
    error => 'timeout',
    metrics => '{"steps": 3, "gen_ai.usage.input_tokens": 900}', payload => '{"exit_code": 1, "duration_ms": 0, "skill": "forged"}',
        idempotency_key => 'job-1');
SELECT skill_system.log_run('search', 'query', 'ok', 20, agent_id => 'coder', idempotency_key => 'job-1');
SELECT skill_system.start_run('find it', 'dev', 'coder', idempotency_key => 'job-1');
SELECT skill_system.log_run('search', 'query', 'ok', 1, agent_id => 'tester', idempotency_key => 'job-1');
SELECT skill_system.start_run('another goal', idempotency_key => 'job-1');
SELECT skill_system.start_run('another goal', idempotency_key => 'job-1');
SELECT (SELECT count(*) FROM skill_system.runs) AS runs, (SELECT count(*) FROM skill_system.run_events) AS events,
       (SELECT count(*) FROM skill_system.audit_logs WHERE event_type LIKE 'run%') AS records;

-- Status words and synonyms, with the resulting status of the run and type of the event.
CREATE TEMP TABLE word AS SELECT word, skill_system.log_run('s', 'words', word, 1000) AS run_id
FROM unnest(ARRAY['queued', 'running', 'succeeded', 'failed', 'cancelled', 'ok', 'success', 'completed', 'error', 'failure', 'canceled',
    ' OK ']) AS word;
SELECT w.word, r.status, r.started_at IS NOT NULL AS started, r.ended_at IS NOT NULL AS ended, e.event_type, e.level,
    e.payload->>'status' AS step
FROM word w JOIN skill_system.runs r ON r.id = w.run_id JOIN skill_system.run_events e ON e.run_id = r.id ORDER BY w.run_id;
SELECT skill_system.log_run('s', 'op', 'done');
\echo :LAST_ERROR_SQLSTATE
SELECT skill_system.log_run('s', 'op', '');
SELECT skill_system.log_run('s', 'op', NULL);

-- Bounds.
SELECT skill_system.log_run('s', 'op', 'ok', -1);
SELECT skill_system.log_run('s', 'op', 'ok', 9223372036854775807);
SELECT skill_system.log_run(NULL, 'op', 'ok');
SELECT skill_system.log_run('', 'op', 'ok');
SELECT skill_system.log_run('s', repeat('ä', 201), 'ok');
SELECT skill_system.log_run('s', 'op', 'ok', agent_id => '');
SELECT skill_system.log_run('s', 'op', 'ok', idempotency_key => repeat('k', 201));
SELECT skill_system.log_run('s', 'op', 'ok', metrics => '[1]');
SELECT skill_system.log_run('s', 'op', 'ok', metrics => '1');
SELECT skill_system.log_run('s', 'op', 'ok', payload => '"text"');
SELECT skill_system.log_run('s', 'op', 'ok', policy_name => 'nobody');
SELECT skill_system.log_run(repeat('ä', 200), 'op', 'ok', 0::integer, agent_id => repeat('a', 150), metrics => NULL,
    payload => NULL) > 0 AS long_but_good;
SELECT actor_id, actor_type FROM skill_system.audit_logs WHERE event_data->>'skill' = repeat('ä', 200);
BEGIN READ ONLY;
SELECT skill_system.log_run('s', 'op', 'ok');
ROLLBACK;

-- A run of several steps.
SELECT skill_system.start_run('file form W-1', 'dev', 'coder', '{"priority": 1}') AS run \gset
SELECT goal, agent_id, status, metrics, ended_at, effective_policy - 'hash' AS effective_policy FROM skill_system.runs WHERE id = :run;
SELECT skill_system.log_step(:run, 'search', 'query', 'ok', 100,
    '{"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4, "cost_usd": 0.25}') > 0 AS logged;
SELECT skill_system.log_step(:run, 'search', 'query', 'error', 50,
    '{"gen_ai.usage.input_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 2, "cost_usd": "much"}',
    '{"status": "forged", "note": "n"}') > 0 AS logged;
SELECT skill_system.log_step(:run, 'search', 'open') > 0 AS logged;
SELECT skill_system.log_step(:run, 'search', 'wait', 'running') > 0 AS logged;
SELECT skill_system.log_event(:run, 'approval_asked', '{"effect": "net.fetch"}', 'warn') > 0 AS logged;
SELECT skill_system.log_event(:run, 'note') > 0 AS logged;
SELECT skill_system.log_events(:run, '[{"event_type": "first", "ts": "2026-01-02 03:04:05Z"}, {"event_type": "second", "level": "debug", '
    '"payload": {"n": 12345678901234567890}}]');
SELECT skill_system.log_events(:run, '[]');
SELECT level, event_type, payload, CASE WHEN ts < '2026-01-03' THEN ts END AS given_ts FROM skill_system.run_events WHERE run_id = :run
    ORDER BY id;
SELECT goal, agent_id, status, steps, silent_for < interval '1 minute' AS lively FROM skill_system.runs_in_progress WHERE id = :run;
SELECT count(*) FROM skill_system.stuck_runs;
SELECT skill_system.stuck_after();
SELECT skill_system.finish_run(:run, 'completed', metrics => '{"cost_usd": 0.5, "reviewed": true}');
SELECT status, metrics, error, ended_at >= started_at AS ended FROM skill_system.runs WHERE id = :run;
SELECT event_type, event_data - 'run_id' - 'policy_hash' AS event_data, actor_id FROM skill_system.audit_logs
WHERE event_data->'run_id' = to_jsonb(:run) ORDER BY recorded_at;

-- After the end: the same status again does nothing, another one is an error, events can still be added.
SELECT skill_system.finish_run(:run, 'ok', 'ignored');
SELECT error FROM skill_system.runs WHERE id = :run;
SELECT skill_system.start_run('ends badly') AS other \gset
SELECT skill_system.finish_run(:other, 'failed', 'boom');
SELECT status, error, metrics FROM skill_system.runs WHERE id = :other;
SELECT skill_system.finish_run(:run, 'failed');
\echo :LAST_ERROR_SQLSTATE
SELECT skill_system.finish_run(:run, 'running');
SELECT skill_system.finish_run(:run, 'over');
SELECT skill_system.log_step(:run, 'search', 'query', 'ok');
UPDATE skill_system.runs SET status = 'running', error = 'x' WHERE id = :run;
UPDATE skill_system.runs SET status = status WHERE id = :run;
SELECT skill_system.log_event(:run, 'note', '{"after": "the end"}') > 0 AS logged;

-- Runs that do not exist, and NULL.
SELECT skill_system.log_event(999999, 'note');
\echo :LAST_ERROR_SQLSTATE
SELECT skill_system.log_step(999999, 's', 'op');
SELECT skill_system.log_events(999999, '[{"event_type": "a"}]');
SELECT skill_system.finish_run(999999, 'ok');
SELECT skill_system.run_otlp(999999);
SELECT skill_system.log_event(NULL, 'note');
SELECT skill_system.log_event(1, NULL);
SELECT skill_system.log_event(1, 'note', '[]');
SELECT skill_system.log_event(1, 'note', '{}', '');
SELECT skill_system.start_run(NULL);
SELECT skill_system.start_run('goal', policy_name => 'nobody');
SELECT skill_system.log_events(1, '{}');
SELECT skill_system.log_events(1, NULL);
SELECT skill_system.log_events(1, '[{"event_type": "good"}, {"level": "info"}]');
SELECT skill_system.log_events(1, '[{"event_type": "a", "run_id": 2}]');
SELECT skill_system.log_events(1, '[{"event_type": "a", "payload": 1}]');
SELECT skill_system.log_events(1, '[{"event_type": "a", "ts": "yesterday-ish"}]');
SELECT skill_system.log_events(1, '[{"event_type": "a", "payload": {"x": 1e400}}]');
SELECT skill_system.log_events(1, (SELECT jsonb_agg('{"event_type": "a"}'::jsonb) FROM generate_series(1, 10001)));
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS none_of_these FROM skill_system.run_events WHERE run_id = 1 AND event_type <> 'step_completed';

-- Events are append-only, also under session_replication_role, and so are the runs that have events.
UPDATE skill_system.run_events SET level = 'x';
DELETE FROM skill_system.run_events;
TRUNCATE skill_system.run_events;
TRUNCATE skill_system.runs CASCADE;
DELETE FROM skill_system.runs WHERE id = 1;
SET session_replication_role = replica;
DELETE FROM skill_system.run_events;
UPDATE skill_system.runs SET error = 'x' WHERE id = 1;
RESET session_replication_role;

-- A deleted policy leaves its runs, with the policy that was in force.
DELETE FROM skill_system.policy_profiles WHERE name = 'dev';
SELECT id, policy_profile_id, effective_policy->>'policy' AS policy FROM skill_system.runs WHERE effective_policy ? 'policy' ORDER BY id;

-- Statistics, also over rows that agents wrote with INSERT.
SELECT skill_system.start_run('statistics') AS run \gset
INSERT INTO skill_system.run_events (run_id, ts, event_type, payload)
SELECT :run, '2026-03-01', 'step_completed', jsonb_build_object('skill', 'x', 'operation', 'y', 'status', CASE WHEN n <= 90 THEN 'ok'
    ELSE 'error' END,
    'duration_ms', n, 'metrics', jsonb_build_object('gen_ai.usage.input_tokens', 10, 'gen_ai.usage.output_tokens', 1, 'cost_usd', 0.01))
FROM generate_series(1, 100) n;
INSERT INTO skill_system.run_events (run_id, ts, event_type, payload) VALUES
    (:run, '2026-03-02', 'step_completed', '{"skill": "x", "operation": "y", "status": "cancelled", "duration_ms": "soon"}'),
    (:run, '2026-03-02', 'step_completed', '{"skill": "x", "operation": "y", "status": 7, "duration_ms": 1e300, "metrics": {"cost_usd": '
        '-1, "gen_ai.usage.input_tokens": null}}'),
    (:run, '2026-03-02', 'step_completed', '{"skill": "x", "operation": "y", "metrics": [1, 2]}'),
    (:run, '2026-03-03', 'step_completed', '[]'), (:run, '2026-03-03', 'step_completed', '"scalar"'), (:run, '2026-03-03',
        'step_completed', 'null');
SELECT skill, operation, day, count, succeeded, failed, round(success_rate::numeric, 6) AS rate, round(success_rate_low::numeric,
    6) AS low,
       round(success_rate_high::numeric, 6) AS high, p50_duration_ms AS p50, round(p95_duration_ms::numeric, 3) AS p95,
           round(p99_duration_ms::numeric, 3) AS p99,
       input_tokens, output_tokens, cost_usd
FROM skill_system.run_stats WHERE day BETWEEN '2026-03-01' AND '2026-03-03' ORDER BY day, skill;
SELECT skill_system.finish_run(:run, 'cancelled');
SELECT metrics FROM skill_system.runs WHERE id = :run;

-- The export; its ids come from tenant and numbers alone.
SELECT jsonb_pretty(jsonb_path_query_first(skill_system.run_otlp(2),
    '$.resourceSpans[0].scopeSpans[0].spans[1]') - 'startTimeUnixNano' - 'endTimeUnixNano') AS step;

-- Maintenance.
SELECT task, affected > 0 AS done FROM skill_system.maintain();
SELECT task, affected FROM skill_system.maintain();
SELECT * FROM skill_system.maintain(0);
SELECT * FROM skill_system.maintain(NULL);
SELECT * FROM skill_system.import_legacy('no_such_schema');
SELECT * FROM skill_system.import_legacy('skill_system');
SELECT * FROM skill_system.verify_audit();
DROP EXTENSION skill_system;
