"""What one role stores, every reader can read: the same bounds at every entrance, and records that are older than them."""

import hashlib
import subprocess

import psycopg
import pytest

from cluster import skill_verify_program
from functions import arguments, prepare

DEEP = "(repeat('[', {0}) || repeat(']', {0}))::jsonb"
NESTED = "(repeat('{{\"a\":', {0}) || '1' || repeat('}}', {0}))::jsonb"
OUT_OF_BOUNDS = {
    "deep array": DEEP.format(65),
    "deep object": NESTED.format(65),
    "as deep as serde reads": NESTED.format(125),
    "large number": "'[1e400]'::jsonb",
    "enormous number": "'{\"a\": 1e131071}'::jsonb",
    "long fraction": "jsonb_build_array(1::numeric / 3 * 1e-300, repeat('1', 500)::numeric)",
    "control characters": "jsonb_build_object('x', repeat(chr(1), 6000000))",
    "many values": "(SELECT jsonb_agg(0) FROM generate_series(1, 1048577))",
    "large key": "jsonb_build_object(repeat('k', 34000000), 1)",
}


@pytest.fixture(scope="module")
def stage(db, roles):
    return prepare(db)


def test_every_text_in_an_index_has_a_bound(stage, connect):
    """Incompressible text of 4 kB does not fit into a B-tree: the error names the column."""
    columns = stage.execute(
        "SELECT DISTINCT c.relname::text, a.attname::text FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid"
        " JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (x.indkey::int2[])"
        " WHERE c.relnamespace = 'skill_system'::regnamespace AND NOT c.relispartition AND m.amname = 'btree'"
        " AND a.atttypid = 'text'::regtype AND a.attname <> 'tenant_id' ORDER BY 1, 2"
    ).fetchall()
    arguments = dict(
        stage.execute(
            "SELECT tgrelid::regclass::text, string_to_array(rtrim(encode(tgargs, 'escape'), E'\\\\000'), E'\\\\000')"
            " FROM pg_trigger WHERE tgname = 'a_bounds'"
        ).fetchall()
    )
    assert ("runs", "agent_id") in columns and len(columns) > 10
    for table, column in columns:
        assert column in arguments[f"skill_system.{table}"], (table, column)
    agent = connect("test_agent")
    long = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 128) g)"
    for column in ("agent_id", "idempotency_key"):
        for value, accepted in ((f"left({long}, 1024)", True), (f"left({long}, 1025)", False), (long, False)):
            statement = f"INSERT INTO skill_system.runs (goal, {column}) VALUES ('x', {value})"
            if accepted:
                agent.execute(statement)
                continue
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"{column} must have at most 1024 bytes"):
                agent.execute(statement)


@pytest.mark.parametrize("value", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
def test_no_table_takes_it(stage, value):
    if "6000000" in value:
        value = value.replace("6000000", "3000000")
    columns = stage.execute(
        "SELECT a.attrelid::regclass::text, quote_ident(a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition "
        "AND a.atttypid = 'jsonb'::regtype AND c.relname <> 'audit_kept'"
    ).fetchall()
    assert len(columns) > 25
    stage.execute(f"CREATE TEMP TABLE given AS SELECT {value} AS value")
    for table, column in columns:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded), stage.transaction():
            # Before any other column is looked at.
            if table == "skill_system.audit_logs":
                stage.execute(
                    "INSERT INTO skill_system.audit_logs (event_type, event_data) SELECT 'x', value FROM given"
                )
            else:
                stage.execute(f"INSERT INTO {table} ({column}) SELECT value FROM given")
    stage.execute("DROP TABLE given")


def test_no_function_takes_it(stage):
    functions = [row for row in arguments(stage) if "jsonb" in row[3] and not row[1].startswith("audit_")]
    assert len(functions) > 20
    for signature, name, _, types, _ in functions:
        for value in (DEEP.format(65), "'[1e400]'::jsonb"):
            given = ", ".join(value if kind == "jsonb" else f"NULL::{kind}" for kind in types)
            with pytest.raises(psycopg.errors.ProgramLimitExceeded) as refused, stage.transaction(force_rollback=True):
                stage.execute(f"SELECT * FROM skill_system.{name}({given})")
            # A function in SQL is refused by the table.
            assert refused.value.diag.message_detail.startswith(("It is argument ", "It is the value of column ")), (
                signature
            )


def test_what_is_just_in_bounds_goes_through_everything(stage, database, tmp_path):
    for value in (
        DEEP.format(64),
        NESTED.format(64),
        "'[1e308, -1.7e308]'",
        "jsonb_build_object('x', repeat(chr(1), 2796000))",
    ):
        stage.execute(f"SELECT skill_system.append_audit('edge', {value})")
    stage.execute("SELECT skill_system.seal_audit()")
    assert stage.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    assert export(stage, tmp_path).returncode == 0
    subprocess.run(["pg_dump", "-Fc", "-f", tmp_path / "dump", database], check=True)


def export(db, directory):
    lines = [row[0] for row in db.execute("SELECT * FROM skill_system.audit_export()")]
    (directory / "export").write_text("\n".join(lines) + "\n")
    (directory / "key").write_text(db.execute("SELECT verifier_key FROM skill_system.audit_public_key()").fetchone()[0])
    command = [skill_verify_program(), "export", directory / "export", "--key", directory / "key"]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_record_that_is_larger_than_what_is_read(connect, fresh_database, tmp_path):
    db = connect(dbname=fresh_database())
    db.execute("SELECT skill_system.append_audit('before', '{}')")
    db.execute("SET skill_system.max_record_size = '64MB'")
    poison = db.execute(
        "SELECT skill_system.append_audit('large', jsonb_build_object('x', repeat(chr(1), 5000000)))::text"
    ).fetchone()[0]
    db.execute("SELECT skill_system.append_audit('after', '{}')")
    db.execute("SELECT skill_system.seal_audit()")
    assert db.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    assert export(db, tmp_path).returncode == 0
    db.execute("RESET skill_system.max_record_size")
    found = db.execute("SELECT record_id::text, problem FROM skill_system.verify_audit()").fetchall()
    assert found == [(poison, "record_too_large")]
    done = export(db, tmp_path)
    assert done.returncode == 1 and "record_too_large" in done.stdout and poison in done.stdout, done.stdout
    assert "root_differs" not in done.stdout and "  problems    1\n" in done.stdout


def test_the_memory_of_an_export_is_that_of_one_record(connect, fresh_database):
    db = connect(dbname=fresh_database())
    db.execute(
        "SELECT count(skill_system.append_audit('big', jsonb_build_object('x', repeat(chr(1), 2700000)))) "
        "FROM generate_series(1, 12)"
    )
    db.execute("SELECT skill_system.seal_audit()")
    reader = connect(dbname=db.info.dbname)
    pid = reader.execute("SELECT pg_backend_pid()").fetchone()[0]
    for statement in (
        "SELECT count(*) FROM skill_system.audit_export()",
        "SELECT count(*) FROM skill_system.verify_audit()",
    ):
        reader.execute(statement)
    peak = next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 400 << 10, peak


def test_audited_rows_are_written_however_large(connect, fresh_database):
    db = connect(dbname=fresh_database())
    db.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, d jsonb, b bytea, n numeric)")
    db.execute("SELECT skill_system.audit_table('docs')")
    db.execute(
        f"INSERT INTO docs VALUES (1, repeat('x', 40000000), {DEEP.format(300)}, decode(repeat('00', 30000000), 'hex'), 1e100000)"
    )
    db.execute("UPDATE docs SET body = 'short'")
    db.execute("INSERT INTO docs VALUES (2, 'x', jsonb_build_object('t', repeat(chr(1), 20000000)))")
    inserted, updated, third = (
        row[0]
        for row in db.execute(
            "SELECT event_data FROM skill_system.audit_logs WHERE event_type LIKE 'row.%' ORDER BY id"
        )
    )

    def digest(data):
        return {"length": len(data), "content_sha256": "sha256:" + hashlib.sha256(data).hexdigest()}

    deep, bytes_, text = b"[" * 300 + b"]" * 300, bytes(30000000), b"x" * 40000000
    assert inserted["new"] == {"id": 1}
    number = b"1" + b"0" * 100000
    assert inserted["digests"]["new"] == {
        "body": digest(text),
        "d": digest(deep),
        "b": digest(bytes_),
        "n": digest(number),
    }
    assert updated["new"] == {"id": 1, "body": "short"} and updated["digests"]["old"]["body"] == digest(text)
    assert third["new"] == {"id": 2, "body": "x", "b": None, "n": None}
    assert third["digests"]["new"]["d"] == digest(b'{"t": "' + b"\\u0001" * 20000000 + b'"}')
    assert db.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


def test_an_older_row_can_be_restored(stage):
    insert = f"INSERT INTO skill_system.policy_profiles (name, metadata) VALUES ('older', {NESTED.format(100)})"
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        stage.execute(insert)
    with stage.transaction(force_rollback=True):
        stage.execute("SET LOCAL skill_system.allow_unprotected = on")
        stage.execute(insert)
