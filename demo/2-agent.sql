-- A table whose changes go to the audit trail, and the role of an agent.
CREATE TABLE public.filings (
    id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    form   text NOT NULL,
    well   text NOT NULL,
    status text NOT NULL DEFAULT 'draft'
);
SELECT skill_system.audit_table('public.filings') \g /dev/null
SELECT 'CREATE ROLE demo_agent LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'demo_agent') \gexec
GRANT skill_system_agent TO demo_agent;
GRANT SELECT, INSERT, UPDATE ON public.filings TO demo_agent;

\echo
\echo '#### 4. An agent logs in: a role that has skill_system_agent and nothing else'
\echo
\connect - demo_agent
\echo 'It asks before it acts:'
SELECT decision, blocked_effects, reason
FROM skill_system.check_policy('filing', array['db.read', 'db.write:public.filings', 'fs.write:/srv/filings/w1.pdf']);
SELECT decision AS expected_allow FROM skill_system.check_policy('filing', '["db.read", "db.write:public.filings"]') \gset
SELECT :'expected_allow' = 'allow' AS as_expected \gset
\if :as_expected
\else
    DO $$ BEGIN RAISE 'the agent may not write its table'; END $$;
\endif
\echo 'A path that leaves its directory, a program, and a host that no rule names:'
SELECT effect, verdict, winning_rule, reason
FROM skill_system.explain_policy('filing', array['fs.write:/srv/filings/../../etc/passwd', 'proc.exec:rm', 'net.fetch:evil.example.net',
                                                'fs.write:/srv/filings/archive/2024.pdf', 'db.write:public.wells']);
\echo 'enforce_policy() raises an error, so a transaction that must not go on ends:'
\set ON_ERROR_STOP off
SELECT skill_system.enforce_policy('filing', array['proc.exec:rm']);
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' = '42501' AS refused \gset
\if :refused
\else
    DO $$ BEGIN RAISE 'the denied effect was not refused with 42501'; END $$;
\endif

\echo
\echo 'It does its work and logs it, step by step:'
SELECT skill_system.start_run('File form W-1 for well 42-501-20130', 'filing', 'rule37-agent') AS run_id \gset
SELECT skill_system.log_step(:run_id, 'well-data', 'look-up', 'ok', 38) \g /dev/null
INSERT INTO public.filings (form, well) VALUES ('W-1', '42-501-20130');
SELECT skill_system.log_step(:run_id, 'w1-form', 'fill-in', 'ok', 2140,
    metrics => '{"gen_ai.usage.input_tokens": 3120, "gen_ai.usage.output_tokens": 410, "cost_usd": 0.0155}') \g /dev/null
UPDATE public.filings SET status = 'sent' WHERE form = 'W-1';
SELECT skill_system.log_step(:run_id, 'w1-form', 'send', 'ok', 655) \g /dev/null
SELECT skill_system.append_audit('form.sent', '{"form": "W-1", "well": "42-501-20130"}', 'rule37-agent', 'agent') \g /dev/null
SELECT skill_system.finish_run(:run_id, 'succeeded') AS run_ended_as;
\echo 'Two small jobs, each in one call; the second fails:'
SELECT skill_system.log_run('skill-system', 'check-policy', 'ok', 3, agent_id => 'rule37-agent',
           metrics => '{"gen_ai.usage.input_tokens": 540, "gen_ai.usage.output_tokens": 61, "cost_usd": 0.0025}') AS first,
       skill_system.log_run('w1-form', 'send', 'error', 5003, agent_id => 'rule37-agent', error => 'timeout') AS second;
SELECT id, status, goal, metrics ->> 'steps' AS steps, metrics ->> 'duration_ms' AS ms,
       metrics ->> 'gen_ai.usage.input_tokens' AS tokens_in, error
FROM skill_system.runs ORDER BY id;
