"""health() names what is broken, cannot fail itself, and its hints heal: a hundred breakages."""

import re
import time

import psycopg
import pytest
from psycopg import sql

from cluster import MONTH, until, without_months

REPAIR = "SELECT * FROM skill_system.repair()"
S = "skill_system"

# What breaks, the check that names it, and what heals when it is not repair().
BREAKAGES = {
    "rights of a role": ("DROP OWNED BY skill_system_agent", "privileges"),
    "rights of two roles": ("DROP OWNED BY skill_system_reviewer, skill_system_auditor", "privileges"),
    "a right on a function": (f"REVOKE EXECUTE ON FUNCTION {S}.log_run FROM skill_system_agent", "privileges"),
    "a right on a column": (f"REVOKE INSERT (event_type) ON {S}.audit_logs FROM skill_system_agent", "privileges"),
    "a right on the schema": (f"REVOKE USAGE ON SCHEMA {S} FROM skill_system_admin", "privileges"),
    "a right on a type": (f"REVOKE USAGE ON TYPE {S}.policy_decision FROM skill_system_agent", "privileges"),
    "a right on a sequence": (
        f"REVOKE ALL ON SEQUENCE {S}.policy_profiles_id_seq FROM skill_system_admin",
        "privileges",
    ),
    "a right on a month": (f"REVOKE SELECT ON {S}.audit_logs_default FROM skill_system_auditor", "privileges"),
    "all to everybody": (f"GRANT ALL ON {S}.audit_logs TO PUBLIC", "privileges"),
    "reading to everybody": (f"GRANT SELECT ON {S}.runs TO PUBLIC", "privileges"),
    "a function to everybody": (f"GRANT EXECUTE ON FUNCTION {S}.create_keyring() TO PUBLIC", "privileges"),
    "locks by DELETE": (f"GRANT DELETE ON {S}.policy_profiles TO skill_system_admin", "privileges"),
    "writing to another role": (f"GRANT INSERT ON {S}.audit_state TO pg_monitor", "privileges"),
    "a policy that leaks": (f"CREATE POLICY leak ON {S}.runs USING (true)", "row_security"),
    "a policy that hides": (f"CREATE POLICY hide ON {S}.runs AS RESTRICTIVE USING (false)", "row_security"),
    "a policy altered": (f"ALTER POLICY tenant ON {S}.runs USING (true)", "row_security"),
    "a policy for others": (f"ALTER POLICY auditor ON {S}.runs TO PUBLIC", "row_security"),
    "a policy dropped": (f"DROP POLICY tenant ON {S}.runs", "row_security"),
    "the policy of writers dropped": (f"DROP POLICY append ON {S}.audit_logs", "row_security"),
    "row security off": (f"ALTER TABLE {S}.runs DISABLE ROW LEVEL SECURITY", "row_security"),
    "row security forced": (f"ALTER TABLE {S}.audit_kept FORCE ROW LEVEL SECURITY", "row_security"),
    "a table renamed": (f"ALTER TABLE {S}.agent_definitions RENAME TO x", "objects"),
    "a view dropped": (f"ALTER EXTENSION {S} DROP VIEW {S}.stuck_runs; DROP VIEW {S}.stuck_runs", "stuck_runs"),
    "a view that lends rights": (f"ALTER VIEW {S}.stuck_runs RESET (security_invoker)", "objects"),
    "an index dropped": (f"DROP INDEX {S}.skill_history_skill", "objects"),
    "an index not valid": (
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{S}.skill_history_skill'::regclass",
        "objects",
    ),
    "a trigger off": (f"ALTER TABLE {S}.runs DISABLE TRIGGER USER", "objects"),
    "the signing trigger off": (f"ALTER TABLE {S}.audit_logs DISABLE TRIGGER audit_logs_sign", "audit_protection"),
    "a trigger dropped": (f"DROP TRIGGER audit_map_no_change ON {S}.audit_map", "audit_protection"),
    "a trigger for the origin only": (
        f"ALTER TABLE {S}.audit_map ENABLE TRIGGER audit_map_no_change",
        "audit_protection",
    ),
    "a trigger of another role": (
        "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        f"CREATE TRIGGER a BEFORE INSERT ON {S}.audit_logs FOR EACH ROW EXECUTE FUNCTION public.swallow()",
        "audit_protection",
    ),
    "a rule": (f"CREATE RULE r AS ON INSERT TO {S}.audit_kept DO INSTEAD NOTHING", "audit_protection"),
    "a function replaced": (
        f"CREATE OR REPLACE FUNCTION {S}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "audit_protection",
    ),
    "a function with other rights": (f"ALTER FUNCTION {S}.health() SECURITY DEFINER", "audit_protection"),
    "a function added": (f"CREATE FUNCTION {S}.mine() RETURNS int LANGUAGE sql RETURN 1", "audit_protection"),
    "a function out of the extension": (f"ALTER EXTENSION {S} DROP FUNCTION {S}.health()", "audit_protection"),
    "a month detached": (f"ALTER TABLE {S}.audit_logs DETACH PARTITION {S}.audit_logs_default", "audit_protection"),
    "a table unlogged": (f"ALTER TABLE {S}.audit_checkpoints SET UNLOGGED", "audit_protection"),
    "an owner": (f"ALTER TABLE {S}.runs OWNER TO pg_monitor", "objects"),
    "a role that is superuser": ("ALTER ROLE skill_system_agent SUPERUSER", "roles"),
    "a role that sees all": ("ALTER ROLE skill_system_agent BYPASSRLS", "roles"),
    "a table that is not dumped": (
        f"UPDATE pg_extension SET extconfig = extconfig[2:], extcondition = extcondition[2:] WHERE extname = '{S}'",
        "dump_marking",
    ),
    "the identity emptied": (
        f"ALTER TABLE {S}.audit_state DISABLE TRIGGER USER; DELETE FROM {S}.audit_state; "
        f"ALTER TABLE {S}.audit_state ENABLE ALWAYS TRIGGER audit_state_no_change; "
        f"ALTER TABLE {S}.audit_state ENABLE ALWAYS TRIGGER audit_state_no_truncate",
        "audit_seal",
    ),
    "the state of the seal emptied": (
        f"ALTER TABLE {S}.audit_seal_state DISABLE TRIGGER USER; DELETE FROM {S}.audit_seal_state; "
        f"ALTER TABLE {S}.audit_seal_state ENABLE ALWAYS TRIGGER audit_seal_state_no_change; "
        f"ALTER TABLE {S}.audit_seal_state ENABLE ALWAYS TRIGGER audit_seal_state_no_truncate",
        "audit_seal",
        f"SELECT * FROM {S}.adopt_log('the state was emptied'); SELECT {S}.audit_checkpoint()",
    ),
    "no checkpoint": (
        f"ALTER TABLE {S}.audit_checkpoints DISABLE TRIGGER USER; DELETE FROM {S}.audit_checkpoints; "
        f"ALTER TABLE {S}.audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_no_change; "
        f"ALTER TABLE {S}.audit_checkpoints ENABLE ALWAYS TRIGGER audit_checkpoints_no_truncate",
        "checkpoints",
        f"SELECT {S}.audit_checkpoint()",
    ),
}

SWALLOW = "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "

# Each part of what the extension created: gone, changed, renamed, or joined by another one.
PARTS = {
    "everybody creates in the schema": (f"GRANT CREATE ON SCHEMA {S} TO PUBLIC", "privileges"),
    "another role creates in the schema": (f"GRANT CREATE ON SCHEMA {S} TO pg_monitor", "privileges"),
    "a group creates in the schema": (f"GRANT CREATE ON SCHEMA {S} TO skill_system_agent", "privileges"),
    "a right that is handed on": (
        f"GRANT SELECT ON {S}.audit_logs TO skill_system_auditor WITH GRANT OPTION",
        "privileges",
    ),
    "what is for superusers": (f"GRANT EXECUTE ON FUNCTION {S}.create_keyring() TO pg_monitor", "privileges"),
    "a rule on the history": (f"CREATE RULE r AS ON INSERT TO {S}.policy_versions DO INSTEAD NOTHING", "objects"),
    "a rule on runs": (f"CREATE RULE r AS ON UPDATE TO {S}.runs DO ALSO NOTHING", "objects"),
    "a trigger on runs": (
        f"{SWALLOW} CREATE TRIGGER a BEFORE INSERT ON {S}.runs FOR EACH ROW EXECUTE FUNCTION public.swallow()",
        "objects",
    ),
    "a trigger in the place of another": (
        f"{SWALLOW} CREATE OR REPLACE TRIGGER a_bounds BEFORE INSERT ON {S}.runs FOR EACH ROW "
        "EXECUTE FUNCTION public.swallow()",
        "objects",
    ),
    "a trigger with a condition": (
        f"CREATE OR REPLACE TRIGGER a_bounds BEFORE INSERT OR UPDATE ON {S}.runs FOR EACH ROW WHEN (false) "
        f"EXECUTE FUNCTION {S}.check_bounds()",
        "objects",
    ),
    "a trigger of the origin": (f"ALTER TABLE {S}.runs ENABLE TRIGGER runs_final", "objects"),
    "a trigger renamed": (f"ALTER TRIGGER a_bounds ON {S}.runs RENAME TO z_bounds", "objects"),
    "a key dropped": (f"ALTER TABLE {S}.runs DROP CONSTRAINT runs_pkey CASCADE", "objects"),
    "a key renamed": (f"ALTER TABLE {S}.runs RENAME CONSTRAINT runs_pkey TO k", "objects"),
    "a reference dropped": (
        f"ALTER TABLE {S}.run_events DROP CONSTRAINT run_events_tenant_id_run_id_fkey",
        "objects",
    ),
    "a check dropped": (f"ALTER TABLE {S}.skill_heads DROP CONSTRAINT skill_heads_skill_name_check", "objects"),
    "a check that lets nothing in": (f"ALTER TABLE {S}.runs ADD CHECK (false) NOT VALID", "objects"),
    "a reference that lets nothing in": (
        f"CREATE TABLE public.none (id bigint PRIMARY KEY); "
        f"ALTER TABLE {S}.runs ADD FOREIGN KEY (id) REFERENCES public.none NOT VALID",
        "objects",
    ),
    "a unique index": (f"CREATE UNIQUE INDEX once ON {S}.runs (goal)", "objects"),
    "an index with another definition": (
        f"DROP INDEX {S}.skill_history_skill; CREATE INDEX skill_history_skill ON {S}.skill_history (tenant_id)",
        "objects",
    ),
    "an index renamed": (f"ALTER INDEX {S}.skill_history_skill RENAME TO x", "objects"),
    "a table out of the extension": (f"ALTER EXTENSION {S} DROP TABLE {S}.runs", "objects"),
    "a view out of the extension": (f"ALTER EXTENSION {S} DROP VIEW {S}.stuck_runs", "objects"),
    "a sequence out of the extension": (f"ALTER EXTENSION {S} DROP SEQUENCE {S}.runs_id_seq", "objects"),
    "a type out of the extension": (f"ALTER EXTENSION {S} DROP TYPE {S}.policy_decision", "objects"),
    "a table into the extension": (f"CREATE TABLE public.x (); ALTER EXTENSION {S} ADD TABLE public.x", "objects"),
    "a status renamed": (f"ALTER TYPE {S}.run_status RENAME VALUE 'failed' TO 'fine'", "objects"),
    "a type renamed": (f"ALTER TYPE {S}.run_status RENAME TO x", "objects"),
    "a sequence renamed": (f"ALTER SEQUENCE {S}.runs_id_seq RENAME TO x", "objects"),
    "a view renamed": (f"ALTER VIEW {S}.stuck_runs RENAME TO x", "objects"),
    "a view with another query": (
        f"CREATE OR REPLACE VIEW {S}.audit_legal_holds WITH (security_invoker = true) AS SELECT 1::bigint AS hold_id, "
        "now() AS since, now() AS until, '' AS reason, '' AS set_by, now() AS set_at, now() AS released_at, "
        "'' AS released_by, '' AS release_reason",
        "objects",
    ),
    "a column that may be NULL": (f"ALTER TABLE {S}.policy_versions ALTER name DROP NOT NULL", "objects"),
    "a column that must not be NULL": (f"ALTER TABLE {S}.runs ALTER error SET NOT NULL", "objects"),
    "a default changed": (f"ALTER TABLE {S}.runs ALTER status SET DEFAULT 'succeeded'", "objects"),
    "a default dropped": (f"ALTER TABLE {S}.runs ALTER tenant_id DROP DEFAULT", "objects"),
    "a default added": (f"ALTER TABLE {S}.runs ALTER error SET DEFAULT 'x'", "objects"),
    "a column added": (
        f"ALTER TABLE {S}.runs ADD x text DEFAULT 'y' NOT NULL",
        "objects",
        f"ALTER TABLE {S}.runs DROP x",
    ),
    "a column renamed": (f"ALTER TABLE {S}.runs RENAME agent_id TO x", "objects"),
    "a column of another type": (
        f"ALTER TABLE {S}.skill_namespaces ADD x text; ALTER TABLE {S}.audit_checkpoints ALTER note TYPE varchar",
        "objects",
        f"ALTER TABLE {S}.skill_namespaces DROP x; ALTER TABLE {S}.audit_checkpoints ALTER note TYPE text",
    ),
    "a child": (f"CREATE TABLE public.kid () INHERITS ({S}.run_events)", "objects"),
    "a parent": (
        f"CREATE TABLE public.up (id bigint NOT NULL); ALTER TABLE {S}.runs INHERIT public.up",
        "objects",
    ),
    "a table added": (f"CREATE TABLE {S}.mine (a int)", "objects", f"DROP TABLE {S}.mine"),
    "a view added": (f"CREATE VIEW {S}.mine AS SELECT 1 AS a", "objects", f"DROP VIEW {S}.mine"),
    "a type added": (f"CREATE TYPE {S}.mine AS ENUM ('a')", "objects", f"DROP TYPE {S}.mine"),
    "a sequence set back": (
        f"SELECT {S}.log_run('s', 'o', 'ok'), {S}.log_run('s', 'o', 'ok'); ALTER SEQUENCE {S}.runs_id_seq RESTART",
        "objects",
    ),
    "a sequence of policies set back": (f"SELECT setval('{S}.policy_profiles_id_seq', 1, false)", "objects"),
    "a sequence that ends": (f"ALTER SEQUENCE {S}.run_events_id_seq MAXVALUE 1000 CYCLE", "objects"),
    "a sequence that goes down": (f"ALTER SEQUENCE {S}.run_events_id_seq INCREMENT BY -1", "objects"),
    "a function renamed": (f"ALTER FUNCTION {S}.current_tenant() RENAME TO ct", "objects"),
    "a function renamed, and another one in its place": (
        f"ALTER FUNCTION {S}.current_tenant() RENAME TO ct; CREATE FUNCTION {S}.current_tenant() RETURNS text "
        "LANGUAGE c STABLE PARALLEL SAFE AS '$libdir/skill_system', 'skill_current_tenant'",
        "objects",
    ),
    "a function added to the extension": (
        f"CREATE FUNCTION {S}.uuid_v7(int) RETURNS int LANGUAGE sql RETURN 1; ALTER EXTENSION {S} ADD FUNCTION {S}.uuid_v7(int)",
        "objects",
    ),
    "a function with arguments renamed": (f"ALTER FUNCTION {S}.append_audit RENAME TO aa", "objects"),
    "a trigger function renamed": (f"ALTER FUNCTION {S}.refuse_change() RENAME TO rc", "objects"),
    "a function that leaks": (f"ALTER FUNCTION {S}.current_tenant() LEAKPROOF", "objects"),
    "a function that is not asked again": (f"ALTER FUNCTION {S}.current_tenant() IMMUTABLE", "objects"),
    "a role that logs in": ("ALTER ROLE skill_system_agent LOGIN", "roles"),
    "a role that creates roles": ("ALTER ROLE skill_system_agent CREATEROLE", "roles"),
    "a role in another one of the four": ("GRANT skill_system_admin TO skill_system_agent", "roles"),
    "a role above a predefined one": (
        "DROP ROLE IF EXISTS between; CREATE ROLE between; GRANT pg_read_all_data TO between; "
        "GRANT between TO skill_system_reviewer",
        "roles",
    ),
}
PARTS |= {
    f"the predefined role {role}": (f"GRANT {role} TO skill_system_agent", "roles")
    for role in (
        "pg_execute_server_program",
        "pg_read_server_files",
        "pg_write_server_files",
        "pg_write_all_data",
        "pg_read_all_data",
    )
}


@pytest.fixture(scope="module")
def whole(fresh_database, connect_to):
    """A log that is in order, of which each breakage gets a copy."""
    name = fresh_database()
    with connect_to(name) as connection:
        connection.execute("SELECT FROM skill_system.maintain()")
        connection.execute("SELECT skill_system.install_starter_policies()")
        connection.execute("SELECT skill_system.append_audit('x', '{}')")
        connection.execute("SELECT FROM skill_system.seal_audit()")
    return name


@pytest.fixture(scope="module")
def connect_to():
    from conftest import open_connection

    return lambda name: open_connection(dbname=name)


@pytest.fixture
def broken(whole, connect_to):
    name = f"{whole}_broken"
    with connect_to("postgres") as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(whole)))
    connection = connect_to(name)
    # A copy is another database, so it says that it is now the log.
    connection.execute("SELECT FROM skill_system.adopt_log('a copy')")
    connection.execute("SELECT skill_system.audit_checkpoint()")
    connection.execute("SET skill_system.allow_unprotected = on")
    yield connection
    connection.close()
    with connect_to("postgres") as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def unhealthy(connection):
    found = connection.execute(
        "SELECT \"check\", detail, hint FROM skill_system.health() WHERE status <> 'ok'"
    ).fetchall()
    # The session itself, and the server, are as the test needs them.
    return {check: (detail, hint) for check, detail, hint in found if check != "utility_guard"}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_breakage_is_named_and_its_hint_heals(breakage, broken):
    statement, check, *heal = BREAKAGES[breakage]
    assert unhealthy(broken) == {}
    broken.execute(statement)
    found = unhealthy(broken)
    assert check in found, found
    # A new session does the repair: nothing depends on what this one remembers.
    with psycopg.connect(broken.info.dsn, autocommit=True) as healer:
        if heal:
            for one in heal[0].split("; "):
                healer.execute(one)
        else:
            assert "repair()" in " ".join(hint for _, hint in found.values()), found
            done = healer.execute(REPAIR).fetchall()
            assert done and all(result == "done" for _, result in done), done
    assert unhealthy(broken) == {}
    assert broken.execute(REPAIR).fetchall() == []
    # It works again.
    broken.execute("SELECT skill_system.append_audit('after', '{}')")
    broken.execute("SELECT FROM skill_system.seal_audit()")
    assert broken.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []


PROTECT = "skill_system_protect_children"
BREAKAGES |= {
    f"the event trigger {how}": (statement, check)
    for how, statement, check in (
        ("disabled", f"ALTER EVENT TRIGGER {PROTECT} DISABLE", "audit_protection"),
        ("for the origin only", f"ALTER EVENT TRIGGER {PROTECT} ENABLE", "audit_protection"),
        ("for replicas only", f"ALTER EVENT TRIGGER {PROTECT} ENABLE REPLICA", "audit_protection"),
        ("renamed", f"ALTER EVENT TRIGGER {PROTECT} RENAME TO z", "audit_protection"),
        (
            "dropped",
            f"ALTER EXTENSION {S} DROP EVENT TRIGGER {PROTECT}; DROP EVENT TRIGGER {PROTECT}",
            "audit_protection",
        ),
        ("out of the extension", f"ALTER EXTENSION {S} DROP EVENT TRIGGER {PROTECT}", "objects"),
        (
            "replaced",
            f"ALTER EXTENSION {S} DROP EVENT TRIGGER {PROTECT}; DROP EVENT TRIGGER {PROTECT}; "
            "CREATE FUNCTION public.idle() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
            f"CREATE EVENT TRIGGER {PROTECT} ON ddl_command_end EXECUTE FUNCTION public.idle()",
            "audit_protection",
        ),
        ("with other tags", "UPDATE pg_event_trigger SET evttags = '{CREATE SCHEMA}'", "objects"),
        ("without tags", "UPDATE pg_event_trigger SET evttags = NULL", "objects"),
        ("of another event", "UPDATE pg_event_trigger SET evtevent = 'sql_drop'", "audit_protection"),
        ("disabled in the catalogue", "UPDATE pg_event_trigger SET evtenabled = 'D'", "audit_protection"),
        ("deleted from the catalogue", "DELETE FROM pg_event_trigger", "audit_protection"),
        (
            "of another owner",
            "DROP ROLE IF EXISTS test_other_super; CREATE ROLE test_other_super SUPERUSER; "
            f"ALTER EVENT TRIGGER {PROTECT} OWNER TO test_other_super",
            "audit_protection",
        ),
    )
}
# By statements on the catalogues, which reach what no ALTER reaches.
LOG = f"'{S}.audit_logs'::regclass"
BREAKAGES |= {
    "hidden triggers of the log": (f"UPDATE pg_class SET relhastriggers = false WHERE oid = {LOG}", "audit_protection"),
    "hidden triggers of a month": (
        f"UPDATE pg_class SET relhastriggers = false WHERE oid = '{S}.{MONTH}'::regclass",
        "audit_protection",
    ),
    "hidden triggers of runs": (
        f"UPDATE pg_class SET relhastriggers = false WHERE oid = '{S}.runs'::regclass",
        "objects",
    ),
    "hidden indexes of a month": (
        f"UPDATE pg_class SET relhasindex = false WHERE oid = '{S}.{MONTH}'::regclass",
        "audit_protection",
    ),
    "hidden indexes of runs": (f"UPDATE pg_class SET relhasindex = false WHERE oid = '{S}.runs'::regclass", "objects"),
    "hidden months": (f"UPDATE pg_class SET relhassubclass = false WHERE oid = {LOG}", "audit_protection"),
    "a month that does not state that it is one": (
        f"UPDATE pg_class SET relispartition = false WHERE oid = '{S}.{MONTH}'::regclass",
        "audit_protection",
    ),
    "a month without its parent": (
        f"DELETE FROM pg_inherits WHERE inhrelid = '{S}.{MONTH}'::regclass",
        "audit_protection",
    ),
    "a trigger of a month for other events": (
        f"UPDATE pg_trigger SET tgtype = 5 WHERE tgname = 'audit_logs_no_change' AND tgrelid = '{S}.{MONTH}'::regclass",
        "audit_protection",
    ),
    "another key of the partitions": (
        f"UPDATE pg_partitioned_table SET partattrs = '9' WHERE partrelid = {LOG}",
        "audit_protection",
    ),
    "another strategy of the partitions": (
        f"UPDATE pg_partitioned_table SET partstrat = 'l' WHERE partrelid = {LOG}",
        "audit_protection",
    ),
    "no default partition": (
        f"UPDATE pg_partitioned_table SET partdefid = 0 WHERE partrelid = {LOG}",
        "audit_protection",
    ),
}

MONTHS = {
    "detached, and written to meanwhile": f"ALTER TABLE {S}.audit_logs DETACH PARTITION {{0}}; "
    f"SELECT {S}.append_audit('meanwhile', '{{{{}}}}')",
    "with the bounds of another month": f"ALTER TABLE {S}.audit_logs DETACH PARTITION {{1}}; "
    f"ALTER TABLE {S}.audit_logs ATTACH PARTITION {{1}} FOR VALUES FROM ('2099-01-01 00:00+00') TO ('2099-02-01 00:00+00')",
    "detached half": "UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = '{0}'::regclass",
    "in another schema": "ALTER TABLE {0} SET SCHEMA public",
    "under another name": "ALTER TABLE {0} RENAME TO audit_logs_now",
    "under a name that is not the log's": "ALTER TABLE {0} RENAME TO mine",
    "in another schema under another name": "ALTER TABLE {0} RENAME TO mine; ALTER TABLE skill_system.mine SET SCHEMA public",
    "the default one in another schema": "ALTER TABLE skill_system.audit_logs_default SET SCHEMA public",
    "with a check": "ALTER TABLE {0} ADD CHECK (event_type <> 'stop') NOT VALID",
    "with a reference": "CREATE TABLE public.none (id uuid PRIMARY KEY); "
    "ALTER TABLE {0} ADD FOREIGN KEY (id) REFERENCES public.none NOT VALID",
    "with a unique index": "CREATE UNIQUE INDEX ON {0} (id)",
    "with a unique constraint": "ALTER TABLE {0} ADD UNIQUE (signature)",
}


@pytest.mark.parametrize("breakage", MONTHS)
def test_a_month_is_healed(breakage, broken):
    months = broken.execute(
        "SELECT 'skill_system.audit_logs_' || to_char(now() AT TIME ZONE 'UTC' + make_interval(months => n), 'YYYY_MM') "
        "FROM generate_series(0, 1) n"
    ).fetchall()
    for statement in MONTHS[breakage].split("; "):
        broken.execute(statement.format(*(month for (month,) in months)))
    found = unhealthy(broken)
    assert "audit_protection" in found and "repair()" in found["audit_protection"][1]
    assert "protection_missing" in {
        problem for (problem,) in broken.execute("SELECT problem FROM skill_system.verify_audit()").fetchall()
    }
    done = broken.execute(REPAIR).fetchall()
    assert done and all(result == "done" for _, result in done), done
    assert unhealthy(broken) == {}
    broken.execute("SELECT skill_system.append_audit('stop', '{}')")
    broken.execute("SELECT FROM skill_system.seal_audit()")
    assert broken.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []


FOREIGN = "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; "
MISPLACED = {
    "a foreign table in the place of a month": "ALTER TABLE {1} RENAME TO gone; DROP TABLE skill_system.gone; "
    + FOREIGN
    + "CREATE FOREIGN TABLE {1} PARTITION OF skill_system.audit_logs FOR VALUES FROM ('{2}') TO ('{3}') SERVER nowhere",
    "a foreign table with the name of a month": "DROP TABLE {1}; "
    + FOREIGN
    + "CREATE FOREIGN TABLE {1} (a int) SERVER nowhere",
    "a partitioned month": "ALTER TABLE skill_system.audit_logs DETACH PARTITION {0}; ALTER TABLE {0} SET SCHEMA public; "
    "CREATE TABLE {0} (LIKE skill_system.audit_logs INCLUDING DEFAULTS) PARTITION BY LIST (event_type); "
    "CREATE TABLE public.part PARTITION OF {0} DEFAULT; INSERT INTO {0} SELECT * FROM public.{4}; DROP TABLE public.{4}; "
    "ALTER TABLE skill_system.audit_logs ATTACH PARTITION {0} FOR VALUES FROM ('{5}') TO ('{2}')",
    "a year": "CREATE TABLE public.year PARTITION OF skill_system.audit_logs FOR VALUES FROM ('2050-01-01') TO ('2051-01-01')",
    "a year with records": "CREATE TABLE public.year PARTITION OF skill_system.audit_logs "
    "FOR VALUES FROM ('2050-01-01') TO ('2051-01-01'); INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) "
    "VALUES ('later', '{{}}', '2050-06-01')",
    "a table with a name like that of a month": "CREATE TABLE skill_system.audit_logs_old (LIKE skill_system.audit_logs)",
}


@pytest.mark.parametrize("breakage", MISPLACED)
def test_what_repair_cannot_do_comes_with_statements(breakage, broken):
    months = broken.execute(
        "SELECT to_char(start, '\"skill_system.audit_logs_\"YYYY_MM'), to_char(start, 'YYYY-MM-DD 00:00:00+00') FROM ("
        "SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n) FROM generate_series(0, 2) n) m(start)"
    ).fetchall()
    (this, begin), (next_one, end), (_, after) = months
    for statement in MISPLACED[breakage].split("; "):
        broken.execute(statement.format(this, next_one, end, after, MONTH, begin))
    found = unhealthy(broken)
    assert "audit_protection" in found and "repair()" in found["audit_protection"][1]
    failed = [result for _, result in broken.execute(REPAIR).fetchall() if result != "done"]
    assert failed and all(result.startswith("failed: ") for result in failed)
    with psycopg.connect(broken.info.dsn, autocommit=True) as healer:
        for result in failed:
            for statement in result.removeprefix("failed: ").partition(": ")[2].split("; "):
                healer.execute(statement)
    broken.execute(REPAIR)
    left = unhealthy(broken)
    # Records of a month that has no partition stay in the default one until somebody creates it.
    assert set(left) <= ({"audit_partitions"} if "records" in breakage else set()), left
    broken.execute("SELECT FROM skill_system.seal_audit()")
    assert broken.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []


@pytest.mark.parametrize(
    ("more", "heal"),
    [
        (f"CREATE TABLE {S}.mine (a int)", f"DROP TABLE {S}.mine"),
        (f"COMMENT ON TABLE {S}.runs IS NULL", f"COMMENT ON TABLE {S}.runs IS 'Runs.'"),
    ],
)
def test_a_lost_policy_comes_back_whatever_else_is_wrong(more, heal, broken):
    broken.execute(more)
    broken.execute(f"DROP POLICY tenant ON {S}.runs; DROP POLICY append ON {S}.audit_logs")
    assert "row_security" in unhealthy(broken)
    done = broken.execute(REPAIR).fetchall()
    assert done and all(result == "done" for _, result in done), done
    assert "row_security" not in unhealthy(broken)
    broken.execute(heal)
    assert unhealthy(broken) == {}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("quote_all_identifiers", "on"),
        ("search_path", "skill_system, public, pg_catalog"),
        ("search_path", ""),
        ("TimeZone", "America/St_Johns"),
        ("DateStyle", "German"),
        ("IntervalStyle", "sql_standard"),
        ("extra_float_digits", "-15"),
        ("bytea_output", "escape"),
        ("xmlbinary", "hex"),
        ("standard_conforming_strings", "off"),
        ("lc_monetary", "C.UTF-8"),
        ("array_nulls", "off"),
        ("transform_null_equals", "on"),
    ],
)
def test_the_settings_of_the_session_change_no_finding(undone, setting, value):
    with undone.transaction(force_rollback=True):
        undone.execute("SELECT set_config(%s, %s, true)", [setting, value])
        assert findings(undone) == set()
        assert undone.execute(REPAIR).fetchall() == []
        undone.execute("ALTER TABLE skill_system.runs DISABLE ROW LEVEL SECURITY")
        assert [result for _, result in undone.execute(REPAIR).fetchall()] == ["done"]
        assert findings(undone) == set()
        assert undone.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []


def test_what_no_statement_brings_back_is_named(broken):
    broken.execute("ALTER TABLE skill_system.run_events DROP COLUMN level")
    broken.execute("ALTER TYPE skill_system.run_status ADD VALUE 'lost'")
    broken.execute("CREATE TABLE skill_system.mine (a int)")
    detail, hint = unhealthy(broken)["objects"]
    assert detail.split("; ") == [
        "column level of run_events is missing",
        "table mine was not created by the extension",
        "type run_status is 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'lost', "
        "not 'queued', 'running', 'succeeded', 'failed', 'cancelled'",
    ]
    assert "from a backup" in hint
    broken.execute("CREATE INDEX mine_too ON skill_system.runs (goal)")
    assert broken.execute(REPAIR).fetchall() == []
    assert unhealthy(broken)["objects"] == (detail, hint)


def test_a_new_column_is_not_taken_for_one_that_was_dropped(broken):
    broken.execute("ALTER TABLE skill_system.run_events DROP COLUMN level, ADD COLUMN mistake text")
    assert broken.execute(REPAIR).fetchall() == []
    assert unhealthy(broken)["objects"][0].split("; ") == [
        "column level of run_events is missing",
        "column mistake of run_events was not created by the extension",
    ]


def findings(connection):
    """But those that come with time: of what the last seal itself recorded, and of checkpoints."""
    return set(unhealthy(connection)) - {"audit_seal", "checkpoints"}


@pytest.fixture(scope="module")
def undone(whole, connect_to):
    """A session on a log that is in order, in which each test is a transaction that is rolled back."""
    name = f"{whole}_undone"
    with connect_to("postgres") as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(whole)))
        with connect_to(name) as connection:
            connection.execute("SELECT FROM skill_system.adopt_log('a copy')")
            connection.execute("SET skill_system.allow_unprotected = on")
            assert findings(connection) == set()
            yield connection
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.parametrize("breakage", PARTS)
def test_each_part_is_compared_and_brought_back(breakage, undone):
    statement, check, *heal = PARTS[breakage]
    with undone.transaction(force_rollback=True):
        undone.execute(statement)
        found = unhealthy(undone)
        assert check in found, found
        if heal:
            undone.execute(heal[0])
        else:
            done = undone.execute(REPAIR).fetchall()
            assert done and all(result == "done" for _, result in done), done
        assert findings(undone) == set()
        # It works again.
        undone.execute("SELECT skill_system.append_audit('after', '{}'), skill_system.log_run('s', 'o', 'ok')")


def test_a_check_that_fails_is_a_row(broken):
    broken.execute("BEGIN")
    broken.execute("ALTER TABLE skill_system.agent_definitions RENAME TO x")
    found = dict(broken.execute('SELECT "check", detail FROM skill_system.health()').fetchall())
    assert len(found) == 16 and found["skills_integrity"].startswith("the check of module skills failed: ")
    assert found["skills_integrity"].endswith("(42P01)")
    broken.execute("ROLLBACK")


def test_a_forgotten_prepared_transaction_is_named(new_cluster):
    with new_cluster("max_prepared_transactions=2").connect() as connection:
        connection.execute("CREATE EXTENSION skill_system")
        connection.execute("BEGIN")
        connection.execute("SELECT skill_system.append_audit('x', '{}')")
        connection.execute("PREPARE TRANSACTION 'forgotten'")
        (detail, hint) = until(lambda: unhealthy(connection).get("prepared_transactions"), "it is not named")
        assert detail.startswith("forgotten of role ") and "ROLLBACK PREPARED" in hint
        connection.execute("ROLLBACK PREPARED 'forgotten'")
        assert "prepared_transactions" not in unhealthy(connection)


def test_only_a_superuser_repairs(connect, roles):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connect("test_admin").execute(REPAIR)


def test_maintain_does_what_it_can(broken):
    broken.execute(
        "CREATE FUNCTION public.noddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL today'; END $$"
    )
    broken.execute("SELECT skill_system.append_audit('y', '{}')")
    month = broken.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits "
        "WHERE inhparent = 'skill_system.audit_logs'::regclass ORDER BY 1 DESC LIMIT 1 OFFSET 1"
    ).fetchone()[0]
    broken.execute(f"DROP TABLE {month}")
    broken.execute("CREATE EVENT TRIGGER nd ON ddl_command_start EXECUTE FUNCTION public.noddl()")
    done = {
        task: (affected, detail)
        for task, affected, detail in broken.execute("SELECT task, affected, detail FROM skill_system.maintain()")
    }
    assert done["audit_partitions"] == (0, "failed in module audit: no DDL today (P0001)")
    assert done["audit_seal"][0] >= 1 and done["audit_sweep"][0] == 0 and done["run_retention"][0] == 0
    broken.execute("DROP EVENT TRIGGER nd")
    assert broken.execute(
        "SELECT affected FROM skill_system.maintain() WHERE task = 'audit_partitions'"
    ).fetchone() == (1,)


def test_maintain_makes_months_while_people_work(connect, database, roles):
    """Open transactions of writers do not keep it from its work; neither do they wait."""
    connect().execute("SELECT FROM skill_system.maintain()")
    connect().execute("SELECT skill_system.append_audit('first', '{}')")
    writers = [connect("test_agent") for _ in range(4)]
    for writer in writers:
        writer.execute("BEGIN")
        writer.execute("SELECT skill_system.append_audit('open', '{}')")
    begin = time.monotonic()
    connect().execute("SELECT skill_system.create_audit_partition('2051-05-01')")
    assert time.monotonic() - begin < 2
    for writer in writers:
        writer.execute("SELECT skill_system.append_audit('open', '{}')")
        writer.execute("COMMIT")


def test_a_month_moves_out_of_the_default_partition(connect, fresh_database):
    connection = connect(dbname=fresh_database())
    without_months(connection)
    # By INSERT, which has chosen its partition before the log begins.
    insert = "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('early', '{}') RETURNING id"
    ids = [connection.execute(insert).fetchone()[0] for _ in range(3)]
    connection.execute("SELECT FROM skill_system.seal_audit()")
    assert (
        "create_audit_partition" in unhealthy(connection)["audit_partitions"][1]
        or "maintain()" in unhealthy(connection)["audit_partitions"][1]
    )
    detail = connection.execute(
        "SELECT detail FROM skill_system.maintain() WHERE task = 'audit_partitions'"
    ).fetchone()[0]
    assert "records of audit_logs_default" in detail
    assert connection.execute("SELECT count(*) FROM skill_system.audit_logs_default").fetchone() == (0,)
    moved = connection.execute(
        "SELECT event_data->'partition', event_data->'records' FROM skill_system.audit_logs WHERE event_type = 'audit.records_moved'"
    ).fetchone()
    assert re.fullmatch(r"audit_logs_\d{4}_\d\d", moved[0]) and moved[1] >= 3
    found = connection.execute("SELECT id FROM skill_system.audit_logs WHERE event_type = 'early'").fetchall()
    assert {id for (id,) in found} == set(ids)
    assert "audit_partitions" not in unhealthy(connection)
    connection.execute("SELECT FROM skill_system.seal_audit()")
    assert connection.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []
