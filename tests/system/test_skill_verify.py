"""skill-verify agrees with the server on exported records, and finds what was changed in them."""
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verify(db):
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "skill-verify"], cwd=ROOT, check=True)
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "skill-verify"
    db.execute("SELECT skill_system.append_audit('made', jsonb_build_object('n', g, 'x', g / 7.0, 'text', repeat('ä\"', g % 5), 'list', ARRAY[g, NULL])) FROM generate_series(1, 500) g")
    db.execute("""SELECT skill_system.append_audit('odd', '{"a": 1e400, "b": 0.00, "c": -0.5, "d": 12345678901234567890.1230, "": [[], {}, [{}]], "é": "\\u0001"}')""")
    db.execute("SELECT skill_system.append_audit('large', jsonb_build_object('bytes', repeat('x', 40000)), NULL, NULL)")
    db.execute("SET TIME ZONE 'Asia/Kolkata'")
    lines = [row[0] for row in db.execute("SELECT to_jsonb(a)::text FROM skill_system.audit_logs a ORDER BY recorded_at, id")]
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
    assert verify(tmp_path, verify.lines) == (0, f"{len(verify.lines)} records, 0 problems\n", "")


@pytest.mark.parametrize("column, value", [
    ("tenant_id", "other"), ("event_type", "odder"), ("event_data", {"a": 1}), ("actor_id", "me"), ("actor_type", None),
    ("created_at", "2026-01-01T00:00:00+00:00"), ("recorded_at", "2026-01-01T00:00:00+00:00"), ("transaction_id", 1),
    ("session_user_name", "me"), ("current_user_name", "me"), ("id", "01a1fe1c-509a-711b-9572-85a8c450d751")])
def test_a_changed_value_is_found(verify, tmp_path, column, value):
    row = json.loads(verify.lines[0])
    assert row[column] != value
    status, output, _ = verify(tmp_path, [json.dumps(row | {column: value})] + verify.lines[1:3])
    assert status == 1 and "line 1: " in output and "signature_mismatch" in output and output.endswith("3 records, 1 problems\n")


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
    assert status == 1 and output.endswith("3 records, 3 problems\n")
    status, _, error = verify(tmp_path, [], keyring="{}")
    assert status == 2 and "keyring" in error
