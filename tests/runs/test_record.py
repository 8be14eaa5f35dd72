"""What agents write with plain SQL and with their clocks: it is recorded, bounded, and decides nothing of the server's."""

import threading

import pytest

from sessions import refused

ABSURD = ["infinity", "-infinity", "0001-12-31 BC", "10000-01-01", "294276-12-31", "4714-11-24 BC"]


def one(connection, statement, *parameters):
    row = connection.execute(statement, parameters).fetchone()
    return row[0] if row and len(row) == 1 else row


def records(db, run):
    return db.execute(
        "SELECT event_type, event_data, session_user_name, actor_id FROM skill_system.audit_logs "
        "WHERE event_data->'run_id' = to_jsonb(%s::bigint) ORDER BY recorded_at",
        [run],
    ).fetchall()


@pytest.fixture
def agent(roles, connect):
    return connect("test_agent")


# ---- plain INSERT and UPDATE


def test_plain_statements_leave_records(db, agent):
    run = one(
        agent,
        "INSERT INTO skill_system.runs (goal, agent_id, status, effective_policy) "
        "VALUES (repeat('g', 500), 'coder', 'running', '{\"policy\": \"locked\"}') RETURNING id",
    )
    agent.execute("UPDATE skill_system.runs SET metrics = '{\"steps\": 9}', error = 'odd' WHERE id = %s", [run])
    agent.execute("UPDATE skill_system.runs SET goal = goal WHERE id = %s", [run])
    agent.execute("UPDATE skill_system.runs SET status = 'succeeded', ended_at = now() WHERE id = %s", [run])
    common = {"run_id": run, "goal": "g" * 200, "policy": "locked"}
    assert records(db, run) == [
        ("run.inserted", common | {"status": "running", "error": None}, "test_agent", "coder"),
        (
            "run.updated",
            common | {"status": "running", "from": "running", "error": "odd", "changed": ["metrics", "error"]},
            "test_agent",
            "coder",
        ),
        (
            "run.updated",
            common
            | {
                "status": "succeeded",
                "from": "running",
                "error": "odd",
                "changed": ["status", "ended_at", "closed_at"],
            },
            "test_agent",
            "coder",
        ),
    ]


def test_each_row_of_a_statement_and_each_way_to_write_it(db, agent):
    runs = [
        row[0]
        for row in agent.execute(
            "INSERT INTO skill_system.runs (goal) SELECT 'many' FROM generate_series(1, 3) RETURNING id"
        )
    ]
    agent.execute("UPDATE skill_system.runs SET agent_id = 'x' WHERE id = ANY(%s)", [runs])
    agent.execute(
        "MERGE INTO skill_system.runs r USING (VALUES (%s::bigint)) AS v(id) ON r.id = v.id "
        "WHEN MATCHED THEN UPDATE SET goal = 'merged' WHEN NOT MATCHED THEN INSERT (goal) VALUES ('never')",
        [runs[0]],
    )
    assert [[event for event, *_ in records(db, run)] for run in runs] == [
        ["run.inserted", "run.updated", "run.updated"],
        ["run.inserted", "run.updated"],
        ["run.inserted", "run.updated"],
    ]


def test_the_functions_record_once(db, agent):
    for session in (db, agent):
        run = one(session, "SELECT skill_system.start_run('once')")
        session.execute("SELECT skill_system.log_step(%s, 's', 'o')", [run])
        session.execute("SELECT skill_system.finish_run(%s, 'ok')", [run])
        assert [event for event, *_ in records(db, run)] == ["run.started", "run.finished"]
        run = one(session, "SELECT skill_system.log_run('s', 'o', 'ok')")
        assert [event for event, *_ in records(db, run)] == ["run.logged"]


def test_a_deleted_policy_is_no_change_of_its_runs(db, agent):
    db.execute("SELECT skill_system.create_policy('passing', allow => '{db.read}')")
    run = one(agent, "SELECT skill_system.start_run('under a policy', policy_name => 'passing')")
    db.execute("DELETE FROM skill_system.policy_profiles WHERE name = 'passing'")
    assert [event for event, *_ in records(db, run)] == ["run.started"]


# ---- times


@pytest.mark.parametrize("time", ABSURD)
def test_absurd_times_are_refused_where_they_are_written(db, agent, time):
    run = one(agent, "SELECT skill_system.start_run('x')")
    for session in (agent, db):
        for statement in (
            "INSERT INTO skill_system.run_events (run_id, ts, event_type) VALUES (%(run)s, %(time)s, 'note')",
            "INSERT INTO skill_system.runs (goal, started_at) VALUES ('x', %(time)s)",
            "INSERT INTO skill_system.runs (goal, status, ended_at) VALUES ('x', 'failed', %(time)s)",
            "UPDATE skill_system.runs SET started_at = %(time)s WHERE id = %(run)s",
            "UPDATE skill_system.runs SET ended_at = %(time)s, status = 'failed' WHERE id = %(run)s",
            "SELECT skill_system.log_events(%(run)s, jsonb_build_array(jsonb_build_object("
            "'event_type', 'note', 'ts', %(time)s::text)))",
        ):
            refused(session, "22023", statement, {"run": run, "time": time})


@pytest.mark.parametrize("time", ["2999-01-01", "9999-12-31", "tomorrow", "in 10 minutes"])
def test_what_happened_is_not_in_the_future(db, agent, time):
    run = one(agent, "SELECT skill_system.start_run('x')")
    if time.startswith("in "):
        time = str(one(db, "SELECT now() + interval '10 minutes'"))
    arguments = {"run": run, "time": time}
    for statement in (
        "INSERT INTO skill_system.run_events (run_id, ts, event_type) VALUES (%(run)s, %(time)s, 'note')",
        "INSERT INTO skill_system.runs (goal, started_at) VALUES ('x', %(time)s)",
        "UPDATE skill_system.runs SET ended_at = %(time)s WHERE id = %(run)s",
    ):
        assert "future" in str(refused(agent, "22023", statement, arguments))
    for session in (agent, db):
        error = refused(
            session,
            "22023",
            'SELECT skill_system.log_events(%(run)s, jsonb_build_array(\'{"event_type": "a"}\'::jsonb, '
            "jsonb_build_object('event_type', 'note', 'ts', %(time)s::text)))",
            arguments,
        )
        assert "event 2 is malformed" in str(error) and "future" in error.diag.message_detail
    # A caller's clock may be a little ahead, and the past is free.
    agent.execute(
        "INSERT INTO skill_system.run_events (run_id, ts, event_type) VALUES (%s, now() + interval '4 minutes', 'a'), "
        "(%s, '1990-01-01', 'b')",
        [run, run],
    )


def test_nothing_that_is_stored_breaks_the_monitoring(fresh_database, roles, connect):
    """Rows as an older version took them."""
    name = fresh_database()
    db = connect(dbname=name)
    db.execute("SET skill_system.stuck_after = '10min'")
    old = "now() - interval '1 hour'"
    runs = {}
    for time in [*ABSURD, "2999-01-01"]:
        with db.transaction():
            db.execute("SET LOCAL session_replication_role = replica")
            runs[time] = one(
                db,
                "INSERT INTO skill_system.runs (goal, status, started_at, ended_at, created_at) "
                f"VALUES ('x', 'running', %s, %s, {old}) RETURNING id",
                time,
                time,
            )
            db.execute(
                "INSERT INTO skill_system.run_events (run_id, ts, event_type, payload) VALUES (%s, %s, "
                '\'step_completed\', \'{"skill": "s", "duration_ms": 5}\')',
                [runs[time], time],
            )
            db.execute(
                "INSERT INTO skill_system.runs (goal, status, ended_at, created_at) VALUES ('x', 'failed', %s, %s)",
                [time, time],
            )
            db.execute(
                "INSERT INTO skill_system.compliance_status (entity_id, entity_type, compliance_domain, status, deadline) "
                "VALUES ('e', 'well', %s, 'action_needed', %s)",
                [time, time],
            )
    for role in (None, "test_auditor", "test_admin"):
        session = connect(role, dbname=name)
        for view in (
            "runs_in_progress",
            "stuck_runs",
            "run_stats",
            "compliance_cells",
            "compliance_counts",
            "compliance_matrix()",
            "health()",
            *(f"due_filings({days})" for days in (30, 0, -1, 2**31 - 1, -(2**31))),
            "compliance_report('json')",
            "compliance_report('html')",
            "oscal_assessment_results()",
        ):
            # As text of the server: the client cannot read infinite times.
            session.execute(f"SELECT t::text FROM skill_system.{view} t").fetchall()
        for run in runs.values():
            session.execute("SELECT skill_system.run_otlp(%s)", [run]).fetchall()
    # The future and the infinities hide nothing: each of these has been silent for an hour.
    stuck = {
        row[0] for row in db.execute("SELECT id FROM skill_system.stuck_runs WHERE silent_for > interval '59 minutes'")
    }
    assert stuck == set(runs.values())
    db.execute("SET skill_system.run_retention = '30d'")
    db.execute("SELECT * FROM skill_system.maintain()")


def test_null_is_refused_as_ever(db, agent):
    run = one(agent, "SELECT skill_system.start_run('x')")
    for session in (agent, db):
        for statement in (
            "INSERT INTO skill_system.run_events (run_id, ts, event_type) VALUES (%(run)s, NULL, 'step_completed')",
            "INSERT INTO skill_system.run_events (event_type) VALUES ('step_completed')",
            "INSERT INTO skill_system.run_events (run_id, ts) VALUES (%(run)s, '1990-01-01')",
            "INSERT INTO skill_system.runs (status, started_at) VALUES (NULL, '1990-01-01')",
            "UPDATE skill_system.runs SET status = NULL WHERE id = %(run)s",
            "UPDATE skill_system.runs SET status = NULL, ended_at = '1990-01-01' WHERE id = %(run)s",
        ):
            refused(session, "23502", statement, {"run": run})


# ---- retention


def test_an_agent_does_not_decide_how_long_a_run_is_kept(fresh_database, roles, connect):
    name = fresh_database()
    db, agent, admin = (connect(role, dbname=name) for role in (None, "test_agent", "test_admin"))
    db.execute(f"ALTER DATABASE {name} SET skill_system.run_retention = '30d'")
    admin = connect("test_admin", dbname=name)
    assert one(admin, "SHOW skill_system.run_retention") == "30d"
    fresh = [
        one(agent, f"INSERT INTO skill_system.runs ({columns}) VALUES ({values}) RETURNING id")
        for columns, values in [
            ("status, ended_at", "'succeeded', '1970-01-01'"),
            ("status, started_at, ended_at", "'failed', '1970-01-01', '1970-01-02'"),
            ("status, started_at", "'cancelled', '1970-01-01'"),
        ]
    ]
    for change in (
        "status = 'succeeded', ended_at = '1970-01-01'",
        "status = 'failed', started_at = '1970-01-01', ended_at = '1970-01-01'",
    ):
        run = one(agent, "SELECT skill_system.start_run('evidence')")
        agent.execute("SELECT skill_system.log_event(%s, 'evidence')", [run])
        agent.execute(f"UPDATE skill_system.runs SET {change} WHERE id = %s", [run])
        fresh.append(run)
    run = one(agent, "INSERT INTO skill_system.runs (status, started_at) VALUES ('running', '1970-01-01') RETURNING id")
    agent.execute("UPDATE skill_system.runs SET ended_at = '1970-01-01' WHERE id = %s", [run])
    agent.execute("SELECT skill_system.finish_run(%s, 'ok')", [run])
    fresh.append(run)
    # By the server's clock these are old, whatever their times pretend.
    due = "now() - interval '31 days'"
    for values in (f"'failed', now(), {due}, NULL", f"'failed', NULL, {due}, NULL", f"'failed', now(), now(), {due}"):
        db.execute(f"INSERT INTO skill_system.runs (status, ended_at, created_at, closed_at) VALUES ({values})")
    for column in ("closed_at", "created_at", "created_by", "request_digest"):
        refused(agent, "42501", f"UPDATE skill_system.runs SET {column} = NULL")
    tasks = {row[0]: row[1:] for row in admin.execute("SELECT * FROM skill_system.maintain()")}
    assert tasks["run_retention"][0] == 3
    assert [row[0] for row in db.execute("SELECT id FROM skill_system.runs ORDER BY 1")] == fresh


def test_an_administrator_maintains_one_tenant(fresh_database, roles, connect):
    name = fresh_database()
    db = connect(dbname=name)
    db.execute(f"ALTER DATABASE {name} SET skill_system.run_retention = '30d'")
    for tenant in ("default", "other"):
        db.execute(
            "INSERT INTO skill_system.runs (tenant_id, status, created_at) "
            "VALUES (%s, 'failed', now() - interval '31 days')",
            [tenant],
        )
    # The order of the tenants does not matter, nor which of them has something to delete.
    for rest in (1, 0):
        admin = connect("test_admin", dbname=name)
        tasks = {row[0]: row[1:] for row in admin.execute("SELECT * FROM skill_system.maintain()")}
        assert tasks["run_retention"][0] == rest
        assert 'only for tenant "default"' in tasks["run_retention"][1]
    assert db.execute("SELECT tenant_id FROM skill_system.runs").fetchall() == [("other",)]
    owner = connect(dbname=name)
    tasks = {row[0]: row[1:] for row in owner.execute("SELECT * FROM skill_system.maintain()")}
    assert tasks["run_retention"] == (1, "nothing older remains")
    assert db.execute(
        "SELECT tenant_id, session_user_name FROM skill_system.audit_logs WHERE event_type = 'runs.deleted' ORDER BY 1"
    ).fetchall() == [("default", "test_admin"), ("other", db.info.user)]


# ---- steps after the end


def test_no_step_after_the_end_by_any_way(db, agent):
    for session in (agent, db):
        run = one(session, "SELECT skill_system.start_run('r')")
        session.execute("SELECT skill_system.finish_run(%s, 'ok')", [run])
        event = '{"event_type": "%s", "payload": {"skill": "s", "metrics": {"cost_usd": 9}}}'
        for statement in (
            "SELECT skill_system.log_step(%s, 's', 'late')",
            "SELECT skill_system.log_event(%s, 'step_completed')",
            "SELECT skill_system.log_event(%s, 'step_started')",
            f"SELECT skill_system.log_events(%s, '[{event % 'note'}, {event % 'step_completed'}]')",
        ):
            refused(session, "55000", statement, [run])
        session.execute(f"SELECT skill_system.log_events(%s, '[{event % 'note'}]')", [run])
    refused(
        agent,
        "55000",
        "INSERT INTO skill_system.run_events (run_id, event_type, payload) VALUES (%s, 'step_completed', '{}')",
        [run],
    )
    assert one(db, "SELECT count(*) FROM skill_system.run_events WHERE run_id = %s", run) == 1


def test_the_end_waits_for_the_steps_of_others(db, roles, connect):
    for statement in (
        'SELECT skill_system.log_events(%s, \'[{"event_type": "step_completed"}]\')',
        "SELECT skill_system.log_event(%s, 'step_completed')",
        "INSERT INTO skill_system.run_events (run_id, event_type) VALUES (%s, 'step_completed')",
    ):
        one_agent, other = connect("test_agent"), connect("test_agent")
        run = one(one_agent, "SELECT skill_system.start_run('race')")
        with one_agent.transaction():
            one_agent.execute(statement, [run])
            end = threading.Thread(target=other.execute, args=("SELECT skill_system.finish_run(%s, 'ok')", [run]))
            end.start()
            while not one(
                db, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", other.info.backend_pid
            ):
                assert end.is_alive()
        end.join(20)
        assert one(db, "SELECT metrics->'steps' FROM skill_system.runs WHERE id = %s", run) == 1, statement


# ---- idempotency keys


def test_a_key_belongs_to_a_role_and_an_agent(db, agent, connect):
    if one(db, "SELECT count(*) FROM pg_roles WHERE rolname = 'test_agent_two'") == 0:
        db.execute("CREATE ROLE test_agent_two LOGIN IN ROLE skill_system_agent")
    other = connect("test_agent_two")
    squatted = [
        one(session, "SELECT skill_system.start_run('decoy', agent_id => %s, idempotency_key => 'job')", name)
        for session, name in ((other, None), (other, "victim"), (agent, None))
    ]
    run = one(
        agent,
        "SELECT skill_system.log_run('delete-wells', 'go', 'ok', 1, NULL, 'victim', 'mine', idempotency_key => 'job')",
    )
    assert run not in squatted
    assert one(db, "SELECT goal, created_by FROM skill_system.runs WHERE id = %s", run) == ("mine", "test_agent")
    # The key of a plain INSERT stands for no call.
    agent.execute("INSERT INTO skill_system.runs (goal, idempotency_key) VALUES ('plain', 'taken')")
    refused(agent, "22023", "SELECT skill_system.start_run('plain', idempotency_key => 'taken')")
    other.execute("SELECT skill_system.start_run('plain', idempotency_key => 'taken')")


def test_a_key_stands_for_its_content(db, agent):
    call = (
        "SELECT skill_system.log_run(%(skill)s, %(operation)s, %(status)s, %(duration)s, NULL, NULL, %(goal)s, "
        "%(error)s, %(metrics)s, %(payload)s, 'content')"
    )
    first = {
        "skill": "a",
        "operation": "b",
        "status": "ok",
        "duration": 5,
        "goal": None,
        "error": None,
        "metrics": "{}",
        "payload": '{"a": 1, "b": 2}',
    }
    run = agent.execute(call, first).fetchone()[0]
    # Another spelling is the same content.
    for same in ({}, {"status": "success"}, {"metrics": None}, {"payload": '{"b":2,"a":1}'}):
        assert agent.execute(call, first | same).fetchone()[0] == run, same
    for other in (
        {"skill": "x"},
        {"operation": "y"},
        {"status": "error"},
        {"duration": 7},
        {"duration": None},
        {"goal": "g"},
        {"goal": ""},
        {"error": "e"},
        {"metrics": '{"cost_usd": 1}'},
        {"payload": '{"a": 1}'},
    ):
        error = refused(agent, "22023", call, first | other)
        assert "idempotency_key" in error.diag.message_primary and str(run) in error.diag.message_detail
        assert error.diag.message_hint
    refused(agent, "22023", "SELECT skill_system.start_run('a', idempotency_key => 'content')")
    run = one(
        agent, "SELECT skill_system.start_run('g', agent_id => 'x', metrics => '{\"a\": 1}', idempotency_key => 's')"
    )
    assert (
        one(
            agent,
            "SELECT skill_system.start_run('g', agent_id => 'x', metrics => '{\"a\": 1}', idempotency_key => 's')",
        )
        == run
    )
    for other in (
        "'h', agent_id => 'x', metrics => '{\"a\": 1}'",
        "'g', agent_id => 'x'",
        "'g', agent_id => 'x', metrics => '{\"a\": 2}'",
    ):
        refused(agent, "22023", f"SELECT skill_system.start_run({other}, idempotency_key => 's')")
    assert one(db, "SELECT count(*) FROM skill_system.runs WHERE idempotency_key IN ('content', 's')") == 2
