"""What a superuser declares wrongly is an ordinary error: functions over the library's symbols with other types, tables
with other columns, an old schema with other columns. Each attempt is rolled back; a session that only watches would end
with any backend that crashes."""

import os
import re

import psycopg
import pytest
from conftest import ROOT

# Each type with a value; none of them is one that every text parses as.
VALUES = {
    "integer": "7",
    "bigint": "8000000000",
    "boolean": "true",
    "double precision": "1.5",
    "text": "'x'",
    "name": "'x'",
    "uuid": "'12345678-1234-1234-1234-123456789abc'",
    "jsonb": """'{"a": [1]}'""",
    "bytea": r"'\x01'",
    "timestamp with time zone": "'2026-01-02'",
    "text[]": "'{a,NULL}'",
    "integer[]": "'{{1,2},{3,4}}'",
    "wrong.number": "7",
    "wrong.word": "'x'",
    "wrong.label": "'x'",
}
WRONG = """
    CREATE SCHEMA wrong;
    CREATE DOMAIN wrong.number AS integer;
    CREATE DOMAIN wrong.word AS text;
    CREATE TYPE wrong.label AS ENUM ('x', 'running');
    CREATE TYPE wrong.pair AS (a integer, b text);
    -- Runs statements one after the other and takes all of it back: the SQLSTATE and the message of the one that failed.
    CREATE FUNCTION wrong.attempt(VARIADIC statements text[]) RETURNS text LANGUAGE plpgsql AS $$
        DECLARE
            statement text;
        BEGIN
            FOREACH statement IN ARRAY statements LOOP EXECUTE statement; END LOOP;
            RAISE EXCEPTION 'nothing failed';
        EXCEPTION WHEN OTHERS THEN
            RETURN CASE WHEN SQLSTATE = 'P0001' AND SQLERRM = 'nothing failed' THEN 'ok' ELSE SQLSTATE || ' ' || SQLERRM END;
        END $$;"""
RESULTS = [
    "void",
    *VALUES,
    "record",
    "wrong.pair",
    "cstring",
    "SETOF text",
    "SETOF wrong.pair",
    "TABLE (a text, b integer)",
]
SYMBOLS = sorted(set(re.findall(r"'MODULE_PATHNAME',\s*'(\w+)'", "".join(
    (ROOT / "sql" / line).read_text() for line in (ROOT / "sql/ORDER").read_text().split() if line.endswith(".sql")
))))  # fmt: skip


@pytest.fixture(scope="module")
def attempt(db, database):
    """Runs statements that are taken back; a backend that crashes takes the watching session with it."""
    db.execute(WRONG)
    db.execute("SET client_min_messages = error; SET statement_timeout = '60s'")
    with psycopg.connect(
        host=os.environ["PGHOST"],
        port=os.environ["PGPORT"],
        user=os.environ["PGUSER"],
        dbname=database,
        autocommit=True,
    ) as watching:
        watching.execute("CREATE TEMP TABLE here ()")
        last = []

        def run(*statements):
            last[:] = statements
            return db.execute("SELECT wrong.attempt(VARIADIC %s)", [list(statements)]).fetchone()[0]

        yield run
        try:
            watching.execute("SELECT FROM here")
        except psycopg.OperationalError:
            pytest.fail(f"the server crashed by {last}")


def declare(symbol, arguments, result):
    return (
        f"CREATE FUNCTION wrong.declared({', '.join(arguments)}) RETURNS {result} "
        f"LANGUAGE c AS '$libdir/skill_system', '{symbol}'"
    )


def call(arguments, null=False, rows=False):
    values = ", ".join("NULL" if null else f"{VALUES.get(a, 'NULL')}::{a}" for a in arguments)
    return f"SELECT * FROM wrong.declared({values})" if rows else f"SELECT wrong.declared({values})"


def declarations(db, symbol):
    """Types of the arguments and of the result of each shipped function over the symbol."""
    return [
        (list(arguments), result)
        for arguments, result in db.execute(
            """SELECT ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u(t, n) ORDER BY n),
                      pg_get_function_result(p.oid)
               FROM pg_proc p WHERE pronamespace = 'skill_system'::regnamespace AND prosrc = %s""",
            [symbol],
        )
    ]


def test_every_symbol_is_declared(db):
    assert len(SYMBOLS) > 100
    assert {row[0] for row in db.execute(
        "SELECT prosrc FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace AND probin LIKE '%skill_system'"
    )} == set(SYMBOLS)  # fmt: skip


# What is read like another type.
LIKE = {"name": "text", "wrong.word": "text", "character varying": "text", "wrong.number": "integer"}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_functions_with_other_arguments(symbol, attempt, db):
    (arguments, result), *_ = declarations(db, symbol)
    declared = {LIKE.get(kind, kind) for kind in arguments}

    def outcome(given, null):
        return attempt(declare(symbol, given, result), call(given, null))

    for null in (False, True):
        outcome(arguments, null)
        if not arguments:
            continue
        # All of them are read at once, whatever their values are.
        for others in ([], arguments[:-1], [*arguments, "text"]):
            assert outcome(others, null).startswith("XX001")
        for kind in VALUES:
            found = outcome([kind] * len(arguments), null)
            if LIKE.get(kind, kind) not in declared:
                assert found.startswith("XX001"), (kind, null, found)
            elif declared != {LIKE.get(kind, kind)}:
                # Some arguments are of this type, and others are not.
                assert found.startswith("XX001"), (kind, null, found)
        # A pseudo-type is never read; 42804 is the server's, where nothing tells which type it stands for.
        for kind in ("anyelement", "anyarray", '"any"'):
            found = outcome([kind] * len(arguments), null)
            assert found.startswith(("XX001", "42804")), (kind, null, found)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_functions_with_other_results(symbol, attempt, db):
    (arguments, result), *_ = declarations(db, symbol)
    same = {result, f"SETOF {result}", "record"} | ({"wrong.word", "SETOF text"} if result.endswith("text") else set())
    same |= {"wrong.number"} if result == "integer" else set()
    # A division by zero: the function answered something that is not NULL.
    answered = call(arguments).replace("SELECT ", "SELECT 1 / (") + " IS NULL)::integer"
    for other in RESULTS:
        outcome = attempt(declare(symbol, arguments, other), answered)
        assert other in same or not outcome.startswith("22012"), (other, outcome)
        if other not in VALUES:
            attempt(declare(symbol, arguments, other), call(arguments, rows=True))


def quote(text):
    return "'" + text.replace("'", "''") + "'"


# What a function that read the table may end with, when a column of it has another type.
OF_THE_TYPE = {
    "XX001": "the library compared the type",
    "55000": "the audit trail compared all columns of its tables",
    "42883": "the server has no such operator or function",
    "42804": "the server: the types do not match",
    "42P18": "the server could not determine a type",
    "23502": "the column that was renamed got no value",
    "22P02": "the server could not read the value as the type of a cast",
    "23514": "the server: a CHECK looks at the column that was renamed",
}


def test_tables_with_other_columns(attempt, db):
    """Functions that read a table one of whose columns has another type. The column is renamed and one of the other type gets
    its name: a change of the type would fail wherever a view, trigger, policy or constraint has the column."""
    db.execute("""
        CREATE FUNCTION wrong.states(calls text[]) RETURNS text LANGUAGE plpgsql AS $$
            DECLARE
                one text;
                states text[];
            BEGIN
                FOREACH one IN ARRAY calls LOOP
                    BEGIN EXECUTE one; states := states || 'ok'::text;
                    EXCEPTION WHEN OTHERS THEN states := states || SQLSTATE::text; END;
                END LOOP;
                RETURN array_to_string(states, ' ');
            END $$;
        CREATE FUNCTION wrong.scans() RETURNS jsonb LANGUAGE sql AS $$
            SELECT jsonb_object_agg(coalesce(pg_partition_root(relid), relid)::regclass, scans) FROM (
                SELECT coalesce(pg_partition_root(relid), relid) AS relid, sum(seq_scan + coalesce(idx_scan, 0)) AS scans
                FROM pg_stat_xact_all_tables WHERE schemaname = 'skill_system' GROUP BY 1) t $$;
        SELECT skill_system.create_policy('p', '{db.read}');
        SELECT skill_system.log_run('s', 'op', 'ok');""")
    values = {"text": "'p'::text", "uuid": "gen_random_uuid()", "bigint": "1::bigint", "integer": "1"}
    calls = [
        f"SELECT * FROM skill_system.{name}({', '.join(values.get(kind, f'NULL::{kind}') for kind in kinds)})"
        for name, kinds in db.execute("""
            SELECT proname, ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes::oid[]) WITH ORDINALITY u(t, n) ORDER BY n)
            FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace AND probin LIKE '%skill_system'
            AND provolatile = 's' AND prokind = 'f' AND prorettype <> 'trigger'::regtype""")
    ]
    calls += ["SELECT skill_system.log_run('s', 'op', 'ok')", "SELECT skill_system.create_policy('q', '{db.read}')"]

    def states(calls, *changes):
        report = f"DO $do$ BEGIN RAISE '%', wrong.states(ARRAY[{', '.join(map(quote, calls))}]); END $do$"
        found = attempt("SET LOCAL skill_system.allow_unprotected = on", *changes, report)
        assert found.startswith("P0001 "), (changes, found)
        return found.split()[1:]

    usual = dict(zip(calls, states(calls), strict=True))
    assert list(usual.values()).count("ok") > 20
    # The calls that read a table.
    reading = {}
    for one in calls:
        with db.transaction(force_rollback=True):
            before = db.execute("SELECT wrong.scans()").fetchone()[0]
            states([one])
            after = db.execute("SELECT wrong.scans()").fetchone()[0]
        for table, scans in after.items():
            if scans != before.get(table, 0):
                reading.setdefault(table, []).append(one)
    assert len(reading) > 20
    columns = db.execute("""
        SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        WHERE c.relnamespace = 'skill_system'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2""")
    wrong, compared = [], set()
    for table, column, kind in columns.fetchall():
        other = "integer" if kind == "text" else "text"
        if f"skill_system.{table}" not in reading:
            continue
        found = states(
            reading[f"skill_system.{table}"],
            f"ALTER TABLE skill_system.{table} RENAME COLUMN {column} TO renamed",
            f"ALTER TABLE skill_system.{table} ADD COLUMN {column} {other} DEFAULT {VALUES[other]}",
        )
        for one, state in zip(reading[f"skill_system.{table}"], found, strict=True):
            if state not in (usual[one], *OF_THE_TYPE):
                wrong.append((table, column, one, usual[one], state))
            if state == "XX001":
                compared.add((table, column))
    assert wrong == []
    assert len(compared) > 15


LEGACY = {
    "policy_profiles": "id bigint, name text, allowed_effects text[], allowed_exec text[], allowed_write_roots text[], "
    "metadata jsonb, created_at timestamptz",
    "task_specs": "id bigint, goal text, policy_profile_id bigint",
    "runs": "id bigint, task_spec_id bigint, goal text, agent_id text, policy_profile_id bigint, status text, "
    "started_at timestamptz, ended_at timestamptz, effective_policy jsonb, metrics jsonb, error text, created_at timestamptz",
    "run_events": "id bigint, run_id bigint, ts timestamptz, level text, event_type text, payload jsonb",
    "artifacts": "id bigint, run_id bigint, created_at timestamptz",
}
FILL = """
    INSERT INTO old.policy_profiles VALUES (3, 'dev', '{db.read}', '{git}', '{/srv}', '{}', '2025-01-01');
    INSERT INTO old.task_specs VALUES (1, 'goal', 3);
    INSERT INTO old.runs VALUES (5, 1, 'g', 'a', 3, 'succeeded', '2025-01-01', '2025-01-01', '{}', '{}', NULL, '2025-01-01');
    INSERT INTO old.run_events VALUES (11, 5, '2025-01-01', 'info', 'step_started', '{}');
    INSERT INTO old.artifacts VALUES (4, 5, '2025-01-01');"""


def test_import_of_other_columns(attempt, db):
    db.execute("CREATE SCHEMA old")
    for table, columns in LEGACY.items():
        db.execute(f"CREATE TABLE old.{table} ({columns})")
    db.execute(FILL)
    # In a tenant where nothing was written yet.
    tenant, run = "SET LOCAL skill_system.tenant = 'import'", "SELECT * FROM skill_system.import_legacy('old')"
    assert attempt(tenant, run) == "ok"
    for table, columns in LEGACY.items():
        for column, own in (entry.split() for entry in columns.split(", ")):
            for kind, value in VALUES.items():
                if kind == {"timestamptz": "timestamp with time zone"}.get(own, own):
                    continue
                change = f"ALTER TABLE old.{table} ALTER COLUMN {column} TYPE {kind} USING {value}"
                # The status is read as text: an invalid status is refused, whatever its type.
                wanted = "22P02" if column == "status" else "55000"
                assert attempt(tenant, change, run).startswith(wanted), (table, column, kind)


@pytest.mark.parametrize(
    ("table", "column", "statement"),
    [
        ("runs", "status", "UPDATE skill_system.runs SET goal = 'other'"),
        ("policy_profiles", "allowed_effects", "INSERT INTO skill_system.policy_profiles (name) VALUES ('another')"),
    ],
)
def test_own_tables_changed_by_hand(db, table, column, statement):
    """The error is not the one of a trigger on somebody else's table, which would tell to drop the extension's own."""
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL skill_system.allow_unprotected = on")
        db.execute("SELECT skill_system.create_policy('of_the_test', '{db.read}')")
        db.execute("SELECT skill_system.log_run('s', 'op', 'ok')")
        db.execute("SET CONSTRAINTS ALL IMMEDIATE")
        db.execute(f"ALTER TABLE skill_system.{table} RENAME COLUMN {column} TO renamed")
        db.execute(f"ALTER TABLE skill_system.{table} ADD COLUMN {column} integer DEFAULT 1")
        with pytest.raises(psycopg.Error) as caught:
            db.execute(statement)
    error = caught.value
    assert error.sqlstate == "XX001", (error.sqlstate, str(error))
    assert "health()" in error.diag.message_hint and "Drop" not in error.diag.message_hint


def test_stored_json_that_cannot_be_read(db):
    """Nothing is what an unreadable value must not be taken for."""
    with db.transaction(force_rollback=True):
        db.execute(
            'SELECT skill_system.create_template(\'test\', \'[{"label": "Plat"}, {"label": "Waiver"}]\', \'[0, 1]\')'
        )
        filing = db.execute("SELECT (skill_system.create_checklist('E-1', 'well', 'test')).checklist_id").fetchone()[0]
        assert len(db.execute("SELECT * FROM skill_system.missing_items(%s)", [filing]).fetchall()) == 2
        deep = "[" * 300 + "]" * 300
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute(
            "UPDATE skill_system.filing_checklists SET items = %s WHERE id = %s", [f'[{{"label": {deep}}}]', filing]
        )
        db.execute("SET LOCAL session_replication_role = origin")
        with (
            pytest.raises(psycopg.errors.DataCorrupted, match="is a stored JSON value that cannot be read"),
            db.transaction(),
        ):
            db.execute("SELECT * FROM skill_system.missing_items(%s)", [filing])
        with (
            pytest.raises(psycopg.errors.DataCorrupted, match="is a stored JSON value that cannot be read"),
            db.transaction(),
        ):
            db.execute("SELECT skill_system.update_checklist_item(%s, 0, 'complete')", [filing])
