"""import_legacy() and code of those who own the old schema, or parts of it: nothing of it runs with the caller's rights."""

import pytest
from psycopg import errors

TABLES = """
    CREATE TABLE {s}.policy_profiles (id bigint, name text, allowed_effects text[], allowed_exec text[],
        allowed_write_roots text[], metadata jsonb, created_at timestamptz);
    CREATE TABLE {s}.run_events (id bigint, run_id bigint, ts timestamptz, level text, event_type text, payload jsonb);
    CREATE TABLE {s}.task_specs (id bigint, goal text, policy_profile_id bigint, kind {s}.state, created_at timestamptz);
    CREATE TABLE {s}.artifacts (id bigint, run_id bigint, kind {s}.state, created_at timestamptz);
    CREATE TABLE {s}.runs (id bigint, goal text, agent_id text, policy_profile_id bigint, task_spec_id bigint,
        status {s}.state, started_at timestamptz, ended_at timestamptz, effective_policy jsonb, metrics jsonb, error text,
        created_at timestamptz)"""
ROWS = """
    INSERT INTO {s}.policy_profiles VALUES (1, 'p', '{{db.read}}', '{{}}', '{{}}', '{{}}', '2025-01-01');
    INSERT INTO {s}.task_specs VALUES (1, 'the goal', 1, 'queued', '2025-01-01');
    INSERT INTO {s}.runs VALUES (1, NULL, 'a', NULL, 1, 'failed', '2025-01-01', '2025-01-02 03:04:05.123456', '{{}}', '{{}}', 'e',
        '2025-01-01');
    INSERT INTO {s}.run_events VALUES (1, 1, '2025-01-01', 'info', 'step', '{{"n": 12345678901234567890.10}}');
    INSERT INTO {s}.artifacts VALUES (1, 1, 'running', '2025-01-01')"""
# Where the server may run it while somebody else only reads.
CODE = [
    "CREATE FUNCTION {s}.as_text({s}.state) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM {s}.check(1); "
    "RETURN 'succeeded'; END$$; CREATE CAST ({s}.state AS text) WITH FUNCTION {s}.as_text({s}.state) AS IMPLICIT",
    "CREATE FUNCTION {s}.as_json({s}.state) RETURNS json LANGUAGE plpgsql AS $$BEGIN PERFORM {s}.check(1); "
    "RETURN '\"cast\"'; END$$; CREATE CAST ({s}.state AS json) WITH FUNCTION {s}.as_json({s}.state)",
    "CREATE INDEX ON {s}.runs ((id + {s}.check(1)))",
    "CREATE INDEX ON {s}.run_events (id) WHERE {s}.check(1) = 1",
    "CREATE STATISTICS {s}.stats ON (id + {s}.check(1)), (run_id + {s}.check(2)) FROM {s}.run_events",
    "ALTER TABLE {s}.runs ADD CHECK (id > {s}.check(1) - 1)",
    "ALTER TABLE {s}.runs ALTER error SET DEFAULT {s}.check(1)::text",
    "CREATE FUNCTION {s}.fire() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM {s}.check(1); RETURN NULL; END$$; "
    "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {s}.runs EXECUTE FUNCTION {s}.fire()",
    "CREATE FUNCTION {s}.concat({s}.state) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM {s}.check(1); "
    "RETURN 'succeeded'; END$$; ALTER ROLE CURRENT_USER SET search_path = {s}, pg_catalog",
]


@pytest.fixture(scope="module")
def owner(db):
    db.execute("DROP ROLE IF EXISTS legacy_owner")
    db.execute("CREATE ROLE legacy_owner LOGIN")
    db.execute("SET client_min_messages = error")
    yield "legacy_owner"
    db.execute("DROP OWNED BY legacy_owner; DROP ROLE legacy_owner")


@pytest.fixture
def schema(db, owner, connect):
    """An old schema with rows, whose owner is not a superuser; each test has it in a separate tenant."""
    name = "old_skills"
    db.execute(f"CREATE SCHEMA {name} AUTHORIZATION {owner}")
    as_owner = connect(owner)
    as_owner.execute(
        f"CREATE TYPE {name}.state AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled'); "
        f"CREATE FUNCTION {name}.check(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$BEGIN "
        "IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN "
        "RAISE EXCEPTION 'ran as a superuser'; END IF; RETURN $1; END$$"
    )
    as_owner.execute(TABLES.format(s=name))
    as_owner.execute(ROWS.format(s=name))
    db.execute("SET skill_system.tenant = 'import'")
    db.execute("BEGIN")
    yield name, as_owner
    db.execute("ROLLBACK")
    db.execute("RESET skill_system.tenant")
    db.execute(f"DROP SCHEMA {name} CASCADE")


def imported(db, schema):
    """What came of it: the runs, the extra events."""
    rows = db.execute("SELECT table_name, imported, skipped FROM skill_system.import_legacy(%s)", [schema]).fetchall()
    assert [row[1:] for row in rows] == [(1, 0)] * 5, rows
    run = "SELECT goal, status::text, policy_profile_id, ended_at = '2025-01-02 03:04:05.123456' FROM skill_system.runs"
    assert db.execute(run).fetchall() == [("the goal", "failed", 1, True)]
    found = dict(
        db.execute(
            "SELECT event_type, payload::text FROM skill_system.run_events WHERE tenant_id = 'import'"
        ).fetchall()
    )
    assert found["step"] == '{"n": 12345678901234567890.10}'
    assert '"kind": "queued"' in found["task_spec"] and '"kind": "running"' in found["artifact"]


@pytest.mark.parametrize("code", CODE)
def test_code_of_the_owner(db, schema, code):
    name, as_owner = schema
    as_owner.execute(code.format(s=name))
    imported(db, name)


def test_a_type_of_somebody_else_in_a_superusers_tables(db, schema):
    """Its owner defines the casts."""
    name, as_owner = schema
    as_owner.execute(CODE[0].format(s=name))
    as_owner.execute(CODE[1].format(s=name))
    for table in ("policy_profiles", "runs", "run_events", "task_specs", "artifacts"):
        db.execute(f"ALTER TABLE {name}.{table} OWNER TO CURRENT_USER")
    db.execute(f"ALTER SCHEMA {name} OWNER TO CURRENT_USER")
    imported(db, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE {s}.runs RENAME TO r; CREATE VIEW {s}.runs AS SELECT * FROM {s}.r", "not an ordinary table"),
        (
            "ALTER TABLE {s}.runs RENAME TO r; CREATE MATERIALIZED VIEW {s}.runs AS SELECT * FROM {s}.r",
            "not an ordinary",
        ),
        (
            "DROP TABLE {s}.run_events; CREATE TABLE {s}.run_events (id bigint) PARTITION BY LIST (id)",
            "not an ordinary",
        ),
        ("ALTER TABLE {s}.artifacts RENAME TO a; CREATE VIEW {s}.artifacts AS SELECT * FROM {s}.a", "not an ordinary"),
        ("ALTER TABLE {s}.runs ENABLE ROW LEVEL SECURITY", "has row security"),
        ("CREATE RULE r AS ON DELETE TO {s}.runs DO INSTEAD NOTHING", "has rules"),
        ("CREATE TABLE {s}.child () INHERITS ({s}.runs)", "inheritance tree"),
        ("ALTER TABLE {s}.runs ADD g bigint GENERATED ALWAYS AS ({s}.check(id)) STORED", "generated columns"),
        (
            "CREATE DOMAIN {s}.d AS text CHECK ({s}.check(1) = 1); ALTER TABLE {s}.runs ALTER goal TYPE {s}.d",
            "runs.goal has type",
        ),
        ("ALTER TABLE {s}.policy_profiles ALTER allowed_effects TYPE bigint USING 4702111234474983745", "not text"),
        ("ALTER TABLE {s}.policy_profiles ALTER id TYPE numeric", "policy_profiles.id has type numeric, not bigint"),
        ("ALTER TABLE {s}.runs ALTER started_at TYPE bigint USING 1", "runs.started_at has type bigint"),
        ("ALTER TABLE {s}.run_events ALTER payload TYPE {s}.state USING NULL", "run_events.payload has type"),
        ("ALTER TABLE {s}.task_specs ALTER goal TYPE bytea USING NULL", "task_specs.goal has type bytea"),
    ],
)
def test_other_objects_are_refused(db, schema, change, message):
    name, as_owner = schema
    as_owner.execute(change.format(s=name))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match=message):
        db.execute("SELECT skill_system.import_legacy(%s)", [name])


def test_whose_tables(db, schema, connect):
    name, as_owner = schema
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="do not belong to one role"):
        with db.transaction():
            db.execute(f"ALTER TABLE {name}.task_specs OWNER TO CURRENT_USER")
            db.execute("SELECT skill_system.import_legacy(%s)", [name])
    # The owner of the schema could exchange what a superuser's tables are called.
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="do not belong to one role"):
        with db.transaction():
            for table in ("policy_profiles", "runs", "run_events", "task_specs", "artifacts"):
                db.execute(f"ALTER TABLE {name}.{table} OWNER TO CURRENT_USER")
            db.execute("SELECT skill_system.import_legacy(%s)", [name])
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied for schema"):
        with db.transaction():
            db.execute("CREATE ROLE importer; GRANT skill_system_admin TO importer")
            db.execute("GRANT EXECUTE ON FUNCTION skill_system.import_legacy(text) TO importer")
            db.execute("SET LOCAL ROLE importer")
            db.execute("SELECT skill_system.import_legacy(%s)", [name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE {s}.policy_profiles DROP name", "column policy_profiles.name does not exist in schema {s}"),
        ("ALTER TABLE {s}.runs DROP metrics", "column runs.metrics does not exist in schema {s}"),
        ("ALTER TABLE {s}.run_events DROP payload", "column run_events.payload does not exist in schema {s}"),
        ("ALTER TABLE {s}.artifacts DROP run_id", "column artifacts.run_id does not exist in schema {s}"),
        (
            "INSERT INTO {s}.policy_profiles (id) VALUES (77)",
            "policy_profiles.name of schema {s} is NULL in the row with id 77",
        ),
        ("UPDATE {s}.policy_profiles SET id = NULL", r"policy_profiles.id of schema {s} is NULL in the row at \(0,2\)"),
        ("UPDATE {s}.runs SET created_at = NULL", "runs.created_at of schema {s} is NULL in the row with id 1"),
        ("UPDATE {s}.run_events SET run_id = NULL", "run_events.run_id of schema {s} is NULL in the row with id 1"),
    ],
)
def test_missing_columns_and_values_are_named(db, schema, change, message):
    name, as_owner = schema
    as_owner.execute(change.format(s=name))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match=message.format(s=name)):
        db.execute("SELECT skill_system.import_legacy(%s)", [name])


@pytest.mark.parametrize("table", ["policy_profiles", "runs", "run_events"])
@pytest.mark.parametrize("where", ["row", "sequence"])
@pytest.mark.parametrize("number", [2**63 - 1, 2**53])
def test_an_id_after_which_none_comes_is_refused(db, schema, table, where, number):
    name, as_owner = schema
    if where == "row":
        as_owner.execute(f"UPDATE {name}.{table} SET id = %s", [number])
    else:
        as_owner.execute(f"CREATE SEQUENCE {name}.ids OWNED BY {name}.{table}.id")
        as_owner.execute(f"SELECT setval('{name}.ids', %s)", [number])
    with pytest.raises(errors.InvalidParameterValue) as caught:
        db.execute("SELECT * FROM skill_system.import_legacy(%s)", [name])
    assert caught.value.diag.message_primary == f"id {number} of {table} is too large"


def test_new_ids_follow_the_highest_that_is_imported(db, schema):
    name, as_owner = schema
    highest = 2**53 - 1
    for table in ("policy_profiles", "runs", "run_events"):
        as_owner.execute(f"UPDATE {name}.{table} SET id = %s", [highest])
    for table in ("run_events", "artifacts"):
        as_owner.execute(f"UPDATE {name}.{table} SET run_id = %s", [highest])
    # Rows that somebody numbered, before the import, do not count.
    db.execute("INSERT INTO skill_system.runs (id, goal) VALUES (9223372036854775807, 'x')")
    db.execute("SELECT * FROM skill_system.import_legacy(%s)", [name])
    assert db.execute("SELECT skill_system.log_run('s', 'o', 'ok')").fetchone() == (highest + 1,)
    for table in ("policy_profiles", "run_events"):
        assert db.execute(f"SELECT nextval('skill_system.{table}_id_seq') > %s", [highest]).fetchone() == (True,)
