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


@pytest.fixture
def run_id(db):
    return db.execute("SELECT skill_system.start_run('held')").fetchone()[0]


RUN_CALLS = {
    "finish": "SELECT skill_system.finish_run(%s, 'ok')",
    "step": "SELECT skill_system.log_step(%s, 's', 'o')",
    "event": "SELECT skill_system.log_event(%s, 'seen')",
    "event of a step": "SELECT skill_system.log_event(%s, 'step_x')",
    "events": 'SELECT skill_system.log_events(%s, \'[{"event_type": "seen"}]\')',
    "events of steps": 'SELECT skill_system.log_events(%s, \'[{"event_type": "step_x"}]\')',
    "insert of a step": "INSERT INTO skill_system.run_events (run_id, event_type) VALUES (%s, 'step_x')",
}


@pytest.mark.parametrize("call", RUN_CALLS.values(), ids=RUN_CALLS)
def test_a_locked_run_holds_up_no_agent_for_long(call, connect, run_id):
    """Agents may lock the runs of their tenant by the rights that they have on the table."""
    holder, other = connect("test_agent"), connect("test_agent")
    holder.execute("BEGIN")
    holder.execute("SELECT id FROM skill_system.runs WHERE id = %s FOR UPDATE", [run_id])
    other.execute("SET lock_timeout = '300ms'")
    pid = holder.info.backend_pid
    with pytest.raises(errors.LockNotAvailable, match=f"another transaction is changing run {run_id}") as error:
        other.execute(call, [run_id])
    assert f'It is held by process {pid} of role "test_agent", open since' in error.value.diag.message_detail
    other.execute("SET lock_timeout = 0")
    other.execute("SET statement_timeout = '300ms'")
    for _ in range(2):
        # The second is not in a transaction that the first left behind.
        with pytest.raises(errors.QueryCanceled):
            other.execute(call, [run_id])
    other.execute("SET statement_timeout = 0")
    # It waits, and goes on when the run is free.
    other.execute("SET lock_timeout = '20s'")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.execute, call, [run_id])
        time.sleep(0.2)
        assert not waiting.done()
        holder.execute("COMMIT")
        waiting.result(10)
    with pytest.raises(errors.UndefinedObject if call.startswith("SELECT") else errors.Error):
        other.execute(call, [10**15])


@pytest.mark.parametrize("strength", ["SHARE", "KEY SHARE", "UPDATE"])
def test_all_who_lock_a_run_are_named(strength, connect, run_id):
    """Several at once, some in a savepoint: the row then names them by one number."""
    holders = [connect("test_agent") for _ in range(2 if strength != "UPDATE" else 1)]
    for holder in holders:
        holder.execute("BEGIN")
        holder.execute("SAVEPOINT s")
        holder.execute(f"SELECT id FROM skill_system.runs WHERE id = {run_id} FOR {strength}")
    other = connect("test_agent")
    other.execute("SET lock_timeout = '200ms'")
    if strength == "KEY SHARE":
        other.execute("SELECT skill_system.finish_run(%s, 'ok')", [run_id])
        return
    with pytest.raises(errors.LockNotAvailable) as error:
        other.execute("SELECT skill_system.finish_run(%s, 'ok')", [run_id])
    for holder in holders:
        assert f"process {holder.info.backend_pid} of role" in error.value.diag.message_detail


def test_a_superuser_ends_who_holds_a_run(connect, db, run_id):
    holder = connect("test_agent")
    holder.execute("BEGIN")
    holder.execute("UPDATE skill_system.runs SET goal = 'mine' WHERE id = %s", [run_id])
    db.execute("SELECT skill_system.finish_run(%s, 'ok')", [run_id])
    with pytest.raises(errors.Error):
        holder.execute("SELECT")


@pytest.mark.parametrize(
    "call",
    [
        "SELECT skill_system.log_run('s', 'o', 'ok', idempotency_key => 'held')",
        "SELECT skill_system.start_run('g', idempotency_key => 'held too')",
        "SELECT skill_system.load_skill('loaded', conversation_id => 'held')",
        "SELECT skill_system.load_skill('loaded', conversation_id => 'held', force => true)",
        "SELECT skill_system.register_skill(format(E'---\\nname: held\\ndescription: %s\\n---\\nx\\n', gen_random_uuid()))",
        "SELECT skill_system.propose_rule('HELD', 'd', '2026-01-01', '{}', 'manual')",
        "SELECT skill_system.create_checklist('held', 'well', 'held')",
    ],
)
def test_the_same_call_of_another_agent_waits_for_a_bounded_time(call, connect, db):
    if not db.execute("SELECT FROM skill_system.checklist_templates WHERE compliance_domain = 'held'").fetchone():
        version = db.execute("SELECT (skill_system.register_skill(%s)).version", [SKILL.format("loaded")]).fetchone()[0]
        db.execute("SELECT skill_system.set_skill_status('loaded', 'approved', %s)", [version])
        db.execute("SELECT skill_system.create_template('held', '[{\"label\": \"A\"}]')")
    holder, other = connect("test_agent"), connect("test_agent")
    holder.execute("BEGIN")
    holder.execute(call)
    other.execute("SET lock_timeout = '300ms'")
    with pytest.raises(errors.LockNotAvailable, match="another transaction is changing"):
        other.execute(call)
    holder.execute("ROLLBACK")
    other.execute(call)


def test_an_agent_ends_nobody(connect, db):
    """Neither for a run nor in a trigger, which has the owner's rights."""
    if not db.execute("SELECT FROM skill_system.checklist_templates WHERE compliance_domain = 'quiet'").fetchone():
        db.execute("SELECT skill_system.create_template('quiet', '[{\"label\": \"A\"}]')")
    call = "SELECT skill_system.create_checklist('e', 'well', 'quiet')"
    holder, other = connect("test_admin"), connect("test_agent")
    holder.execute("BEGIN")
    holder.execute("SELECT skill_system.assess_compliance('default', 'e', 'well', 'quiet', status => 'in_review')")
    other.execute("SET lock_timeout = '2500ms'")
    with pytest.raises(errors.LockNotAvailable):
        other.execute(call)
    holder.execute("COMMIT")


@pytest.mark.parametrize(
    ("held", "decision"),
    [
        ("register_skill('{skill}', namespace => 'held-up')", "register_skill('{skill}', namespace => 'held-up')"),
        ("register_skill('{skill}', namespace => 'held-up')", "register_skill('{other}', namespace => 'held-up')"),
        ("register_skill('{skill}')", "register_skill('{skill}y')"),
        ("skill_store_store('held-up', 'x', '{{}}')", "skill_store_store('held-up', 'y', '{{}}')"),
        (
            "create_checklist('e', 'well', 'held-up')",
            "UPDATE {table} SET items = items WHERE compliance_domain = 'held-up'",
        ),
        (
            "create_checklist('e', 'well', 'held-up')",
            "delete_rows('{table}', jsonb_build_object('compliance_domain', 'held-up'))",
        ),
        ("create_checklist('e', 'well', 'held-up')", "create_template('held-up', '[{{\"label\": \"B\"}}]')"),
    ],
)
def test_what_an_agent_creates_holds_up_nobody_who_decides(held, decision, connect, decide, db):
    db.execute(
        "SELECT skill_system.delete_rows('skill_system.checklist_templates', '{\"compliance_domain\": \"held-up\"}')"
    )
    db.execute("SELECT skill_system.create_template('held-up', '[{\"label\": \"A\"}]')")
    names = {
        name: SKILL.format(f"held-up-{name}").replace("\n", "' || chr(10) || '") for name in ("skill", "other")
    } | {"table": "skill_system.checklist_templates"}
    agent = connect("test_agent")
    agent.execute("BEGIN")
    agent.execute(f"SELECT skill_system.{held.format(**names)}")
    statement = decision.format(**names)
    decide("test_admin", statement if statement.startswith("UPDATE") else f"SELECT skill_system.{statement}")
