"""The SKR1 vectors of tests/vectors: the second implementation and the running server agree on them; so does
crates/core/tests/skr1.rs."""

import hashlib
import importlib.util
import json
import struct
import subprocess
from pathlib import Path

import pytest

import skr1
from cluster import skill_verify_program
from keyring import load_library, write_keyring
from ledger import problems

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "vectors"
TYPES = {
    "id": "uuid",
    "event_data": "jsonb",
    "created_at": "timestamptz",
    "recorded_at": "timestamptz",
    "transaction_id": "bigint",
}
COLUMNS = (*skr1.COLUMNS, "signature")
PLACES = ", ".join(f"%s::{TYPES.get(name, 'text')}" for name in COLUMNS)


@pytest.fixture(scope="module")
def vectors():
    return [json.loads(line) for line in (FOLDER / "skr1.jsonl").read_text(encoding="ascii").splitlines()]


def values(vector):
    return [vector["row"][name] for name in skr1.COLUMNS]


def test_the_files_are_what_their_script_writes():
    spec = importlib.util.spec_from_file_location("make_skr1", FOLDER / "make_skr1.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, content in script.make().items():
        assert content == (FOLDER / name).read_text(encoding="ascii"), f"{name} is not what make_skr1.py writes"


def test_the_second_implementation_agrees(vectors):
    ring = skr1.keys((FOLDER / "keyring.json").read_text())
    assert len(vectors) >= 200 and len({vector["name"] for vector in vectors}) == len(vectors)
    for vector in vectors:
        row, log_id = values(vector), vector["log_id"]
        if vector["skr1"] is None:
            with pytest.raises((ValueError, struct.error)):
                skr1.encode(row, log_id)
            entry = b"SKR0" + bytes.fromhex((log_id + row[0]).replace("-", ""))
        else:
            assert skr1.encode(row, log_id).hex() == vector["skr1"], vector["name"]
            assert skr1.signature(row, log_id, ring) == vector["signature"], vector["name"]
            entry = bytes.fromhex(vector["skr1"]) + vector["signature"].encode()
        assert (
            hashlib.sha256(b"\0" + entry).hexdigest()
            == vector["leaf_hash"]
            == skr1.leaf_hash(skr1.entry(row, vector["signature"], log_id)).hex()
        ), vector["name"]


def test_no_two_rows_have_the_same_bytes(vectors):
    """Not even when they have the same id, by which the vectors would differ anyway."""
    seen = {}
    for vector in vectors:
        if vector["skr1"] is not None and not vector["name"].startswith("id: "):
            row = (vectors[0]["row"]["id"], *values(vector)[1:])
            other = seen.setdefault(skr1.encode(row, vector["log_id"]), (row, vector["log_id"]))
            assert other == (row, vector["log_id"]), vector["name"]
    assert len(seen) > 200


def test_a_long_payload_is_signed_by_its_digest(vectors):
    for vector in vectors:
        if "bytes encoded" in vector["name"]:
            data = skr1.walk(skr1.parse(vector["row"]["event_data"]))
            length = int(vector["name"].split(" bytes")[0].split()[-1])
            assert len(data) == length
            want = skr1.field(4, 9, data) if length <= 32768 else skr1.field(4, 8, hashlib.sha256(data).digest())
            assert want.hex() in vector["skr1"], vector["name"]


def test_the_server_agrees(vectors, new_cluster):
    """The owner's signature is taken as it is, so each row that the table can hold goes in, comes out as it stands in
    the vectors, and is judged."""
    cluster = new_cluster()
    with cluster.connect() as connection:
        write_keyring(
            Path(connection.execute("SHOW data_directory").fetchone()[0]) / "skill_system_keyring.json",
            (FOLDER / "keyring.json").read_text(),
        )
        connection.execute("CREATE EXTENSION skill_system")
        load_library(connection).execute("SET TIME ZONE 'UTC'")
        connection.execute(
            "INSERT INTO skill_system.audit_state "
            "SELECT true, %s, now(), system_identifier, (SELECT oid FROM pg_database "
            "WHERE datname = current_database()), 1, pg_current_xact_id()::text::bigint FROM pg_control_system()",
            [vectors[0]["log_id"]],
        )
        held = [vector for vector in vectors if vector["skr1"] is not None]
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO skill_system.audit_logs ({', '.join(COLUMNS)}) VALUES ({PLACES})",
                [(*values(vector), vector["signature"]) for vector in held],
            )
        found = {
            row[0]: row
            for row in connection.execute(
                f"SELECT {', '.join(f'{name}::text' for name in COLUMNS)} FROM skill_system.audit_logs"
            )
        }
        assert len(found) == len(held)
        for vector in held:
            assert list(found[vector["row"]["id"]]) == [*values(vector), vector["signature"]], vector["name"]
        for vector in vectors:
            call = (
                f"SELECT skill_system.audit_problem(%s::uuid, {PLACES}), "
                f"encode(skill_system.audit_leaf_hash(%s::uuid, {PLACES}), 'hex')"
            )
            problem, leaf_hash = connection.execute(
                call, [vector["log_id"], *values(vector), vector["signature"]] * 2
            ).fetchone()
            assert (problem is None) == (vector["skr1"] is not None), (vector["name"], problem)
            assert leaf_hash == vector["leaf_hash"], vector["name"]
        # Those of other logs are the only records that verify_audit finds; that nobody announced the keys is true as
        # well.
        foreign = {vector["row"]["id"] for vector in held if vector["log_id"] != vectors[0]["log_id"]}
        assert {
            (identity, problem)
            for identity, problem in problems(connection, "record_id", "problem")
            if problem != "key_unannounced"
        } == {(identity, "signature_mismatch") for identity in foreign} and foreign


def test_skill_verify_agrees(vectors):
    """Also on the member names by which serde_json marks its own: such an object is not a number."""
    program = skill_verify_program()

    def line(vector, data=None):
        row = vector["row"] | {"signature": vector["signature"], "transaction_id": 0, "event_data": 0}
        # As to_jsonb prints them.
        row |= {name: row[name].replace(" ", "T", 1).replace("+00", "+00:00") for name in ("created_at", "recorded_at")}
        return (
            json.dumps(row)
            .replace('"transaction_id": 0', f'"transaction_id": {vector["row"]["transaction_id"]}')
            .replace('"event_data": 0', f'"event_data": {data or vector["row"]["event_data"]}')
        )

    def problems_of(lines):
        command = [program, "rows", "-", "--keyring", FOLDER / "keyring.json", "--log-id", vectors[0]["log_id"]]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
        return done.returncode, done.stdout

    true = [vector for vector in vectors if vector["skr1"] is not None and vector["log_id"] == vectors[0]["log_id"]]
    code, output = problems_of([line(vector) for vector in true])
    assert (code, output.splitlines()[0]) == (0, f"OK: {len(true)} records with true signatures")
    [one] = [vector for vector in true if vector["name"] == "event_data: number 1"]
    for data in ('{"$serde_json::private::Number": "1"}', '"1"', "1.0", "1e0", "[1]"):
        assert problems_of([line(one, data)])[0] == 1, data


@pytest.mark.parametrize(
    "spelling, printed",
    [
        ("1e2", "100"),
        ("-0", "0"),
        ("-0.0", "0.0"),
        ("1E+0", "1"),
        ("0e5", "0"),
        ("1e-7", "0.0000001"),
        ('"\\u00e9\\/"', '"é/"'),
        ('{"b":1,"a":2,"aa":3,"b":4}', '{"a": 2, "b": 4, "aa": 3}'),
    ],
)
def test_what_is_signed_is_what_is_stored_not_what_was_typed(db, spelling, printed):
    identity = db.execute("SELECT skill_system.append_audit('spelling', %s::jsonb)", [spelling]).fetchone()[0]
    row = db.execute(
        f"SELECT {', '.join(f'{name}::text' for name in COLUMNS)} FROM skill_system.audit_logs WHERE id = %s",
        [identity],
    ).fetchone()
    log_id = db.execute("SELECT log_id::text FROM skill_system.audit_state").fetchone()[0]
    assert row[COLUMNS.index("event_data")] == printed
    ring = skr1.keys(db.execute("SELECT pg_read_file('skill_system_keyring.json')").fetchone()[0])
    assert skr1.signature(row[:-1], log_id, ring) == row[-1]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1970-01-01 00:00:00+00", 0),
        ("1970-01-01T05:45:00+05:45", 0),
        ("1969-12-31 16:00:00-08", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1969-12-31 23:59:59.9+00", -100_000),
        ("1900-01-01 00:19:32+00:19:32", -2_208_988_800_000_000),
        ("4714-11-24 00:00:00+00 BC", -210_866_803_200_000_000),
        ("294247-01-10 04:00:54.775807+00", 2**63 - 1),
    ],
)
def test_printed_times(text, expected):
    assert skr1.microseconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "infinity",
        "2026-01-01",
        "2026-01-01 00:00:00",
        "01/02/2026 00:00:00 UTC",
        "2026-02-30 00:00:00+00",
        "2026-01-01 00:00:00+00 AD",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError):
        skr1.microseconds(text)
