-- The rules. First part of the demo, run as superuser.
\pset format wrapped
\pset columns 98
\pset footer off
\pset null '-'
SET client_min_messages = warning;

\echo
\echo '#### 1. An extension in an existing database'
\echo
\echo 'CREATE EXTENSION skill_system;'
CREATE EXTENSION skill_system;
SELECT library, server, pgrx, advice FROM skill_system.version_info();
\echo 'Maintenance, to be called once a day; it creates the partitions of the audit trail:'
SELECT * FROM skill_system.maintain();

\echo
\echo '#### 2. Policies: what a skill may do'
\echo
\echo 'Three starter policies, and one for an agent that files permits:'
SELECT name FROM skill_system.install_starter_policies() WHERE installed;
SELECT skill_system.create_policy('filing',
    allow => '{db.read,db.write:public.filings,fs.read,fs.write:/srv/filings/**,net.fetch:api.example.org}',
    ask   => '{db.write:public.wells,git.write}',
    deny  => '{proc.exec,fs.write:/srv/filings/archive/**}',
    metadata => '{"description": "Prepares permit filings"}') AS filing_policy_id \gset
SELECT verdict, string_agg(rule, '  ' ORDER BY rule) AS rules
FROM skill_system.effective_policy('filing') WHERE kind = 'effect' GROUP BY verdict
ORDER BY array_position('{deny,ask,allow}', verdict);

\echo
\echo '#### 3. A skill declares its effects: the SKILL.md of this extension'
\echo
\set content `cat SKILL.md`
CREATE TABLE public.skill_files (name text PRIMARY KEY, manifest jsonb NOT NULL);
INSERT INTO public.skill_files
SELECT manifest ->> 'id', manifest
FROM (SELECT split_part(split_part(:'content', E'```skill-manifest\n', 2), E'\n```', 1)::jsonb AS manifest) AS s;
SELECT name, manifest ->> 'version' AS version, manifest -> 'effects' AS effects,
       (SELECT string_agg(o, ', ') FROM jsonb_object_keys(manifest -> 'operations') AS o) AS operations
FROM public.skill_files;
\echo 'May it run? The same effects under four policies:'
SELECT p.name AS policy, c.decision, c.allowed, c.blocked_effects, c.ask_effects
FROM unnest('{dev,readonly,locked,filing}'::text[]) WITH ORDINALITY AS p(name, n),
     public.skill_files AS s,
     LATERAL skill_system.check_policy(p.name, s.manifest -> 'effects') AS c
ORDER BY p.n;
-- The demo fails unless the table shows the expected rows.
DO $$
BEGIN
    ASSERT (SELECT array_agg((skill_system.check_policy(p, manifest -> 'effects')).decision ORDER BY n) = '{allow,deny,deny,ask}'
            FROM public.skill_files, unnest('{dev,readonly,locked,filing}'::text[]) WITH ORDINALITY AS t(p, n)),
           'the four policies do not decide as expected';
END
$$;
