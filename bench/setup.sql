-- What make bench compares: the extension and hand-written tables, in one database.
CREATE EXTENSION skill_system;
CREATE EXTENSION pgcrypto;
SELECT * FROM skill_system.maintain();


DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bench_agent') THEN CREATE ROLE bench_agent LOGIN; END IF;
END $$;
GRANT skill_system_agent TO bench_agent;
CREATE SCHEMA bench;
GRANT USAGE ON SCHEMA bench TO bench_agent;

-- 1. The audit table without signing and protection: same columns, partitions and indexes; what the
-- server knows comes from defaults, as in any unsigned audit table.
CREATE FUNCTION bench.make_audit(name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month text := to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY-MM');
BEGIN
    EXECUTE format($t$
        CREATE TABLE bench.%1$I (
            id uuid NOT NULL DEFAULT gen_random_uuid(), tenant_id text NOT NULL DEFAULT 'default', event_type varchar(100) NOT NULL,
            event_data jsonb NOT NULL, actor_id varchar(100), actor_type varchar(20) DEFAULT 'system',
            created_at timestamptz NOT NULL DEFAULT now(), signature varchar(256),
                recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint, session_user_name text NOT NULL DEFAULT session_user,
            current_user_name text NOT NULL DEFAULT current_user, key_id text NOT NULL DEFAULT 'none') PARTITION BY RANGE (created_at);
        CREATE TABLE bench.%2$I PARTITION OF bench.%1$I DEFAULT;
        ALTER TABLE bench.%2$I ADD PRIMARY KEY (id, tenant_id);
        CREATE INDEX ON bench.%2$I USING brin (created_at, transaction_id);
        GRANT INSERT, SELECT ON bench.%1$I TO bench_agent$t$, name, name || '_default');
END $$;
SELECT bench.make_audit('audit_plain'), bench.make_audit('audit_plpgsql'), bench.make_audit('audit_chain');

-- 2. PL/pgSQL and pgcrypto: a signature over the row's text.
CREATE FUNCTION bench.sign_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.signature := encode(hmac(concat_ws('|', NEW.id, NEW.tenant_id, NEW.event_type, NEW.event_data, NEW.actor_id, NEW.actor_type,
        NEW.created_at, NEW.recorded_at, NEW.transaction_id, NEW.session_user_name, NEW.current_user_name, NEW.key_id),
        '0123456789abcdef0123456789abcdef', 'sha256'), 'hex');
    RETURN NEW;
END $$;
CREATE TRIGGER sign BEFORE INSERT ON bench.audit_plpgsql FOR EACH ROW EXECUTE FUNCTION bench.sign_row();

-- 3. A hash chain for each of 64 tenants, its head locked until commit.
CREATE TABLE bench.heads (tenant_id text PRIMARY KEY, hash text NOT NULL) WITH (fillfactor = 20);
INSERT INTO bench.heads SELECT 't' || g, '' FROM generate_series(1, 64) g;
CREATE FUNCTION bench.chain_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    before text;
BEGIN
    SELECT hash INTO before FROM bench.heads WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    NEW.signature := encode(sha256(convert_to(concat_ws('|', before, NEW.id, NEW.tenant_id, NEW.event_type, NEW.event_data, NEW.actor_id,
        NEW.actor_type, NEW.created_at, NEW.recorded_at, NEW.transaction_id, NEW.session_user_name, NEW.current_user_name), 'UTF8')),
            'hex');
    UPDATE bench.heads SET hash = NEW.signature WHERE tenant_id = NEW.tenant_id;
    RETURN NEW;
END $$;
CREATE TRIGGER chain BEFORE INSERT ON bench.audit_chain FOR EACH ROW EXECUTE FUNCTION bench.chain_row();

-- 4. Change capture: the usual generic trigger with its own table.
CREATE TABLE bench.changes (
    id bigserial PRIMARY KEY, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), table_name text NOT NULL, operation text NOT NULL,
    session_user_name text NOT NULL DEFAULT session_user, transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    old_row jsonb, new_row jsonb);
CREATE FUNCTION bench.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO bench.changes (table_name, operation, old_row, new_row)
        VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP, to_jsonb(OLD), to_jsonb(NEW));
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO bench.changes (table_name, operation, old_row) VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP, to_jsonb(OLD));
    ELSE
        INSERT INTO bench.changes (table_name, operation, new_row) VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION bench.make_wells(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($t$
        CREATE TABLE bench.%1$I (id int PRIMARY KEY, api_number text, operator text, depth numeric(10,2), active boolean, spud_date date,
            updated_at timestamptz, counter int NOT NULL DEFAULT 0) WITH (fillfactor = 50);
        INSERT INTO bench.%1$I SELECT g, '42-' || g, 'Operator ' || g %% 50, g * 1.25, g %% 2 = 0, date '2000-01-01' + g %% 9000, now()
            FROM generate_series(1, 100000) g;
        GRANT SELECT, UPDATE ON bench.%1$I TO bench_agent$t$, name);
END $$;
SELECT bench.make_wells('wells_plain'), bench.make_wells('wells_plpgsql'), bench.make_wells('wells_audited');
CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON bench.wells_plpgsql FOR EACH ROW EXECUTE FUNCTION bench.capture();
SELECT skill_system.audit_table('bench.wells_audited');

-- 5. Runs: the same rows by one hand-written statement into plain tables with the same indexes and keys.
CREATE TABLE bench.runs (LIKE skill_system.runs INCLUDING ALL);
CREATE TABLE bench.run_events (LIKE skill_system.run_events INCLUDING ALL);
ALTER TABLE bench.run_events ADD FOREIGN KEY (tenant_id, run_id) REFERENCES bench.runs (tenant_id, id) ON DELETE CASCADE;
SELECT bench.make_audit('run_audit');
GRANT SELECT, INSERT ON bench.runs, bench.run_events TO bench_agent;
GRANT USAGE ON SEQUENCE skill_system.runs_id_seq, skill_system.run_events_id_seq TO bench_agent;

-- 6. A policy of 50 rules, and 200,000 different requests of three effects.
SELECT skill_system.create_policy('bench',
    allow => ARRAY['db.read', 'db.write:public.*', 'fs.read', 'git.*', 'net.fetch:api.github.com']
             || ARRAY(SELECT 'fs.write:/srv/app' || g || '/**' FROM generate_series(1, 20) g)
             || ARRAY(SELECT 'net.fetch:host' || g || '.example.com' FROM generate_series(1, 10) g),
    ask => ARRAY(SELECT 'db.write:schema' || g || '.*' FROM generate_series(1, 5) g),
    deny => ARRAY['proc.exec:sudo', 'fs.*:/etc/**', 'db.*:pg_catalog.*']
            || ARRAY(SELECT 'fs.write:/srv/secret' || g || '/**' FROM generate_series(1, 7) g));
CREATE TABLE bench.requests AS
    SELECT ARRAY['db.read:public.t' || g, 'fs.write:/srv/app' || 1 + g % 20 || '/dir/file' || g, 'net.fetch:api.github.com'] AS effects
    FROM generate_series(1, 200000) g;
GRANT SELECT ON bench.requests TO bench_agent;
VACUUM ANALYZE;
