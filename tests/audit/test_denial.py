"""log_denial() and enforce_policy(): what was denied stays on record, whatever becomes of the transaction."""

import json
import threading
import time

import psycopg
import pytest
from psycopg import errors

from cluster import server_log


@pytest.fixture(scope="module", autouse=True)
def policies(db, roles):
    db.execute("SELECT * FROM skill_system.install_starter_policies()")


def denials(connection, event_type):
    return connection.execute(
        "SELECT event_data, actor_id, actor_type, tenant_id, session_user_name, current_user_name "
        "FROM skill_system.audit_logs "
        "WHERE event_type = %s ORDER BY recorded_at",
        [event_type],
    ).fetchall()


def clean(connection):
    return connection.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


def deny(connection, event_type, **data):
    return connection.execute("SELECT skill_system.log_denial(%s, %s)", [event_type, json.dumps(data)]).fetchone()[0]


def test_it_survives_every_kind_of_rollback(db, connect):
    agent = connect("test_agent")
    with agent.transaction(force_rollback=True):
        kept = deny(agent, "t.rollback", n=1)
        # Committed when the call returns: everybody sees it, this transaction included.
        assert [row[0]["n"] for row in denials(db, "t.rollback")] == [1]
        assert db.execute("SELECT event_type::text FROM skill_system.audit_logs WHERE id = %s", [kept]).fetchone() == (
            "t.rollback",
        )
    with agent.transaction():
        with pytest.raises(errors.DivisionByZero), agent.transaction():
            deny(agent, "t.rollback", n=2)
            agent.execute("SELECT 1 / 0")
    agent.execute(
        "DO $$ BEGIN PERFORM skill_system.log_denial('t.rollback', '{\"n\": 3}'); "
        "RAISE EXCEPTION 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    with agent.transaction(force_rollback=True):
        agent.execute("SET TRANSACTION READ ONLY")
        deny(agent, "t.rollback", n=4)
    with agent.transaction(force_rollback=True):
        agent.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        deny(agent, "t.rollback", n=5)
    agent.execute("BEGIN")
    agent.execute("SELECT skill_system.append_audit('t.lost', '{}')")
    xid = agent.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
    deny(agent, "t.rollback", n=6)
    db.execute("SELECT pg_terminate_backend(%s)", [agent.info.backend_pid])
    rows = denials(db, "t.rollback")
    assert [row[0]["n"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row[0]["denied_in"]["pid"] for row in rows} == {agent.info.backend_pid}
    assert [row[0]["denied_in"]["transaction_id"] for row in rows[::5]] == [None, int(xid)]
    assert denials(db, "t.lost") == []
    assert clean(db)


def test_enforce_policy_records_its_denials(db, connect):
    agent = connect("test_agent")
    with pytest.raises(errors.InsufficientPrivilege) as caught, agent.transaction():
        agent.execute("SELECT skill_system.enforce_policy('dev', array['db.read', 'proc.exec:rm'])")
    assert caught.value.diag.message_primary == 'policy "dev" does not allow proc.exec:rm'
    version, content_hash = db.execute(
        "SELECT version, content_hash FROM skill_system.policy_profiles WHERE name = 'dev'"
    ).fetchone()
    [(data, actor_id, actor_type, *_, session, current)] = denials(db, "policy.denied")
    assert data.pop("denied_in")["pid"] == agent.info.backend_pid
    assert data == {
        "policy": "dev",
        "version": version,
        "hash": content_hash,
        "effects": ["db.read", "proc.exec:rm"],
        "blocked_effects": ["proc.exec:rm"],
        "reason": 'proc.exec:rm: needs a person by rule "proc.exec" of policy "dev"',
    }
    assert (actor_id, actor_type, session, current) == (None, "agent", "test_agent", "test_agent")
    # Every way to be refused, and every form of the argument.
    before = len(denials(db, "policy.denied"))
    refused = [
        ("'nosuch', array['db.read']",),
        ("NULL, array['db.read']",),
        ("'dev', NULL::text[]",),
        ("'dev', '[1]'::jsonb",),
        ("'dev', '{db.read,NULL}'",),
        ("'dev', 'nonsense'",),
        ("'dev', array[repeat('x', 1000000)]",),
        ("repeat('p', 1000000), '{}'::text[]",),
        ("'dev', array_fill('x'::text, array[5000])",),
    ]
    for (arguments,) in refused:
        with pytest.raises(errors.InsufficientPrivilege):
            agent.execute(f"SELECT skill_system.enforce_policy({arguments})")
    rows = denials(db, "policy.denied")[before:]
    assert len(rows) == len(refused)
    assert max(len(json.dumps(row[0])) for row in rows) < 300_000
    # What is allowed, and what is only observed, is not a denial.
    agent.execute("SELECT skill_system.enforce_policy('dev', array['db.read'])")
    assert len(denials(db, "policy.denied")) == before + len(refused)
    assert clean(db)


def test_names_and_tenant_are_those_of_the_denied(db, connect):
    db.execute("CREATE ROLE test_denied LOGIN CONNECTION LIMIT 1 IN ROLE skill_system_agent")
    try:
        # Settings of the role's own must not keep the record away.
        db.execute("ALTER ROLE test_denied SET skill_system.tenant = 'acme'")
        for setting in (
            "default_transaction_read_only = on",
            "lock_timeout = 1",
            "statement_timeout = 60000",
            "search_path = nowhere",
            "default_transaction_isolation = serializable",
            "synchronous_commit = off",
        ):
            db.execute(f"ALTER ROLE test_denied SET {setting}")
        denied = connect("test_denied")
        deny(denied, "t.names", n=1)
        # The role may lose the right to log in while it is connected.
        db.execute("ALTER ROLE test_denied NOLOGIN")
        deny(denied, "t.names", n=2)
        assert [(row[0]["n"], *row[3:]) for row in denials(db, "t.names")] == [
            (1, "acme", "test_denied", "test_denied"),
            (2, "acme", "test_denied", "test_denied"),
        ]
        denied.close()
        member = connect("test_admin")
        member.execute("SET ROLE skill_system_admin")
        deny(member, "t.roles", n=1)
        db.execute(
            "CREATE FUNCTION deny_it() RETURNS uuid LANGUAGE sql SECURITY DEFINER AS $$ "
            "SELECT skill_system.log_denial('t.roles', '{\"n\": 2}', 'me', 'user') $$"
        )
        db.execute("GRANT EXECUTE ON FUNCTION deny_it() TO PUBLIC")
        member.execute("SELECT public.deny_it()")
        db.execute("SET SESSION AUTHORIZATION test_agent")
        deny(db, "t.roles", n=3)
        db.execute("RESET SESSION AUTHORIZATION")
        assert [(row[0]["n"], *row[1:]) for row in denials(db, "t.roles")] == [
            (1, None, "agent", "default", "test_admin", "skill_system_admin"),
            (2, "me", "user", "default", "test_admin", "postgres"),
            (3, None, "agent", "default", "postgres", "test_agent"),
        ]
        assert clean(db)
    finally:
        db.execute("RESET SESSION AUTHORIZATION")
        db.execute("DROP ROLE test_denied")


def test_settings_of_the_database_change_nothing(fresh_database, connect):
    database = fresh_database()
    connection = connect(dbname=database)
    deny(connection, "t.settings", n=1)
    for setting in (
        "role = 'test_agent'",
        "session_authorization = 'test_agent'",
        "default_transaction_read_only = on",
        "lock_timeout = 1",
        "search_path = nowhere",
        "session_replication_role = replica",
        "skill_system.tenant = 'other'",
        "TimeZone = 'Asia/Tokyo'",
    ):
        connection.execute(f"ALTER DATABASE {database} SET {setting}")
        deny(connection, "t.settings", n=2)
    assert {(row[0]["n"], *row[3:]) for row in denials(connection, "t.settings")} == {
        (1, "default", "postgres", "postgres"),
        (2, "default", "postgres", "postgres"),
    }
    assert clean(connection)


def test_what_is_refused(db, connect):
    agent = connect("test_agent")
    for arguments in (
        "NULL, '{}'",
        "'x', NULL",
        "'x', '[]'",
        "'x', '1'",
        "'x', 'null'",
        "'', '{}'",
        "repeat('x', 101), '{}'",
        "'x', '{}', repeat('x', 101)",
        "'x', '{}', NULL, repeat('x', 21)",
    ):
        with pytest.raises(errors.InvalidParameterValue):
            agent.execute(f"SELECT skill_system.log_denial({arguments})")
    with pytest.raises(errors.ProgramLimitExceeded):
        agent.execute("SELECT skill_system.log_denial('x', jsonb_build_object('x', repeat('x', 1100000)))")
    # Large and awkward values arrive as they are, and nothing claims another process's place.
    value = {"text": '"\\\u0001\U0001f600' * 1000, "denied_in": {"pid": -1}}
    kept = db.execute(
        "SELECT skill_system.log_denial('t.value', %s::jsonb || '{\"n\": 12345678901234567890.10}')",
        [json.dumps(value)],
    ).fetchone()[0]
    data, n = db.execute(
        "SELECT event_data, event_data ->> 'n' FROM skill_system.audit_logs WHERE id = %s", [kept]
    ).fetchone()
    assert (
        data["text"] == value["text"]
        and data["denied_in"]["pid"] == db.info.backend_pid
        and n == "12345678901234567890.10"
    )
    for role in ("test_auditor",):
        with pytest.raises(errors.InsufficientPrivilege):
            deny(connect(role), "x")
    # Not from a parallel worker, and that is what it says.
    db.execute(
        "CREATE FUNCTION sneak() RETURNS uuid LANGUAGE sql PARALLEL SAFE AS $$ "
        "SELECT skill_system.log_denial('x', '{}') $$"
    )
    db.execute("SET force_parallel_mode = on" if db.info.server_version < 160000 else "SET debug_parallel_query = on")
    with pytest.raises(errors.InvalidTransactionState, match="during a parallel operation"):
        db.execute("SELECT sneak()")
    db.execute("RESET ALL")


def test_it_cannot_be_suppressed_by_cancelling(db, connect):
    for how in ("cancel", "terminate", "timeout"):
        agent, holder = connect("test_agent"), connect()
        pid = agent.info.backend_pid
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE skill_system.audit_logs IN SHARE MODE")
        if how == "timeout":
            agent.execute("SET statement_timeout = '300ms'")
        failed = []

        def run(agent=agent, how=how, failed=failed):
            try:
                agent.execute("BEGIN")
                agent.execute("SELECT skill_system.enforce_policy('dev', array[%s])", [f"proc.exec:{how}"])
            except psycopg.Error as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 10
        while not db.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'skill_system.audit_logs'::regclass"
        ).fetchone():
            assert time.monotonic() < deadline, "no worker waits for the lock"
            time.sleep(0.01)
        # Nor can the worker be stopped by the role that it works for.
        worker = db.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'skill_system denial'").fetchone()
        with pytest.raises(errors.InsufficientPrivilege):
            connect("test_agent").execute("SELECT pg_terminate_backend(%s)", worker)
        if how != "timeout":
            db.execute(f"SELECT pg_{how}_backend(%s)", [pid])
        thread.join(10)
        assert isinstance(failed[0], errors.AdminShutdown if how == "terminate" else errors.QueryCanceled)
        holder.execute("ROLLBACK")
        while not (
            found := [row for row in denials(db, "policy.denied") if row[0]["blocked_effects"] == [f"proc.exec:{how}"]]
        ):
            assert time.monotonic() < deadline, f"{how}: the record was suppressed"
            time.sleep(0.01)
        assert len(found) == 1 and found[0][0]["denied_in"]["pid"] == pid
    assert clean(db)


def test_a_lock_of_the_denied_transaction_ends_in_an_error(fresh_database, connect):
    database = fresh_database()
    connection = connect(dbname=database)
    connection.execute("SELECT * FROM skill_system.install_starter_policies()")
    before = connection.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone()[0]
    started = time.monotonic()
    with pytest.raises(errors.ConfigurationLimitExceeded) as caught, connection.transaction():
        connection.execute("LOCK TABLE skill_system.audit_logs IN SHARE MODE")
        connection.execute("SELECT skill_system.enforce_policy('dev', array['proc.exec:rm'])")
    assert 4 < time.monotonic() - started < 9
    diag = caught.value.diag
    assert diag.message_primary == "could not record the denial"
    assert "lock timeout" in diag.message_detail and 'policy "dev" does not allow proc.exec:rm' in diag.message_detail
    assert connection.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone()[0] == before
    # The first record ever, whose identity of the log does not depend on the transaction.
    database = fresh_database()
    connection = connect(dbname=database)
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT skill_system.append_audit('first', '{}')")
        deny(connection, "x")
    assert clean(connection)


def test_many_sessions_at_once(db, connect):
    sessions, each = 20, 15
    agents = [connect("test_agent") for _ in range(sessions)]
    failed = []

    def run(number):
        for i in range(each):
            try:
                agents[number].execute(
                    "SELECT skill_system.enforce_policy('dev', array[%s])", [f"proc.exec:{number}/{i}"]
                )
                failed.append("allowed")
            except errors.InsufficientPrivilege:
                pass
            except psycopg.Error as error:
                failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = [effect for row in denials(db, "policy.denied") for effect in row[0]["blocked_effects"] if "/" in effect]
    assert sorted(found) == sorted(f"proc.exec:{number}/{i}" for number in range(sessions) for i in range(each))
    assert clean(db)


def test_without_a_free_worker_nothing_is_dropped_in_silence(new_cluster):
    cluster = new_cluster("max_worker_processes=0", "max_logical_replication_workers=0")
    with cluster.connect() as connection:
        connection.execute("CREATE EXTENSION skill_system")
        connection.execute("SELECT * FROM skill_system.install_starter_policies()")
        with pytest.raises(errors.ConfigurationLimitExceeded) as caught:
            connection.execute("SELECT skill_system.enforce_policy('dev', array['proc.exec:rm'])")
        assert caught.value.diag.message_hint == "Raise max_worker_processes."
        assert caught.value.diag.message_detail == (
            'No background worker was free. policy "dev" does not allow proc.exec:rm: '
            'proc.exec:rm: needs a person by rule "proc.exec" of policy "dev".'
        )
        # Also when the caller swallows the error, the server's log has what was denied.
        connection.execute(
            "DO $$ BEGIN PERFORM skill_system.log_denial('t.swallowed', '{\"tool\": \"rm\"}'); "
            "EXCEPTION WHEN OTHERS THEN NULL; END $$"
        )
        assert denials(connection, "t.swallowed") == []
    log = server_log(cluster.directory)
    assert 'No background worker was free. t.swallowed: {"tool": "rm", "denied_in"' in log


def test_a_flood_of_one_tenant_keeps_no_other_from_the_record(db, connect):
    ends, flooded, answers = time.monotonic() + 6, [], []
    db.execute("CREATE ROLE test_flooder LOGIN IN ROLE skill_system_agent")
    db.execute("ALTER ROLE test_flooder SET skill_system.tenant = 'flood'")
    flooders = [connect("test_flooder") for _ in range(25)]

    def flood(connection):
        while time.monotonic() < ends:
            try:
                deny(connection, "t.flood")
                flooded.append(None)
            except errors.ConfigurationLimitExceeded:
                pass

    threads = [threading.Thread(target=flood, args=(connection,)) for connection in flooders]
    for thread in threads:
        thread.start()
    victim, most = connect("test_agent"), 0
    while time.monotonic() < ends:
        number = len(answers)
        with pytest.raises(errors.InsufficientPrivilege):
            victim.execute("SELECT skill_system.enforce_policy('dev', array[%s])", [f"proc.exec:victim{number}"])
        answers.append(f"proc.exec:victim{number}")
        # Each of them may be on its way out.
        most = max(
            most,
            db.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'skill_system denial'").fetchone()[
                0
            ],
        )
    for thread in threads:
        thread.join()
    assert len(answers) > 5 and flooded and most <= 6
    found = [effect for row in denials(db, "policy.denied") for effect in row[0]["blocked_effects"]]
    assert [effect for effect in found if "victim" in effect] == answers
    assert clean(db)
    db.execute("DROP ROLE test_flooder")
