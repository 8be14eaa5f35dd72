"""Never a stale decision: what one session changes, every other decides by from its next statement after COMMIT on."""

import hashlib
import json
import os
import threading

import psycopg
import pytest
from psycopg import errors

CHECK = "SELECT allowed FROM skill_system.check_policy('p', '{db.read}'::text[])"


def allowed(connection, name="p", effect="db.read"):
    return connection.execute(
        "SELECT allowed FROM skill_system.check_policy(%s, %s::text[])", [name, [effect]]
    ).fetchone()[0]


@pytest.fixture
def sessions(db, connect):
    db.execute("DELETE FROM skill_system.policy_profiles")
    db.execute("SELECT skill_system.create_policy('p', allow => '{db.read}')")
    writer, reader = connect(), connect()
    assert allowed(writer) and allowed(reader)
    return writer, reader


CHANGES = {
    "update": "UPDATE skill_system.policy_profiles SET allowed_effects = '{}' WHERE name = 'p'",
    "deny": "UPDATE skill_system.policy_profiles SET denied_effects = '{db.**}' WHERE name = 'p'",
    "delete": "DELETE FROM skill_system.policy_profiles WHERE name = 'p'",
    "rename": "UPDATE skill_system.policy_profiles SET name = 'q' WHERE name = 'p'",
    "truncate": "TRUNCATE skill_system.policy_profiles CASCADE",
    "merge": (
        "MERGE INTO skill_system.policy_profiles p USING (VALUES ('p')) v(n) ON p.name = v.n WHEN MATCHED THEN "
        "UPDATE SET allowed_effects = '{}'"
    ),
    "upsert": (
        "INSERT INTO skill_system.policy_profiles (name) VALUES ('p') ON CONFLICT (tenant_id, name) DO "
        "UPDATE SET allowed_effects = '{}'"
    ),
    "inherit": (
        "WITH a AS (INSERT INTO skill_system.policy_profiles (name, denied_effects) VALUES ('strict', '{**}') "
        "RETURNING name) SELECT FROM a; UPDATE skill_system.policy_profiles SET inherits = '{strict}' "
        "WHERE name = 'p'"
    ),
}


def change(connection, name):
    if name == "truncate":
        # runs refer to policies; the history of runs is not what is tested here.
        connection.execute("ALTER TABLE skill_system.run_events DISABLE TRIGGER USER")
    connection.execute(CHANGES[name])
    if name == "truncate":
        connection.execute("ALTER TABLE skill_system.run_events ENABLE ALWAYS TRIGGER run_events_no_change")
        connection.execute("ALTER TABLE skill_system.run_events ENABLE ALWAYS TRIGGER run_events_no_truncate")


@pytest.mark.parametrize("name", CHANGES)
def test_a_committed_change_counts_from_the_next_statement_on(sessions, name):
    writer, reader = sessions
    change(writer, name)
    assert allowed(writer) is False
    assert allowed(reader) is False


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "truncate"])
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_it_counts_inside_an_open_transaction_with_a_prepared_statement(sessions, name, level):
    writer, reader = sessions
    reader.execute(f"PREPARE check_p AS {CHECK}")
    for _ in range(6):
        assert reader.execute("EXECUTE check_p").fetchone()[0] is True
    reader.execute(f"BEGIN ISOLATION LEVEL {level}")
    assert reader.execute("EXECUTE check_p").fetchone()[0] is True
    change(writer, name)
    assert reader.execute("EXECUTE check_p").fetchone()[0] is False
    reader.execute("SAVEPOINT s")
    assert allowed(reader) is False
    reader.execute("COMMIT")
    assert reader.execute("EXECUTE check_p").fetchone()[0] is False


@pytest.mark.parametrize("name", CHANGES)
def test_an_uncommitted_change_is_seen_by_oneself_only_and_goes_with_the_rollback(sessions, name):
    writer, reader = sessions
    writer.execute("BEGIN")
    change(writer, name)
    assert allowed(writer) is False
    if name != "truncate":  # which locks the table for everybody who has it to compile
        assert allowed(reader) is True
        with psycopg.connect(
            host=os.environ["PGHOST"], port=os.environ["PGPORT"], user=os.environ["PGUSER"], dbname=writer.info.dbname
        ) as fresh:
            assert allowed(fresh) is True
    writer.execute("ROLLBACK")
    assert allowed(writer) is True
    assert allowed(reader) is True


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_goes_with_the_rollback_to_a_savepoint(sessions, name):
    writer, reader = sessions
    writer.execute("BEGIN")
    assert allowed(writer) is True
    writer.execute("SAVEPOINT s")
    change(writer, name)
    assert allowed(writer) is False
    writer.execute("ROLLBACK TO SAVEPOINT s")
    assert allowed(writer) is True
    writer.execute("COMMIT")
    assert allowed(writer) is True and allowed(reader) is True


def test_a_new_allow_is_withdrawn_by_the_rollback(sessions):
    """The dangerous direction: what was allowed inside a transaction that never was."""
    writer, reader = sessions
    with pytest.raises(errors.DivisionByZero), writer.transaction():
        writer.execute("UPDATE skill_system.policy_profiles SET allowed_effects = '{**}' WHERE name = 'p'")
        assert allowed(writer, effect="proc.exec") is True
        assert allowed(reader, effect="proc.exec") is False
        writer.execute("SELECT 1/0")
    assert allowed(writer, effect="proc.exec") is False
    writer.execute("""DO $$ BEGIN
        BEGIN
            UPDATE skill_system.policy_profiles SET allowed_effects = '{**}' WHERE name = 'p';
            PERFORM skill_system.assert_allows('p', 'proc.exec');
            RAISE EXCEPTION 'undo';
        EXCEPTION WHEN raise_exception THEN NULL; END;
        PERFORM skill_system.assert_denies('p', 'proc.exec');
    END $$""")


def test_a_change_of_a_parent_counts_for_the_children(db, sessions):
    writer, reader = sessions
    for name, parent in (("child", "p"), ("grandchild", "child")):
        db.execute("SELECT skill_system.create_policy(%s, inherits => ARRAY[%s])", [name, parent])
    before = reader.execute(
        "SELECT policy_version, policy_hash FROM skill_system.check_policy('grandchild', '{db.read}'::text[])"
    ).fetchone()
    assert allowed(reader, "grandchild") is True
    writer.execute("UPDATE skill_system.policy_profiles SET denied_effects = '{db.read}' WHERE name = 'p'")
    assert allowed(reader, "grandchild") is False and allowed(writer, "grandchild") is False
    after = reader.execute(
        "SELECT policy_version, policy_hash FROM skill_system.check_policy('grandchild', '{db.read}'::text[])"
    ).fetchone()
    assert after[0] == before[0] + 1 and after[1] != before[1]


def test_two_phase_commit(db, sessions):
    if db.execute("SHOW max_prepared_transactions").fetchone()[0] == "0":
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            with sessions[0].transaction():
                sessions[0].execute("PREPARE TRANSACTION 'x'")
        return
    writer, reader = sessions
    writer.execute("BEGIN")
    change(writer, "update")
    writer.execute("PREPARE TRANSACTION 'test_isolation'")
    assert allowed(reader) is True
    writer.execute("COMMIT PREPARED 'test_isolation'")
    assert allowed(reader) is False and allowed(writer) is False


def test_parallel_workers_agree_with_their_leader(db, sessions):
    writer, _ = sessions
    db.execute("CREATE TABLE IF NOT EXISTS asked (effect text)")
    db.execute("TRUNCATE asked")
    db.execute(
        "INSERT INTO asked SELECT CASE g % 2 WHEN 0 THEN 'db.read' ELSE 'db.write' END FROM generate_series(1, 2000) g"
    )
    db.execute("ANALYZE asked")
    for name, value in {
        "parallel_setup_cost": 0,
        "parallel_tuple_cost": 0,
        "min_parallel_table_scan_size": 0,
        "max_parallel_workers_per_gather": 2,
    }.items():
        writer.execute(f"SET {name} = {value}")
    query = "SELECT count(*) FILTER (WHERE (skill_system.check_policy('p', ARRAY[effect])).allowed) FROM asked"
    plan = "\n".join(row[0] for row in writer.execute(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {query}"))
    assert "Workers Launched: 2" in plan or "Workers Launched: 1" in plan, plan
    assert writer.execute(query).fetchone()[0] == 1000
    with writer.transaction(force_rollback=True):
        # The worker sees the uncommitted change of its leader.
        writer.execute("UPDATE skill_system.policy_profiles SET allowed_effects = '{db.*}' WHERE name = 'p'")
        assert writer.execute(query).fetchone()[0] == 2000
        writer.execute("UPDATE skill_system.policy_profiles SET allowed_effects = '{}' WHERE name = 'p'")
        assert writer.execute(query).fetchone()[0] == 0
    assert writer.execute(query).fetchone()[0] == 1000
    setting = "debug_parallel_query" if writer.info.server_version >= 160000 else "force_parallel_mode"
    writer.execute(f"SET {setting} = on")
    for _ in range(3):
        assert allowed(writer) is True and allowed(writer, effect="db.write") is False
        assert writer.execute("SELECT verdict FROM skill_system.explain_policy('p', '{db.read}')").fetchall() == [
            ("allow",)
        ]
        assert writer.execute(
            "SELECT (skill_system.check_exec('p', '{git}')).allowed, "
            "(skill_system.check_write('p', '/x')).allowed, skill_system.current_tenant()"
        ).fetchone() == (False, False, "default")
    change(sessions[1], "update")
    assert allowed(writer) is False


# ---- many at once


def test_changes_of_one_family_by_many_at_once(db, connect):
    """Eight sessions change parents and children while four decide: no error but those that a retry may answer,
    versions without gaps, and each hash that of its content."""
    db.execute(
        "DELETE FROM skill_system.policy_profiles WHERE name LIKE 'f%' "
        "AND name NOT IN (SELECT unnest(inherits) FROM skill_system.policy_profiles)"
    )
    db.execute(
        "INSERT INTO skill_system.policy_profiles (name, inherits) "
        "VALUES ('f0', '{}'), ('f1', '{f0}'), ('f2', '{f0}'), ('f3', '{f1,f2}'), ('f4', '{f3}')"
    )
    stop, failures, done = threading.Event(), [], []
    where = dict(
        host=os.environ["PGHOST"],
        port=os.environ["PGPORT"],
        user=os.environ["PGUSER"],
        dbname=db.info.dbname,
        autocommit=True,
    )

    def write(number):
        with psycopg.connect(**where) as connection:
            for i in range(30):
                try:
                    connection.execute(
                        "UPDATE skill_system.policy_profiles SET allowed_effects = %s WHERE name = %s",
                        [[f"x.w{number}n{i}", "db.read"], f"f{(number + i) % 5}"],
                    )
                    done.append(1)
                except Exception as error:  # noqa: BLE001
                    failures.append(f"{type(error).__name__}: {error}")

    def read():
        with psycopg.connect(**where) as connection:
            while not stop.is_set():
                try:
                    row = connection.execute(
                        "SELECT allowed, policy_version, policy_hash, reason "
                        "FROM skill_system.check_policy('f4', '{db.read}'::text[])"
                    ).fetchone()
                    seen.append(row[1:3])
                    if row[3] and "does not exist" in row[3]:
                        failures.append(f"reader: {row}")
                except Exception as error:  # noqa: BLE001
                    failures.append(f"{type(error).__name__}: {error}")

    seen = []
    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(120)
    stop.set()
    for thread in readers:
        thread.join(30)
    assert failures == []
    assert len(done) == 240
    check_history(db)
    known = set(
        db.execute("SELECT version, content_hash FROM skill_system.policy_versions WHERE name = 'f4'").fetchall()
    )
    assert seen and set(seen) <= known, "a session decided by a version that never was"


def canonical(content):
    """Compact JSON, keys in byte order."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def check_history(db):
    gaps = db.execute(
        "SELECT policy_profile_id FROM skill_system.policy_versions GROUP BY tenant_id, policy_profile_id "
        "HAVING max(version) <> count(*) OR min(version) <> 1"
    ).fetchall()
    assert gaps == []
    versions = db.execute(
        "SELECT tenant_id, name, version, content, content_hash FROM skill_system.policy_versions"
    ).fetchall()
    hashes = {hash_ for *_, hash_ in versions}
    for _, name, version, content, hash_ in versions:
        if content is None:
            assert hash_ is None
            continue
        assert hash_ == "sha256:" + hashlib.sha256(canonical(content).encode()).hexdigest(), (name, version)
        for list_ in ("allowed_effects", "ask_effects", "denied_effects", "allowed_exec", "allowed_write_roots"):
            assert content[list_] == sorted(set(content[list_]), key=str.encode)
        for parent in content["inherits"]:
            assert parent["sha256"] in hashes
    current = db.execute(
        "SELECT p.name FROM skill_system.policy_profiles p LEFT "
        "JOIN skill_system.policy_versions v ON (v.tenant_id, v.policy_profile_id, v.version) = (p.tenant_id, "
        "p.id, p.version) "
        "WHERE v.content_hash IS DISTINCT FROM p.content_hash OR v.name <> p.name"
    ).fetchall()
    assert current == []
    # The hash that check_policy() reports is that of the version in force, no matter which session computes it.
    wrong = db.execute(
        "SELECT p.name FROM skill_system.policy_profiles p, "
        "skill_system.check_policy(p.name, '{}'::text[]) c "
        "WHERE p.tenant_id = skill_system.current_tenant() "
        "AND (c.policy_hash, c.policy_version) IS DISTINCT FROM (p.content_hash, p.version)"
    ).fetchall()
    assert wrong == []


def test_the_hash_of_the_history_can_be_recomputed(db):
    db.execute(
        "SELECT skill_system.create_policy('späßig \"x\" 😀', allow => '{db.read,a.b}', "
        "allowed_exec => '{\"git log **\"}', allowed_write_roots => '{/srv/ünï,\"/a,b\"}', "
        'metadata => \'{"b": [1.50, "é\\n"], "a": null}\')'
    )
    check_history(db)


# ---- nothing is written by looking

READING = [
    "SELECT skill_system.check_policy('p', '{db.read}'::text[])",
    "SELECT skill_system.check_policy('p', '[\"db.read\"]'::jsonb)",
    "SELECT skill_system.check_policy('nobody', '{db.read}'::text)",
    "SELECT skill_system.check_exec('p', '{git}')",
    "SELECT skill_system.check_write('p', '/x')",
    "SELECT skill_system.explain_policy('p', '{db.read}')",
    "SELECT skill_system.effective_policy('p')",
    "SELECT skill_system.lint_policy('p')",
    "SELECT skill_system.assert_allows('p', 'db.read')",
    "SELECT skill_system.enforce_policy('p', '{db.read}'::text[])",
    "SELECT skill_system.current_tenant()",
    "SELECT skill_system.verify_audit()",
    "SELECT skill_system.audit_status()",
    "SELECT * FROM skill_system.health()",
    "SELECT skill_system.effect_problem('x')",
    "SELECT * FROM skill_system.run_stats",
    "SELECT * FROM skill_system.stuck_runs",
    "SELECT skill_system.version_info()",
]


@pytest.mark.parametrize("statement", READING)
def test_reading_takes_no_transaction_id_and_works_read_only(sessions, statement):
    _, reader = sessions
    with reader.transaction():
        reader.execute("SET TRANSACTION READ ONLY")
        reader.execute(statement)
        assert reader.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()[0] is None
    with reader.transaction():
        reader.execute(statement)
        assert reader.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()[0] is None
