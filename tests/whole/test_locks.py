"""No open transaction of an agent, or of another tenant, holds up those who decide; no copy of a log goes on unasked."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import errors, sql

SKILL = "---\nname: {0}\ndescription: Does {0}. Use when asked.\n---\nx\n"


@pytest.fixture(scope="module", autouse=True)
def skill(db, roles):
    db.execute("SELECT skill_system.append_audit('first', '{}')")
    db.execute("SELECT skill_system.register_skill(%s)", [SKILL.format("evil-skill")])


@pytest.fixture
def decide(connect):
    """What a role does, waiting three seconds for a lock at most."""

    def run(role, statement, *arguments):
        connection = connect(role)
        connection.execute("SET lock_timeout = '3s'")
        return connection.execute(statement, arguments)

    return run


@pytest.mark.parametrize(
    "held",
    [
        f"SELECT skill_system.register_skill('{SKILL.format('decoy')}')".replace("\n", "' || chr(10) || '"),
        "SELECT skill_system.propose_rule('R', 'd', '2026-01-01', '{}', 'manual')",
        "SELECT skill_system.append_audit('x', '{}')",
        f"SELECT skill_system.register_skill('{SKILL.format('evil-skill')}y')".replace("\n", "' || chr(10) || '"),
    ],
    ids=["a new skill", "a proposal", "a record", "a version of the same skill"],
)
def test_an_agent_holds_up_nobody_who_decides(held, connect, decide, db):
    agent = connect("test_agent")
    agent.execute("BEGIN")
    agent.execute(held)
    version = db.execute(
        "SELECT current_version FROM skill_system.skill_heads WHERE skill_name = 'evil-skill'"
    ).fetchone()[0]
    for status in ("disabled", "draft"):
        decide("test_admin", "SELECT skill_system.set_skill_status('evil-skill', %s, version => %s)", status, version)
    decide("test_admin", "SELECT skill_system.publish_rule('R2', 'd', '2026-01-01', '{}', 'manual')")
    decide("test_admin", "SELECT skill_system.create_policy(gen_random_uuid()::text)")


@pytest.mark.parametrize(
    "held",
    [
        "skill_system.start_run('g', policy_name => 'held')",
        "skill_system.log_run('s', 'o', 'ok', policy_name => 'held')",
        "skill_system.enforce_policy('held', '{db.read}')",
    ],
)
def test_an_open_run_holds_up_no_change_of_its_policy(held, connect, decide, db):
    db.execute("DELETE FROM skill_system.policy_profiles")
    db.execute("SELECT skill_system.create_policy('held', allow => '{db.read}')")
    agent = connect("test_agent")
    agent.execute("BEGIN")
    agent.execute(f"SELECT {held}")
    decide("test_admin", "UPDATE skill_system.policy_profiles SET denied_effects = '{db.write}' WHERE name = 'held'")
    decide("test_admin", "UPDATE skill_system.policy_profiles SET name = 'renamed' WHERE name = 'held'")
    decide("postgres", "DELETE FROM skill_system.policy_profiles WHERE name = 'renamed'")
    agent.execute("COMMIT")


def test_a_run_names_a_policy_of_its_tenant(connect, db):
    agent = connect("test_agent")
    with pytest.raises(errors.UndefinedObject):
        agent.execute("INSERT INTO skill_system.runs (goal, policy_profile_id) VALUES ('x', 9999999)")


@pytest.mark.parametrize("holder", ["test_reviewer", "test_admin"])
@pytest.mark.parametrize(
    ("entity", "before"), [("one", True), ("other", False)], ids=["a cell that exists", "a new cell"]
)
def test_an_open_assessment_holds_up_no_reviewer(holder, entity, before, connect, decide, db):
    call = f"SELECT skill_system.assess_compliance('default', '{entity}', 'well', 'air', status => %s)"
    db.execute("DELETE FROM skill_system.compliance_status")
    if before:
        db.execute(call, ["compliant"])
    first = connect(holder)
    first.execute("BEGIN")
    first.execute(call, ["in_review"])
    if holder == "test_admin":
        # Nobody ends the session of somebody above: the wait is bounded, and the error names the holder.
        with pytest.raises(errors.LockNotAvailable, match='the status of "') as error:
            decide("test_reviewer", call, "compliant")
        assert 'of role "test_admin"' in error.value.diag.message_detail
    else:
        decide("test_reviewer", call, "compliant")


def test_agents_who_hand_on_a_lock_hold_up_no_reviewer(connect, db):
    db.execute("DELETE FROM skill_system.compliance_status")
    call = "SELECT skill_system.assess_compliance('default', 'one', 'well', 'air', status => %s)"
    db.execute(call, ["compliant"])
    queue = [connect("test_reviewer") for _ in range(3)]
    with ThreadPoolExecutor(len(queue)) as pool:
        for session in queue:
            session.execute("BEGIN")
            pool.submit(session.execute, call, ["in_review"])
            time.sleep(0.1)
        # The first goes when somebody has waited for half a second, and the next is the holder; each is ended in its turn.
        pool.submit(lambda: (time.sleep(0.5), queue[0].rollback()))
        connect("test_admin").execute(call, ["compliant"])


def test_a_wait_for_somebody_above_is_bounded(connect, db):
    db.execute("DELETE FROM skill_system.compliance_status")
    call = "SELECT skill_system.assess_compliance('default', 'one', 'well', 'air', status => %s)"
    above = connect("test_admin")
    above.execute("BEGIN")
    above.execute(call, ["in_review"])
    reviewer = connect("test_reviewer")
    started = time.monotonic()
    with pytest.raises(errors.LockNotAvailable, match="another transaction is changing") as error:
        reviewer.execute(call, ["compliant"])
    assert 9 < time.monotonic() - started < 20 and 'of role "test_admin"' in error.value.diag.message_detail
    # What the session set itself is as it was, whatever ended the wait.
    reviewer.execute("SET lock_timeout = '300ms'")
    started = time.monotonic()
    with pytest.raises(errors.LockNotAvailable):
        reviewer.execute(call, ["compliant"])
    assert time.monotonic() - started < 5
    reviewer.execute("SET lock_timeout = 0")
    reviewer.execute("SET statement_timeout = '1500ms'")
    for _ in range(2):
        with pytest.raises(errors.QueryCanceled):
            reviewer.execute(call, ["compliant"])
    reviewer.execute("SET statement_timeout = 0")
    above.execute("COMMIT")
    reviewer.execute(call, ["compliant"])


def test_tenants_change_policies_side_by_side(connect, decide):
    with connect() as admin:
        admin.execute("DROP ROLE IF EXISTS other_admin")
        admin.execute("CREATE ROLE other_admin LOGIN IN ROLE skill_system_admin")
        admin.execute("ALTER ROLE other_admin SET skill_system.tenant = 'other'")
    other = connect("other_admin")
    other.execute("BEGIN")
    other.execute("UPDATE skill_system.policy_profiles SET mode = 'observe' WHERE false")
    decide("test_admin", "SELECT skill_system.create_policy('other')")


def test_nobody_but_the_owner_locks_tables(connect, db):
    tables = db.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('r', 'p')"
    ).fetchall()
    for role in ("test_agent", "test_reviewer", "test_auditor", "test_admin"):
        connection = connect(role)
        for (table,) in tables:
            for mode in ("ACCESS EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE"):
                with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                    connection.execute(f"LOCK TABLE {table} IN {mode} MODE")


@pytest.mark.parametrize("call", ["seal_audit()", "maintain()", "adopt_log('x')"])
def test_maintenance_is_no_part_of_a_transaction(call, connect):
    connection = connect("test_admin")
    with pytest.raises(errors.ActiveSqlTransaction), connection.transaction():
        connection.execute(f"SELECT FROM skill_system.{call}")


def test_a_prepared_transaction_keeps_no_lock(connect, db):
    agent = connect("test_agent")
    agent.execute("BEGIN")
    agent.execute("SELECT skill_system.propose_rule('P', 'd', '2026-01-01', '{}', 'manual')")
    with pytest.raises((errors.ObjectNotInPrerequisiteState, errors.ConfigurationLimitExceeded)):
        agent.execute("PREPARE TRANSACTION 'x'")


def test_a_copy_of_a_log_that_was_never_sealed_stops(fresh_database, connect):
    name = fresh_database()
    with connect(dbname=name) as connection:
        connection.execute("SELECT skill_system.append_audit('x', '{}')")
    copy = f"{name}_copy"
    with connect(dbname="postgres") as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name)))
    connection = connect(dbname=copy)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="its records are from elsewhere"):
        connection.execute("SELECT FROM skill_system.seal_audit()")
    connection.execute("SELECT FROM skill_system.adopt_log('the copy is the log')")
    connection.execute("SELECT FROM skill_system.seal_audit()")
    connection.close()
    with connect(dbname="postgres") as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(copy)))
