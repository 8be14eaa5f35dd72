"""skill-verify agrees with the server on exported records, and finds what was changed in them."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from cluster import bindir, skill_verify_program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verify(db):
    program = skill_verify_program()
    db.execute(
        "SELECT skill_system.append_audit('made', "
        "jsonb_build_object('n', g, 'x', g / 7.0, 'text', repeat('ä\"', g % 5), 'list', ARRAY[g, NULL])) "
        "FROM generate_series(1, 500) g"
    )
    db.execute(
        """SELECT skill_system.append_audit('odd',
            '{"a": 1e300, "b": 0.00, "c": -0.5, "d": 12345678901234567890.1230, "": [[], {}, [{}]], "é": "\\u0001"}')"""
    )
    db.execute("SELECT skill_system.append_audit('large', jsonb_build_object('bytes', repeat('x', 40000)), NULL, NULL)")
    db.execute("SET TIME ZONE 'Asia/Kolkata'")
    lines = [
        row[0] for row in db.execute("SELECT to_jsonb(a)::text FROM skill_system.audit_logs a ORDER BY recorded_at, id")
    ]
    log_id = str(db.execute("SELECT log_id FROM skill_system.audit_state").fetchone()[0])
    keyring = db.execute("SELECT pg_read_file('skill_system_keyring.json')").fetchone()[0]

    def run(tmp_path, lines, log_id=log_id, keyring=keyring):
        (tmp_path / "keyring.json").write_text(keyring)
        command = [program, "rows", "-", "--keyring", tmp_path / "keyring.json", "--log-id", log_id]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    run.lines = lines
    return run


def test_true_records_pass(verify, tmp_path):
    status, output, error = verify(tmp_path, verify.lines)
    assert (status, error) == (0, "") and output.startswith(f"OK: {len(verify.lines)} records with true signatures\n")
    assert re.search(r"\n  time span  20\d\d-\S+Z to 20\d\d-\S+Z\n", output), output


@pytest.mark.parametrize(
    "column, value",
    [
        ("tenant_id", "other"),
        ("event_type", "odder"),
        ("event_data", {"a": 1}),
        ("actor_id", "me"),
        ("actor_type", None),
        ("created_at", "2026-01-01T00:00:00+00:00"),
        ("recorded_at", "2026-01-01T00:00:00+00:00"),
        ("transaction_id", 1),
        ("session_user_name", "me"),
        ("current_user_name", "me"),
        ("id", "01a1fe1c-509a-711b-9572-85a8c450d751"),
    ],
)
def test_a_changed_value_is_found(verify, tmp_path, column, value):
    row = json.loads(verify.lines[0])
    assert row[column] != value
    status, output, _ = verify(tmp_path, [json.dumps(row | {column: value})] + verify.lines[1:3])
    assert (
        status == 1
        and "line 1: " in output
        and "signature_mismatch" in output
        and output.startswith("TAMPERED: ")
        and "\n  problems   1\n  records    3\n" in output
    )


def test_a_digit_that_a_double_would_lose_is_found(verify, tmp_path):
    [odd] = [line for line in verify.lines if '"odd"' in line]
    assert verify(tmp_path, [odd.replace("12345678901234567890.1230", "12345678901234567890.123")])[0] == 1


def test_another_log_or_key_is_found(verify, tmp_path):
    assert verify(tmp_path, verify.lines[:1], log_id="01a1fe1c-509a-711b-9572-85a8c450d751")[0] == 1
    other = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "other", "active": True, "k": "A" * 43}]})
    status, output, _ = verify(tmp_path, verify.lines[:1], keyring=other)
    assert status == 1 and "key_unknown" in output


def test_unusable_input_is_status_2_or_named(verify, tmp_path):
    status, output, _ = verify(tmp_path, ["{", "[]", "{}"])
    assert status == 1 and "\n  problems  3\n  records   3\n" in output
    status, _, error = verify(tmp_path, [], keyring="{}")
    assert status == 2 and "keyring" in error


@pytest.fixture(scope="module")
def ledger(db, verify, tmp_path_factory):
    """Checkpoints, an export and proofs of this server, as files, and the program that checks them."""
    folder = tmp_path_factory.mktemp("ledger")
    db.execute("SELECT skill_system.seal_audit()")
    [key] = [row[0] for row in db.execute("SELECT verifier_key FROM skill_system.audit_public_key()")]
    old = db.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    db.execute("SELECT skill_system.append_audit('later', '{}') FROM generate_series(1, 300)")
    db.execute("SELECT skill_system.seal_audit()")
    new = db.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    sizes = [int(note.split("\n")[1]) for note in (old, new)]
    proof = db.execute("SELECT proof FROM skill_system.audit_consistency_proof(%s, %s)", sizes).fetchone()[0]
    lines = [row[0] for row in db.execute("SELECT * FROM skill_system.audit_export()")]

    def file(name, text):
        (folder / name).write_text(text)
        return folder / name

    def run(*arguments, key=key):
        program = skill_verify_program()
        done = subprocess.run([program, *arguments, *(["--key", key] if key else [])], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    run.lines, run.file, run.key = lines, file, key
    run.old, run.new, run.proof = file("old", old), file("new", new), file("proof", proof)
    return run


def test_an_export_of_the_server_passes(ledger, db, tmp_path):
    export = ledger.file("export", "\n".join(ledger.lines) + "\n")
    (tmp_path / "keyring.json").write_text(db.execute("SELECT pg_read_file('skill_system_keyring.json')").fetchone()[0])
    status, output = ledger("export", export, "--keyring", tmp_path / "keyring.json")
    assert status == 0 and output.startswith("OK: every leaf was recomputed from its record"), output
    assert f"\n  records     {len(ledger.lines) - 2}, 0 missing, 0 retired\n  leaves      [0," in output, output
    assert "\n  signatures  checked with the keyring\n" in output, output
    status, output = ledger("export", export, "--json", key=None)
    assert status == 3 and json.loads(output)["records"] == len(ledger.lines) - 2
    part = db.execute(
        "SELECT string_agg(line, E'\\n') FROM skill_system.audit_export((SELECT min(created_at) "
        "FROM skill_system.audit_logs WHERE event_type = 'later')) line"
    ).fetchone()[0]
    status, output = ledger("export", ledger.file("part", part + "\n"))
    assert status == 0 and "\n  records     300, 0 missing" in output, output


def test_a_changed_export_of_the_server_is_found(ledger):
    for old, new, word in [
        ("12345678901234567890.1230", "12345678901234567890.123", "root_differs"),
        ('"later"', '"lated"', "root_differs"),
    ]:
        lines = list(ledger.lines)
        at = next(i for i, line in enumerate(lines) if old in line)
        lines[at] = lines[at].replace(old, new)
        status, output = ledger("export", ledger.file("changed", "\n".join(lines) + "\n"))
        assert status == 1 and word in output
    status, output = ledger("export", ledger.file("shorter", "\n".join(ledger.lines[:9] + ledger.lines[10:]) + "\n"))
    assert status == 1 and "leaves_not_in_order" in output


def test_proofs_of_the_server_pass(ledger, db):
    rows = db.execute(
        "SELECT to_jsonb(a)::text, p.proof, p.leaf_index "
        "FROM skill_system.audit_logs a, skill_system.audit_inclusion_proof(a.id) p "
        "WHERE event_type IN ('odd', 'large') OR a.event_data->>'n' IN ('7', '400')"
    ).fetchall()
    assert len(rows) == 4
    for row, proof, leaf in rows:
        record, text = ledger.file("record", row), ledger.file("tlog-proof", proof)
        status, output = ledger("proof", text, "--record", record)
        assert status == 0 and f"is leaf {leaf} of" in output, output
        other = ledger.file("other", row.replace('"event_type": "', '"event_type": "x'))
        assert ledger("proof", text, "--record", other)[0] == 1


def test_checkpoints_of_the_server_pass(ledger, tmp_path):
    assert ledger("checkpoint", ledger.new)[0] == 0
    assert ledger("compare", ledger.old, ledger.new, "--proof", ledger.proof)[0] == 0
    assert ledger("compare", ledger.new, ledger.old, "--proof", ledger.proof)[0] == 1
    state = tmp_path / "state"
    assert ledger("watch", ledger.old, "--state", state)[0] == 0
    assert ledger("watch", ledger.new, "--state", state, "--proof", ledger.proof)[0] == 0
    assert state.read_text() == ledger.new.read_text() + "\n"
    status, output = ledger("watch", ledger.old, "--state", state)
    assert status == 1 and "older" in output and state.read_text() == ledger.new.read_text() + "\n"


def test_the_documented_export_takes_little_memory(connect, fresh_database, tmp_path):
    """As the pages call psql, it holds 100 records and not all of them."""
    db = connect(dbname=fresh_database())
    db.execute(
        "SELECT count(skill_system.append_audit('made', jsonb_build_object('n', g, 'x', repeat(md5(g::text), 100)))) "
        "FROM generate_series(1, 12000) g"
    )
    db.execute("SELECT skill_system.seal_audit()")
    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/ledger.md", "docs/tour/ledger.md")]
    calls = {call for page in pages for call in re.findall(r"^(psql .*audit_export\(\).*) > audit\.jsonl$", page, re.M)}
    calls.update(
        re.findall(r"Example: (psql .*audit_export\(\).*) > audit", (ROOT / "sql/ledger/ledger.sql").read_text())
    )
    assert len(calls) == 1
    [command] = calls
    export = tmp_path / "audit.jsonl"
    environment = os.environ | {"PGDATABASE": db.info.dbname, "PATH": f"{bindir()}:{os.environ['PATH']}"}

    def within(command):
        """The exit status with 20 MB of memory in addition to the program itself."""
        with export.open("wb") as out:
            done = subprocess.run(["sh", "-c", f"ulimit -d 20000; {command}"], stdout=out, stderr=out, env=environment)
        return done.returncode

    assert within(command.replace("-v FETCH_COUNT=100 ", "")) != 0 and b"out of memory" in export.read_bytes()
    assert within(command) == 0 and export.stat().st_size > 40_000_000
    key = db.execute("SELECT verifier_key FROM skill_system.audit_public_key()").fetchone()[0]
    done = subprocess.run([skill_verify_program(), "export", export, "--key", key], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("OK: "), done.stdout
