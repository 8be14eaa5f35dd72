-- Runs: what ran, how long, at what cost, with which outcome.

CREATE TYPE skill_system.run_status AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled');
COMMENT ON TYPE skill_system.run_status IS
'State of a run. succeeded, failed and cancelled are final. Functions also take ok, success, completed, error, failure and canceled.';

CREATE TABLE skill_system.runs (
    id                bigserial               NOT NULL,
    goal              text,
    agent_id          text,
    policy_profile_id bigint,
    task_spec_id      bigint,
    status            skill_system.run_status NOT NULL DEFAULT 'queued',
    started_at        timestamptz             NULL,
    ended_at          timestamptz             NULL,
    effective_policy  jsonb                   NOT NULL DEFAULT '{}'::jsonb,
    metrics           jsonb                   NOT NULL DEFAULT '{}'::jsonb,
    error             text                    NULL,
    created_at        timestamptz             NOT NULL DEFAULT pg_catalog.now(),
    idempotency_key   text,
    tenant_id         text                    NOT NULL DEFAULT skill_system.current_tenant(),
    skill_version_id  uuid,
    created_by        text                    NOT NULL DEFAULT CURRENT_USER,
    closed_at         timestamptz,
    request_digest    bytea,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX idx_runs_agent_id ON skill_system.runs (agent_id, tenant_id) WHERE agent_id IS NOT NULL;
-- The status first: sharing the tenant with the primary key, it would be taken for the foreign key's look-up in a table without statistics.
CREATE INDEX idx_runs_status ON skill_system.runs (status, tenant_id);
CREATE UNIQUE INDEX idx_runs_idempotency_key ON skill_system.runs (tenant_id, idempotency_key, created_by, agent_id) NULLS NOT DISTINCT
    WHERE idempotency_key IS NOT NULL;
COMMENT ON TABLE skill_system.runs IS
'What agents did: one row per run. Write with log_run() for a run of a single step, otherwise with start_run(), log_step() and '
'finish_run(); plain INSERT and UPDATE work too and are recorded as run.inserted and run.updated. A run that has ended is final. Read '
'with run_stats, runs_in_progress, stuck_runs, run_page() and run_otlp().';
COMMENT ON COLUMN skill_system.runs.id IS 'Number of the run.';
COMMENT ON COLUMN skill_system.runs.goal IS 'What it is for, in words.';
COMMENT ON COLUMN skill_system.runs.agent_id IS 'Which agent ran, as claimed by the writer.';
COMMENT ON COLUMN skill_system.runs.policy_profile_id IS
'Number of the policy in force, which may be deleted meanwhile; NULL when none was given. effective_policy keeps its content. No foreign '
'key: an open transaction that writes a run would hold up who renames or deletes the policy.';
COMMENT ON COLUMN skill_system.runs.task_spec_id IS 'Task of version 1 of the skill-system-postgres skill; not used by this extension.';
COMMENT ON COLUMN skill_system.runs.status IS 'queued, running, succeeded, failed or cancelled.';
COMMENT ON COLUMN skill_system.runs.started_at IS 'When it began, as claimed by the writer.';
COMMENT ON COLUMN skill_system.runs.ended_at IS 'When it ended, as claimed by the writer; NULL while it has not.';
COMMENT ON COLUMN skill_system.runs.effective_policy IS 'Name, version and hash of the policy in force, and from start_run() its rules.';
COMMENT ON COLUMN skill_system.runs.metrics IS
'Numbers: steps, duration_ms, gen_ai.usage.input_tokens, gen_ai.usage.output_tokens, gen_ai.usage.cache_read.input_tokens, cost_usd and '
'any others.';
COMMENT ON COLUMN skill_system.runs.error IS 'Why it failed.';
COMMENT ON COLUMN skill_system.runs.created_at IS 'When the row was written.';
COMMENT ON COLUMN skill_system.runs.idempotency_key IS
'Key of the call that created the run; a repeated call with it returns this run. Unique for the role and the agent.';
COMMENT ON COLUMN skill_system.runs.tenant_id IS 'Tenant of the session that wrote the row.';
COMMENT ON COLUMN skill_system.runs.skill_version_id IS
'Version of the registered skill that log_run() found; NULL for a run of several steps, whose events have it, and if no skill of that '
'name is registered. No foreign key: it is kept when the skill is deleted.';

COMMENT ON COLUMN skill_system.runs.created_by IS 'Role that wrote the row; set by the server.';
COMMENT ON COLUMN skill_system.runs.closed_at IS
'When the run had ended for the server, which decides how long it is kept; NULL when it had ended as its row was written.';
COMMENT ON COLUMN skill_system.runs.request_digest IS
'SHA-256 of the arguments of the call that used idempotency_key; a call with others is not a repeated one.';

CREATE TABLE skill_system.run_events (
    id         bigserial   NOT NULL,
    run_id     bigint      NOT NULL,
    ts         timestamptz NOT NULL DEFAULT pg_catalog.now(),
    level      text        NOT NULL DEFAULT 'info',
    event_type text        NOT NULL,
    payload    jsonb       NOT NULL DEFAULT '{}'::jsonb,
    tenant_id  text        NOT NULL DEFAULT skill_system.current_tenant(),
    skill_version_id uuid,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, run_id) REFERENCES skill_system.runs (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX idx_run_events_run_id ON skill_system.run_events (tenant_id, run_id);
COMMENT ON TABLE skill_system.run_events IS
'What happened in a run, append-only. A step is an event step_completed with the payload {skill, operation, status, duration_ms, '
'metrics}. Write with log_step(), log_event(), log_events() or INSERT (run_id, level, event_type, payload).';
COMMENT ON COLUMN skill_system.run_events.id IS 'Number of the event; they count up in the order of writing.';
COMMENT ON COLUMN skill_system.run_events.run_id IS 'Run it belongs to.';
COMMENT ON COLUMN skill_system.run_events.ts IS 'When it happened, as claimed by the writer; never in the future.';
COMMENT ON COLUMN skill_system.run_events.level IS 'debug, info, warn or error, by custom.';
COMMENT ON COLUMN skill_system.run_events.event_type IS 'For example step_completed or approval_asked.';
COMMENT ON COLUMN skill_system.run_events.payload IS 'Details.';
COMMENT ON COLUMN skill_system.run_events.tenant_id IS 'Tenant of the run.';
COMMENT ON COLUMN skill_system.run_events.skill_version_id IS
'For a step of a registered skill: its version; payload->>''skill_version'' has the digits. See run_skill_versions.';

CREATE FUNCTION skill_system.guard_run() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_run';
COMMENT ON FUNCTION skill_system.guard_run() IS
'Trigger function of runs: rejects changes to a run that has ended and times that cannot be, and sets closed_at.';
CREATE FUNCTION skill_system.guard_run_event() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_guard_run_event';
COMMENT ON FUNCTION skill_system.guard_run_event() IS
'Trigger function of run_events: rejects steps of a run that has ended and times that cannot be.';
CREATE FUNCTION skill_system.record_run() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_record_run';
COMMENT ON FUNCTION skill_system.record_run() IS
'Trigger function of runs: records what plain INSERT and UPDATE do as run.inserted and run.updated. Fires at the origin.';
CREATE TRIGGER runs_final BEFORE UPDATE ON skill_system.runs
    FOR EACH ROW EXECUTE FUNCTION skill_system.guard_run();
-- The conditions keep the calls away from the ordinary rows, whose times are the server's.
CREATE TRIGGER runs_times BEFORE INSERT ON skill_system.runs FOR EACH ROW
    WHEN (NEW.started_at < pg_catalog.now() - interval '1 day' OR NEW.started_at > pg_catalog.now() + interval '1 minute'
        OR NEW.ended_at < pg_catalog.now() - interval '1 day' OR NEW.ended_at > pg_catalog.now() + interval '1 minute')
    EXECUTE FUNCTION skill_system.guard_run();
CREATE TRIGGER run_events_guard BEFORE INSERT ON skill_system.run_events FOR EACH ROW
    WHEN (NEW.event_type LIKE 'step\_%'
        OR NEW.ts NOT BETWEEN pg_catalog.now() - interval '1 day' AND pg_catalog.now() + interval '1 minute')
    EXECUTE FUNCTION skill_system.guard_run_event();
-- Not for the rows that a restore brings back.
CREATE TRIGGER runs_record_insert AFTER INSERT ON skill_system.runs
    FOR EACH ROW WHEN (NEW.created_at >= pg_catalog.now()) EXECUTE FUNCTION skill_system.record_run();
CREATE TRIGGER runs_record_update AFTER UPDATE ON skill_system.runs
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION skill_system.record_run();
CREATE TRIGGER run_events_no_change BEFORE UPDATE OR DELETE ON skill_system.run_events
    FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change();
CREATE TRIGGER run_events_no_truncate BEFORE TRUNCATE ON skill_system.run_events
    FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change();

-- The writing functions are on hot paths, so they pin search_path in the library
-- around each statement and not here. log_run() and start_run() write with the privileges
-- of the tables' owner, for the session's tenant: any role that may call them may have
-- the run written. All others write with the caller's privileges.
CREATE FUNCTION skill_system.log_run(
        skill text, operation text, status text, duration_ms double precision DEFAULT NULL, policy_name text DEFAULT NULL,
        agent_id text DEFAULT NULL, goal text DEFAULT NULL, error text DEFAULT NULL, metrics jsonb DEFAULT '{}',
        payload jsonb DEFAULT '{}', idempotency_key text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_log_run';
COMMENT ON FUNCTION skill_system.log_run(text, text, text, double precision, text, text, text, text, jsonb, jsonb, text) IS
'Logs a run of one step in one call, after it ended: the run, its step event and an audit record run.logged. Returns the run''s number. A '
'skill that is registered (skill is its name, namespace/name, UUID or the id in its manifest, unless several skills share it) is linked '
'to the served version, or to the one given in payload: {"skill_version": "<12 digits>"}. duration_ms is rounded; metrics that run_stats '
'adds up are gen_ai.usage.input_tokens, gen_ai.usage.output_tokens and cost_usd, as numbers: a WARNING names what looks like one and is '
'not. A call repeated with its idempotency_key, by the same role for the same agent_id, returns that run and writes nothing. Raises 22023 '
'for an unknown status, a negative duration, a text that is empty or longer than 200 characters, metrics or payload that are not objects, '
'an idempotency_key used with other arguments; 42704 for an unknown policy. Task 7: Log what is done. Example: SELECT '
'skill_system.log_run(''pdf-forms'', ''fill'', ''succeeded'', 1250);';

CREATE FUNCTION skill_system.start_run(
        goal text, policy_name text DEFAULT NULL, agent_id text DEFAULT NULL, metrics jsonb DEFAULT '{}',
        idempotency_key text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_start_run';
COMMENT ON FUNCTION skill_system.start_run(text, text, text, jsonb, text) IS
'Starts a run of several steps and returns its number; the policy''s rules, version and hash are kept in effective_policy. Go on with '
'log_step() and finish_run(). A call repeated with its idempotency_key, by the same role for the same agent_id, returns that run and '
'writes nothing. Raises 22023 for texts out of bounds or an idempotency_key used with other arguments, 42704 for an unknown policy. Task '
'8: Log longer work; then log_step(), finish_run(). Example: SELECT skill_system.start_run(''file W-1'', ''dev'', ''my-agent'');';

CREATE FUNCTION skill_system.log_event(
        run_id bigint, event_type text, payload jsonb DEFAULT '{}', level text DEFAULT 'info') RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_log_event';
COMMENT ON FUNCTION skill_system.log_event(bigint, text, jsonb, text) IS
'Logs an event of a run, also of one that has ended, and returns the event''s number. Raises 42704 for an unknown run, 22023 for texts '
'out of bounds or a payload that is not an object, 55000 for an event type that begins with step_ when the run has ended. Example: SELECT '
'skill_system.log_event(7, ''approval_asked'', ''{"effect": "net.fetch"}'');';

CREATE FUNCTION skill_system.log_step(
        run_id bigint, skill text, operation text, status text DEFAULT 'ok', duration_ms double precision DEFAULT NULL,
        metrics jsonb DEFAULT '{}', payload jsonb DEFAULT '{}') RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_log_step';
COMMENT ON FUNCTION skill_system.log_step(bigint, text, text, text, double precision, jsonb, jsonb) IS
'Logs a step of a run and returns the event''s number: step_completed, or step_started while the status is running or queued. A '
'registered skill is linked to its version as by log_run(). Raises 42704 for an unknown run, 55000 for one that has ended, 22023 as '
'log_run(). Example: SELECT skill_system.log_step(7, ''skill-system-memory'', ''search'', ''ok'', 118);';

CREATE FUNCTION skill_system.log_events(run_id bigint, events jsonb) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_log_events' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.log_events(bigint, jsonb) IS
'Logs up to 10000 events of a run in one call, in the given order, and returns their number. Each is {"event_type": text, "level"?: text, '
'"payload"?: object, "ts"?: time}. All or none. Raises 42704 for an unknown run, 22023 naming the first malformed event or one of the '
'future, 55000 for a step of a run that has ended, 54000 for too many. Example: SELECT skill_system.log_events(7, ''[{"event_type": '
'"note", "payload": {"text": "found it"}}]'');';

CREATE FUNCTION skill_system.finish_run(run_id bigint, status text, error text DEFAULT NULL, metrics jsonb DEFAULT '{}')
    RETURNS skill_system.run_status
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_finish_run' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.finish_run(bigint, text, text, jsonb) IS
'Ends a run as succeeded, failed or cancelled and returns that. Adds up its steps into metrics (steps, duration_ms, tokens, cost_usd), to '
'which metrics are added last, and writes an audit record run.finished. A second call with the same status does nothing. Raises 42704 for '
'an unknown run, 55000 when it ended with another status, 22023 for a status that is not final, and 55P03, as all functions of a run, when '
'another transaction has it for ten seconds or lock_timeout. Example: SELECT skill_system.finish_run(7, ''ok'');';

CREATE FUNCTION skill_system.stuck_after() RETURNS interval
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'skill_stuck_after' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.stuck_after() IS
'Silence after which an unfinished run counts as stuck: the setting skill_system.stuck_after. Example: SELECT skill_system.stuck_after();';

-- Values that are not numbers, or out of range, are not counted: nothing that an agent
-- writes into a payload can make these views fail.
CREATE VIEW skill_system.run_steps WITH (security_invoker = true) AS
WITH raw AS (
    SELECT e.tenant_id, e.run_id, e.id AS event_id, e.ts AS completed_at,
           e.payload ->> 'skill' AS skill,
           e.payload ->> 'operation' AS operation,
           CASE pg_catalog.lower(e.payload ->> 'status')
               WHEN 'ok' THEN true WHEN 'success' THEN true WHEN 'succeeded' THEN true WHEN 'completed' THEN true
               WHEN 'error' THEN false WHEN 'failed' THEN false WHEN 'failure' THEN false
           END AS succeeded,
           COALESCE((e.payload -> 'metrics') ->> 'gen_ai.response.model', (e.payload -> 'metrics') ->> 'gen_ai.request.model') AS model,
           CASE WHEN pg_catalog.jsonb_typeof(e.payload -> 'duration_ms') = 'number' THEN (e.payload ->> 'duration_ms')::numeric END
               AS duration_ms,
           CASE WHEN pg_catalog.jsonb_typeof((e.payload -> 'metrics') -> 'gen_ai.usage.input_tokens') = 'number'
               THEN ((e.payload -> 'metrics') ->> 'gen_ai.usage.input_tokens')::numeric END AS input_tokens,
           CASE WHEN pg_catalog.jsonb_typeof((e.payload -> 'metrics') -> 'gen_ai.usage.output_tokens') = 'number'
               THEN ((e.payload -> 'metrics') ->> 'gen_ai.usage.output_tokens')::numeric END AS output_tokens,
           CASE WHEN pg_catalog.jsonb_typeof((e.payload -> 'metrics') -> 'cost_usd') = 'number'
               THEN ((e.payload -> 'metrics') ->> 'cost_usd')::numeric END AS cost_usd
    FROM skill_system.run_events e
    WHERE e.event_type = 'step_completed'
)
SELECT s.tenant_id, s.run_id, s.event_id, s.completed_at, r.agent_id, s.model, s.skill, s.operation, s.succeeded,
       CASE WHEN s.duration_ms BETWEEN 0 AND 1e15 THEN s.duration_ms END AS duration_ms,
       CASE WHEN s.input_tokens BETWEEN 0 AND 1e15 THEN s.input_tokens END AS input_tokens,
       CASE WHEN s.output_tokens BETWEEN 0 AND 1e15 THEN s.output_tokens END AS output_tokens,
       CASE WHEN s.cost_usd BETWEEN 0 AND 1e15 THEN s.cost_usd END AS cost_usd
FROM raw s LEFT JOIN skill_system.runs r ON r.tenant_id = s.tenant_id AND r.id = s.run_id;
COMMENT ON VIEW skill_system.run_steps IS
'Completed steps, one row each, with the numbers that run_stats adds up. Example: SELECT completed_at, agent_id, skill, duration_ms FROM '
'skill_system.run_steps ORDER BY completed_at DESC LIMIT 20;';
COMMENT ON COLUMN skill_system.run_steps.tenant_id IS 'Tenant of the run.';
COMMENT ON COLUMN skill_system.run_steps.run_id IS 'Run of the step.';
COMMENT ON COLUMN skill_system.run_steps.event_id IS 'Number of its event in run_events.';
COMMENT ON COLUMN skill_system.run_steps.completed_at IS 'When it was logged.';
COMMENT ON COLUMN skill_system.run_steps.agent_id IS 'Agent of the run.';
COMMENT ON COLUMN skill_system.run_steps.model IS 'gen_ai.response.model in the metrics of the step, else gen_ai.request.model.';
COMMENT ON COLUMN skill_system.run_steps.skill IS 'Skill, from the step''s payload.';
COMMENT ON COLUMN skill_system.run_steps.operation IS 'Operation of the skill, from the step''s payload.';
COMMENT ON COLUMN skill_system.run_steps.succeeded IS 'True for status ok, false for error, NULL for cancelled and others.';
COMMENT ON COLUMN skill_system.run_steps.duration_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN skill_system.run_steps.input_tokens IS 'gen_ai.usage.input_tokens in its metrics.';
COMMENT ON COLUMN skill_system.run_steps.output_tokens IS 'gen_ai.usage.output_tokens in its metrics.';
COMMENT ON COLUMN skill_system.run_steps.cost_usd IS 'cost_usd in its metrics.';

CREATE VIEW skill_system.run_stats WITH (security_invoker = true) AS
WITH step AS (
    SELECT s.tenant_id, s.skill, s.operation, (s.completed_at AT TIME ZONE 'UTC')::date AS day, s.succeeded AS good, s.duration_ms,
           s.input_tokens, s.output_tokens, s.cost_usd
    FROM skill_system.run_steps s
), summed AS (
    SELECT tenant_id, skill, operation, day,
           pg_catalog.count(*) AS count,
           pg_catalog.count(*) FILTER (WHERE good) AS succeeded,
           pg_catalog.count(*) FILTER (WHERE NOT good) AS failed,
           NULLIF(pg_catalog.count(good), 0)::double precision AS n,
           pg_catalog.percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_ms::double precision) AS p,
           pg_catalog.sum(input_tokens) AS input_tokens,
           pg_catalog.sum(output_tokens) AS output_tokens,
           pg_catalog.sum(cost_usd) AS cost_usd
    FROM step
    GROUP BY tenant_id, skill, operation, day
), rated AS (
    -- z for 95 percent, as in Wilson's formula.
    SELECT s.*, s.succeeded / s.n AS rate, 1.959963985 AS z
    FROM summed s
)
SELECT tenant_id, skill, operation, day, count, succeeded, failed,
       rate AS success_rate,
       (rate + z * z / (2 * n) - z * pg_catalog.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))) / (1 + z * z / n) AS success_rate_low,
       (rate + z * z / (2 * n) + z * pg_catalog.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))) / (1 + z * z / n) AS success_rate_high,
       p[1] AS p50_duration_ms, p[2] AS p95_duration_ms, p[3] AS p99_duration_ms,
       input_tokens, output_tokens, cost_usd
FROM rated;
COMMENT ON VIEW skill_system.run_stats IS
'Completed steps per skill, operation and day (UTC): how many, how well, how fast, at what cost. Example: SELECT skill, count, '
'success_rate, p95_duration_ms FROM skill_system.run_stats WHERE day = current_date;';
COMMENT ON COLUMN skill_system.run_stats.tenant_id IS 'Tenant of the runs.';
COMMENT ON COLUMN skill_system.run_stats.skill IS 'Skill, from the step''s payload.';
COMMENT ON COLUMN skill_system.run_stats.operation IS 'Operation of the skill, from the step''s payload.';
COMMENT ON COLUMN skill_system.run_stats.day IS 'Day of UTC on which the steps were logged.';
COMMENT ON COLUMN skill_system.run_stats.count IS 'Completed steps, cancelled ones and those without a status included.';
COMMENT ON COLUMN skill_system.run_stats.succeeded IS 'Steps with status ok.';
COMMENT ON COLUMN skill_system.run_stats.failed IS 'Steps with status error.';
COMMENT ON COLUMN skill_system.run_stats.success_rate IS 'succeeded / (succeeded + failed); NULL when none exist of either.';
COMMENT ON COLUMN skill_system.run_stats.success_rate_low IS 'Lower end of the 95 percent interval of the rate, by Wilson.';
COMMENT ON COLUMN skill_system.run_stats.success_rate_high IS 'Upper end of the 95 percent interval of the rate, by Wilson.';
COMMENT ON COLUMN skill_system.run_stats.p50_duration_ms IS 'Median of duration_ms, interpolated.';
COMMENT ON COLUMN skill_system.run_stats.p95_duration_ms IS '95th percentile of duration_ms.';
COMMENT ON COLUMN skill_system.run_stats.p99_duration_ms IS '99th percentile of duration_ms.';
COMMENT ON COLUMN skill_system.run_stats.input_tokens IS 'Sum of gen_ai.usage.input_tokens in the metrics of the steps.';
COMMENT ON COLUMN skill_system.run_stats.output_tokens IS 'Sum of gen_ai.usage.output_tokens in the metrics of the steps.';
COMMENT ON COLUMN skill_system.run_stats.cost_usd IS 'Sum of cost_usd in the metrics of the steps.';

CREATE VIEW skill_system.run_stats_by_agent WITH (security_invoker = true) AS
SELECT s.tenant_id, (s.completed_at AT TIME ZONE 'UTC')::date AS day, s.agent_id, s.model,
       pg_catalog.count(DISTINCT s.run_id) AS runs,
       pg_catalog.count(*) AS steps,
       pg_catalog.count(*) FILTER (WHERE s.succeeded) AS succeeded,
       pg_catalog.count(*) FILTER (WHERE NOT s.succeeded) AS failed,
       pg_catalog.sum(s.duration_ms) AS duration_ms,
       pg_catalog.sum(s.input_tokens) AS input_tokens,
       pg_catalog.sum(s.output_tokens) AS output_tokens,
       pg_catalog.sum(s.cost_usd) AS cost_usd
FROM skill_system.run_steps s
GROUP BY s.tenant_id, (s.completed_at AT TIME ZONE 'UTC')::date, s.agent_id, s.model;
COMMENT ON VIEW skill_system.run_stats_by_agent IS
'Completed steps per agent, model and day (UTC): how many, and at what cost. Example: SELECT day, agent_id, model, cost_usd FROM '
'skill_system.run_stats_by_agent ORDER BY cost_usd DESC NULLS LAST;';
COMMENT ON COLUMN skill_system.run_stats_by_agent.tenant_id IS 'Tenant of the runs.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.day IS 'Day of UTC on which the steps were logged.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.agent_id IS 'Agent of the runs; NULL when none was given.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.model IS
'gen_ai.response.model in the metrics of the steps, else gen_ai.request.model; NULL for steps without.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.runs IS 'Runs that these steps belong to.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.steps IS 'Completed steps, cancelled ones and those without a status included.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.succeeded IS 'Steps with status ok.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.failed IS 'Steps with status error.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.duration_ms IS 'Sum of the durations, in milliseconds.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.input_tokens IS 'Sum of gen_ai.usage.input_tokens in the metrics of the steps.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.output_tokens IS 'Sum of gen_ai.usage.output_tokens in the metrics of the steps.';
COMMENT ON COLUMN skill_system.run_stats_by_agent.cost_usd IS 'Sum of cost_usd in the metrics of the steps.';

CREATE VIEW skill_system.run_skill_versions WITH (security_invoker = true) AS
SELECT e.tenant_id, e.run_id, e.id AS event_id, e.ts, e.payload ->> 'skill' AS skill, e.payload ->> 'operation' AS operation,
    e.payload ->> 'status' AS status,
    e.skill_version_id, e.payload ->> 'skill_version' AS version, v.semver, v.status AS version_status, v.skill_id, h.namespace,
    h.skill_name
FROM skill_system.run_events e
LEFT JOIN skill_system.skill_versions v ON v.tenant_id OPERATOR(pg_catalog.=) e.tenant_id AND v.id OPERATOR(pg_catalog.=) e.skill_version_id
LEFT JOIN skill_system.skill_heads h ON h.tenant_id OPERATOR(pg_catalog.=) v.tenant_id AND h.id OPERATOR(pg_catalog.=) v.skill_id
WHERE e.skill_version_id IS NOT NULL;
COMMENT ON VIEW skill_system.run_skill_versions IS
'Steps of runs that used a registered skill, each with the exact version. For a version that was deleted permanently only its digits '
'remain. Example: SELECT run_id, operation, status FROM skill_system.run_skill_versions WHERE version = ''1f0c9a3be4d2'';';
COMMENT ON COLUMN skill_system.run_skill_versions.tenant_id IS 'Tenant of the run.';
COMMENT ON COLUMN skill_system.run_skill_versions.run_id IS 'Number of the run.';
COMMENT ON COLUMN skill_system.run_skill_versions.event_id IS 'Number of the event that is the step.';
COMMENT ON COLUMN skill_system.run_skill_versions.ts IS 'When.';
COMMENT ON COLUMN skill_system.run_skill_versions.skill IS 'The skill as the caller named it.';
COMMENT ON COLUMN skill_system.run_skill_versions.operation IS 'Operation that was run.';
COMMENT ON COLUMN skill_system.run_skill_versions.status IS 'Outcome: ok, error and the like.';
COMMENT ON COLUMN skill_system.run_skill_versions.skill_version_id IS 'UUID of the version.';
COMMENT ON COLUMN skill_system.run_skill_versions.version IS 'Its 12 digits.';
COMMENT ON COLUMN skill_system.run_skill_versions.semver IS 'Its semantic version.';
COMMENT ON COLUMN skill_system.run_skill_versions.version_status IS 'Its status now; NULL when it was deleted.';
COMMENT ON COLUMN skill_system.run_skill_versions.skill_id IS 'UUID of the skill.';
COMMENT ON COLUMN skill_system.run_skill_versions.namespace IS 'Namespace of the skill.';
COMMENT ON COLUMN skill_system.run_skill_versions.skill_name IS 'Name of the skill.';

CREATE VIEW skill_system.runs_in_progress WITH (security_invoker = true) AS
-- What claims to be of the future does not count as activity yet, and nothing that is stored makes the difference fail.
SELECT r.tenant_id, r.id, r.goal, r.agent_id, r.status, r.started_at, r.created_at, e.steps, a.last_activity_at,
       CASE WHEN pg_catalog.isfinite(a.last_activity_at) THEN pg_catalog.now() - a.last_activity_at END AS silent_for
FROM skill_system.runs r
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) FILTER (WHERE v.event_type = 'step_completed') AS steps,
           pg_catalog.max(v.ts) FILTER (WHERE v.ts <= pg_catalog.clock_timestamp()) AS last_ts
    FROM skill_system.run_events v WHERE v.tenant_id = r.tenant_id AND v.run_id = r.id
) e
CROSS JOIN LATERAL (
    SELECT GREATEST(LEAST(r.created_at, pg_catalog.now()),
        CASE WHEN r.started_at <= pg_catalog.clock_timestamp() THEN r.started_at END, e.last_ts) AS last_activity_at
) a
WHERE r.status IN ('queued', 'running');
COMMENT ON VIEW skill_system.runs_in_progress IS
'Runs that have not ended, with their completed steps and the time since their last activity. Example: SELECT id, goal, steps, silent_for '
'FROM skill_system.runs_in_progress ORDER BY silent_for DESC;';
COMMENT ON COLUMN skill_system.runs_in_progress.tenant_id IS 'Tenant of the run.';
COMMENT ON COLUMN skill_system.runs_in_progress.id IS 'Number of the run.';
COMMENT ON COLUMN skill_system.runs_in_progress.goal IS 'What it is for.';
COMMENT ON COLUMN skill_system.runs_in_progress.agent_id IS 'Which agent runs.';
COMMENT ON COLUMN skill_system.runs_in_progress.status IS 'queued or running.';
COMMENT ON COLUMN skill_system.runs_in_progress.started_at IS 'When it began.';
COMMENT ON COLUMN skill_system.runs_in_progress.created_at IS 'When its row was written.';
COMMENT ON COLUMN skill_system.runs_in_progress.steps IS 'Completed steps so far.';
COMMENT ON COLUMN skill_system.runs_in_progress.last_activity_at IS
'Time of its last event up to now, or of its start when none exists.';
COMMENT ON COLUMN skill_system.runs_in_progress.silent_for IS 'Time since last_activity_at.';

CREATE VIEW skill_system.stuck_runs WITH (security_invoker = true) AS
SELECT p.tenant_id, p.id, p.goal, p.agent_id, p.status, p.started_at, p.created_at, p.steps, p.last_activity_at, p.silent_for
FROM skill_system.runs_in_progress p
WHERE p.silent_for > skill_system.stuck_after();
COMMENT ON VIEW skill_system.stuck_runs IS
'Unfinished runs that have been silent for longer than the setting skill_system.stuck_after. End them with finish_run(id, ''failed'', '
'''lost''). Example: SELECT id, goal, silent_for FROM skill_system.stuck_runs;';
COMMENT ON COLUMN skill_system.stuck_runs.tenant_id IS 'Tenant of the run.';
COMMENT ON COLUMN skill_system.stuck_runs.id IS 'Number of the run.';
COMMENT ON COLUMN skill_system.stuck_runs.goal IS 'What it is for.';
COMMENT ON COLUMN skill_system.stuck_runs.agent_id IS 'Which agent runs.';
COMMENT ON COLUMN skill_system.stuck_runs.status IS 'queued or running.';
COMMENT ON COLUMN skill_system.stuck_runs.started_at IS 'When it began.';
COMMENT ON COLUMN skill_system.stuck_runs.created_at IS 'When its row was written.';
COMMENT ON COLUMN skill_system.stuck_runs.steps IS 'Completed steps so far.';
COMMENT ON COLUMN skill_system.stuck_runs.last_activity_at IS 'Time of its last event, or of its start when none exists.';
COMMENT ON COLUMN skill_system.stuck_runs.silent_for IS 'Time since last_activity_at.';

CREATE FUNCTION skill_system.run_otlp(run_id bigint) RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_run_otlp' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.run_otlp(bigint) IS
'A run as OTLP/JSON for any OpenTelemetry collector (POST to /v1/traces): the run is the root span invoke_agent, each completed step a '
'child span execute_tool, other events are span events. Ids are the same in every export. A trace is bounded: of payloads of more than '
'256 kB only skill, operation, status, duration_ms, metrics and error are kept, the others counted in droppedAttributesCount; events '
'beyond 128 MB are counted in skill_system.run.events_left_out. run_events has all. Raises 42704 for an unknown run. Example: SELECT '
'skill_system.run_otlp(7);';

CREATE FUNCTION skill_system.run_page(run_id bigint) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_run_page' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.run_page(bigint) IS
'A run as an HTML page that needs nothing else: steps on a time line, duration, tokens, cost, policy, other events, and for those who may '
'read the audit trail the denials of its policy while it went on. Shows 500 rows of each list at most, and the totals of all. Raises '
'42704 for an unknown run. Task 35: Show a run to people. Example: SELECT '
'skill_system.run_page(max(id)) FROM skill_system.runs;';

CREATE FUNCTION skill_system.import_legacy(schema_name text)
    RETURNS TABLE (table_name text, imported bigint, skipped bigint, detail text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_import_legacy' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.import_legacy(text) IS
'Imports the tables of the skill-system-postgres skill (version 1, 2 or migrated) into the session''s tenant and keeps their ids. First '
'ALTER SCHEMA skill_system RENAME TO skill_system_legacy; and CREATE EXTENSION skill_system;. Rules that are not valid here go to '
'metadata->''import_refused''; task specs and artifacts become events of their runs. Safe to repeat: existing rows are skipped. The schema '
'and its tables must belong to one role, with whose rights they are read: the code of casts, indexes or types does not get those of the '
'caller. Raises 42501 when the caller does not have the rights of that role, 42704 when the schema does not contain these tables, 55000 '
'when a table is not an ordinary one, a column has another type or an id is in use by a different row, 22023 when an id or a sequence is '
'beyond 9007199254740991. Superusers only. Example: SELECT * FROM skill_system.import_legacy(''skill_system_legacy'');';

GRANT USAGE ON TYPE skill_system.run_status
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT SELECT ON skill_system.runs, skill_system.run_events,
    skill_system.run_steps, skill_system.run_stats, skill_system.run_stats_by_agent, skill_system.runs_in_progress,
    skill_system.stuck_runs, skill_system.run_skill_versions
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
GRANT INSERT (goal, agent_id, policy_profile_id, task_spec_id, status, started_at, ended_at, effective_policy, metrics, error,
    idempotency_key),
      UPDATE (goal, agent_id, status, started_at, ended_at, metrics, error)
    ON skill_system.runs TO skill_system_agent;
GRANT INSERT (run_id, ts, level, event_type, payload, skill_version_id) ON skill_system.run_events TO skill_system_agent;
GRANT USAGE ON SEQUENCE skill_system.runs_id_seq, skill_system.run_events_id_seq TO skill_system_agent;

GRANT EXECUTE ON FUNCTION
    skill_system.log_run(text, text, text, double precision, text, text, text, text, jsonb, jsonb, text),
    skill_system.start_run(text, text, text, jsonb, text), skill_system.log_event(bigint, text, jsonb, text),
    skill_system.log_step(bigint, text, text, text, double precision, jsonb, jsonb), skill_system.log_events(bigint, jsonb),
    skill_system.finish_run(bigint, text, text, jsonb)
    TO skill_system_agent;
GRANT EXECUTE ON FUNCTION skill_system.stuck_after(), skill_system.run_otlp(bigint), skill_system.run_page(bigint)
    TO skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin;
