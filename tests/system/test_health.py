"""health() names what is broken, cannot fail itself, and its hints heal: forty breakages."""

import re
import time

import psycopg
import pytest
from psycopg import sql

from cluster import until

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
    "a table renamed": (
        f"ALTER TABLE {S}.agent_definitions RENAME TO x",
        "objects",
        f"ALTER TABLE {S}.x RENAME TO agent_definitions",
    ),
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
    ids = [connection.execute("SELECT skill_system.append_audit('early', '{}')").fetchone()[0] for _ in range(3)]
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
