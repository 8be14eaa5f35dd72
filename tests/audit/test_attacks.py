"""The attack corpus: each attack of the list is run, with and without shared_preload_libraries = 'skill_system'.

attacks.py explains the stage. docs/attacks.md is written from a run (UPDATE_GOLDEN=1) and compared with every run.
"""

import hashlib
import json
import os
import resource
import subprocess
import time
from contextlib import nullcontext

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import errors

import skr1
from attacks import (
    APPEND_ONLY,
    CONFIGURATIONS,
    DENIED,
    HEAD,
    RECORD,
    ROOT,
    Book,
    Log,
    Server,
    b64,
    edit,
    findings,
    keyring,
    overwrite,
    put,
    resign,
    row,
    seal,
    skill_verify,
    summary,
    triggers,
    values,
    victim,
)
from cluster import MONTH, as_server, bindir, skill_verify_program

ATTACKS = {}
BOOK = Book()


def attack(number, title):
    def register(function):
        assert number not in ATTACKS
        ATTACKS[number] = (title, function)
        return function

    return register


@pytest.fixture(scope="module", autouse=True)
def programs():
    skill_verify_program()


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def server(request, programs):
    made = Server(request.param == "preloaded")
    try:
        made.start()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def fresh(server):
    """A log of the attack's own, for what is not rolled back."""
    made = Log(server, f"log{int(time.monotonic() * 1000)}")
    yield made
    with server.connect("postgres") as admin:
        admin.execute(f"DROP DATABASE {made.name} WITH (FORCE)")


@pytest.mark.parametrize("number", range(1, 51))
def test_attack(number, server, request):
    title, function = ATTACKS[number]
    trial = BOOK.trial(number, title, CONFIGURATIONS[not server.preloaded])
    function(
        trial,
        *(
            request.getfixturevalue("fresh") if name == "fresh" else server.shared
            for name in function.__code__.co_varnames[1 : function.__code__.co_argcount]
        ),
    )
    assert trial.lines
    trial.finished = True


def going_on(trial):
    """After the guard's refusal only a superuser who insists goes on."""
    return trial.insisting() if trial.preloaded else nullcontext()


def statement(trial, log, text, *problems, then=lambda connection: None):
    """A statement that the guard refuses, to the owner and to a superuser, and that verify_audit() finds where it could
    be run."""
    for role in ("chief", None):
        with log.connect(role) as connection:
            trial.guarded(connection, text)
    with going_on(trial), log.rolled_back(None if trial.preloaded else "chief") as connection:
        connection.execute(text)
        then(connection)
        trial.found(connection, *problems)


@attack(1, "UPDATE, DELETE, TRUNCATE by an agent's role")
def _(t, log):
    with log.connect("test_agent") as agent:
        for text in (
            "UPDATE skill_system.audit_logs SET event_type = 'x'",
            "DELETE FROM skill_system.audit_logs",
            "TRUNCATE skill_system.audit_logs",
        ):
            t.refused(agent, text, "42501", DENIED)


@attack(2, "The same by the owner and by a superuser")
def _(t, log):
    for role in ("chief", None):
        with log.connect(role) as connection:
            for text in (
                "UPDATE skill_system.audit_logs SET event_type = 'x'",
                "DELETE FROM skill_system.audit_logs",
                "TRUNCATE skill_system.audit_logs",
            ):
                t.refused(connection, text, "55000", APPEND_ONLY)


@attack(3, "`session_replication_role = replica`")
def _(t, log):
    with log.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        for text in (
            "UPDATE skill_system.audit_logs SET event_type = 'x'",
            "DELETE FROM skill_system.audit_logs",
            "TRUNCATE skill_system.audit_logs",
        ):
            t.refused(connection, text, "55000", APPEND_ONLY)


@attack(4, "`ALTER TABLE ... DISABLE TRIGGER`, then UPDATE or DELETE")
def _(t, log):
    def change(connection):
        connection.execute(
            "UPDATE skill_system.audit_logs SET event_type = 'harmless' WHERE id = %s", [victim(connection)]
        )
        connection.execute("DELETE FROM skill_system.audit_logs WHERE id = %s", [victim(connection, 18)])

    statement(
        t,
        log,
        "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL",
        "signature_mismatch",
        "record_missing",
        "protection_missing",
        then=change,
    )
    # Switched on again before anybody looks.
    with going_on(t), log.rolled_back() as connection:
        triggers(connection, "DISABLE")
        change(connection)
        triggers(connection, "ENABLE")
        connection.execute(
            f"ALTER TABLE ONLY skill_system.{MONTH} ENABLE ALWAYS TRIGGER audit_logs_no_truncate; "
            "ALTER TABLE ONLY skill_system.audit_logs_2041_01 ENABLE ALWAYS TRIGGER audit_logs_no_truncate"
        )
        assert "protection_missing" not in str(findings(connection))
        t.found(connection, "signature_mismatch", "record_missing")


@attack(5, "UPDATE on `pg_trigger`")
def _(t, fresh):
    switch = "UPDATE pg_trigger SET tgenabled = '{}' WHERE tgname = 'audit_logs_no_change'"
    with fresh.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        t.guarded(connection, switch.format("D"))
        # No event, no message to other sessions: the next one finds no trigger that fires.
        if t.preloaded:
            connection.execute("SET skill_system.allow_unprotected = on")
        connection.execute(switch.format("D"))
        with fresh.connect() as other:
            other.execute("DELETE FROM skill_system.audit_logs WHERE id = %s", [victim(other)])
        with going_on(t), fresh.connect() as other:
            t.found(other, "protection_missing", "record_missing")
        connection.execute(switch.format("A"))
        with going_on(t), fresh.connect() as other:
            assert "protection_missing" not in str(findings(other))
            t.found(other, "record_missing")


@attack(6, "`ALTER COLUMN ... TYPE ... USING`, which rewrites rows without a trigger")
def _(t, log):
    statement(
        t,
        log,
        "ALTER TABLE skill_system.audit_logs ALTER COLUMN event_data TYPE jsonb USING '{\"rewritten\": true}'",
        "signature_mismatch",
        "leaf_mismatch",
    )
    statement(
        t,
        log,
        "ALTER TABLE skill_system.audit_seal_state ALTER COLUMN root_hash TYPE bytea USING sha256('')",
        "root_mismatch",
    )


@attack(7, "ADD, DROP, RENAME COLUMN")
def _(t, log):
    statement(t, log, "ALTER TABLE skill_system.audit_logs ADD COLUMN extra text", "protection_missing")
    for text in (
        "ALTER TABLE skill_system.audit_logs DROP COLUMN actor_id CASCADE",
        "ALTER TABLE skill_system.audit_logs RENAME COLUMN actor_id TO actor",
    ):
        for role in ("chief", None):
            with log.connect(role) as connection:
                t.guarded(connection, text)
        with going_on(t), log.rolled_back() as connection:
            connection.execute(text)
            with pytest.raises(errors.UndefinedColumn):
                findings(connection)
            t.said("detected", "`verify_audit()` fails with 42703")


@attack(8, "SET UNLOGGED, INHERIT, ATTACH, DETACH, DROP of a partition, SET TABLESPACE")
def _(t, log):
    statement(t, log, "ALTER TABLE skill_system.audit_logs_default SET UNLOGGED", "protection_missing")
    statement(t, log, "CREATE TABLE public.child () INHERITS (skill_system.audit_state)", "protection_missing")
    statement(
        t,
        log,
        "CREATE TABLE public.more PARTITION OF skill_system.audit_logs FOR VALUES FROM ('2050-01-01') TO "
        "('2051-01-01')",
        "protection_missing",
    )
    statement(
        t,
        log,
        "ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.audit_logs_2041_01",
        "protection_missing",
        "record_missing",
    )
    statement(t, log, "DROP TABLE skill_system.audit_logs_2041_01", "record_missing")
    # Moves the files and nothing else.
    with log.rolled_back(insist=False) as connection:
        connection.execute("ALTER TABLE skill_system.audit_logs SET TABLESPACE pg_default")
        t.unseen(connection)


@attack(9, "TRUNCATE of a partition")
def _(t, log):
    for role in ("chief", None):
        with log.connect(role) as connection:
            for table in ("audit_logs_default", MONTH, "audit_logs_2041_01"):
                t.refused(connection, f"TRUNCATE skill_system.{table}", "55000", APPEND_ONLY)


@attack(10, "DROP and CREATE of a table with the same name")
def _(t, log):
    def drop_and_create(connection):
        bounds = connection.execute(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = %s::regclass", [f"skill_system.{MONTH}"]
        ).fetchone()[0]
        connection.execute(f"CREATE TABLE public.copy (LIKE skill_system.{MONTH} INCLUDING ALL)")
        connection.execute(
            f"INSERT INTO public.copy SELECT * FROM skill_system.{MONTH} WHERE id <> %s", [victim(connection)]
        )
        connection.execute(
            f"DROP TABLE skill_system.{MONTH}; ALTER TABLE public.copy RENAME TO {MONTH}; "
            f"ALTER TABLE public.{MONTH} SET SCHEMA skill_system; "
            f"ALTER TABLE skill_system.audit_logs ATTACH PARTITION skill_system.{MONTH} {bounds}"
        )

    with log.connect() as connection:
        t.guarded(connection, "ALTER TABLE skill_system.audit_logs RENAME TO old_logs")
    statement(
        t,
        log,
        "ALTER EXTENSION skill_system DROP TABLE skill_system.audit_logs_default",
        "record_missing",
        "protection_missing",
        then=drop_and_create,
    )


@attack(11, "CREATE RULE ... DO INSTEAD NOTHING")
def _(t, log):
    statement(
        t, log, "CREATE RULE quiet AS ON INSERT TO skill_system.audit_logs DO INSTEAD NOTHING", "protection_missing"
    )
    # With append_audit() the rule does nothing: it writes to the table, not through a statement.
    with log.rolled_back() as connection:
        connection.execute("CREATE RULE quiet AS ON INSERT TO skill_system.audit_logs DO INSTEAD NOTHING")
        id = connection.execute("SELECT skill_system.append_audit('x', '{}')").fetchone()[0]
        assert connection.execute("SELECT count(*) FROM skill_system.audit_logs WHERE id = %s", [id]).fetchone() == (1,)
        # A seal that meets the rule writes it down.
        connection.execute("SELECT * FROM skill_system.seal_audit()")
        connection.execute("DROP RULE quiet ON skill_system.audit_logs")
        [(state,)] = connection.execute(
            "SELECT event_data ->> 'state' FROM skill_system.audit_logs "
            "WHERE event_type = 'audit.fingerprint' ORDER BY recorded_at DESC LIMIT 1"
        ).fetchall()
        assert "DO INSTEAD NOTHING" in state
    with going_on(t):
        t.said("detected", "the next seal while it is there: an `audit.fingerprint` record")


@attack(12, "A late BEFORE trigger that changes the row after it was signed, or swallows it")
def _(t, log):
    create = "CREATE TRIGGER zz_late BEFORE INSERT ON skill_system.audit_logs FOR EACH ROW EXECUTE FUNCTION public.{}()"

    def append(connection):
        connection.execute("INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{\"n\": 1}')")

    statement(t, log, create.format("meddle"), "signature_mismatch", "protection_missing", then=append)
    statement(t, log, create.format("swallow"), "protection_missing", then=append)
    with going_on(t), log.rolled_back() as connection:
        connection.execute(create.format("swallow"))
        t.refused(
            connection,
            "SELECT skill_system.append_audit('x', '{}')",
            "55000",
            "a trigger discarded the audit record",
        )
    # Taken away again: the changed record stays false.
    with going_on(t), log.rolled_back() as connection:
        connection.execute(create.format("meddle"))
        append(connection)
        connection.execute("DROP TRIGGER zz_late ON skill_system.audit_logs")
        t.found(connection, "signature_mismatch")


@attack(13, "A forged signature, by INSERT or COPY")
def _(t, log):
    with log.connect("test_agent") as agent:
        t.refused(
            agent,
            "INSERT INTO skill_system.audit_logs (event_type, event_data, signature) VALUES ('x', '{}', 'v1:k:00')",
            "42501",
            DENIED,
        )
        t.refused(agent, "COPY skill_system.audit_logs (event_type, event_data, signature) FROM STDIN", "42501", DENIED)
    # The owner may give a signature, because a restore does.
    with log.rolled_back("chief", insist=False) as connection:
        record = values(connection, victim(connection))
        record[0] = "01a1fe1c-509a-711b-9572-85a8c450d751"
        put(connection, record)
        t.found(connection, "signature_mismatch")


@attack(14, "A forged transaction id, old or to come, so that no seal takes the record")
def _(t, log):
    with log.connect("test_agent") as agent:
        t.refused(
            agent,
            "INSERT INTO skill_system.audit_logs (event_type, event_data, transaction_id) VALUES ('x', '{}', 3)",
            "42501",
            DENIED,
        )
    # Even with the signing key.
    for transaction, problem in (("3", "record_not_sealed"), (str(2**40), "transaction_unknown")):
        with log.rolled_back(insist=False) as connection:
            record = values(connection, victim(connection))
            record[0], record[RECORD.index("transaction_id")] = "01a1fe1c-509a-711b-9572-85a8c450d751", transaction
            put(connection, resign(record, log.log_id, keyring(connection)))
            t.found(connection, problem)
            assert "signature_mismatch" not in str(findings(connection))


@attack(15, "Old records once more, by COPY or `pg_restore --disable-triggers`")
def _(t, log):
    with log.connect() as connection:
        record = values(connection, victim(connection))
        t.refused(
            connection,
            f"INSERT INTO skill_system.audit_logs ({', '.join(RECORD)}) VALUES ({', '.join(['%s'] * len(RECORD))})",
            "23505",
            "unique constraint",
            record,
        )
        t.guarded(connection, f"ALTER TABLE skill_system.{MONTH} DISABLE TRIGGER ALL")
    statement(
        t,
        log,
        f"ALTER TABLE skill_system.{MONTH} DROP CONSTRAINT {MONTH}_pkey",
        "record_twice",
        "protection_missing",
        then=lambda connection: put(connection, record),
    )


@attack(16, "A genuine record replayed in another partition, tenant, database")
def _(t, log, fresh):
    with log.connect() as connection:
        record = values(connection, victim(connection))
    with fresh.rolled_back(insist=False) as connection:
        put(connection, record)
        t.found(connection, "signature_mismatch")
    for column, value in (("tenant_id", "other"), ("created_at", "2041-01-07 00:00:00+00")):
        with log.rolled_back(insist=False) as connection:
            moved = list(record)
            moved[RECORD.index(column)] = value
            put(connection, moved)
            t.found(connection, "signature_mismatch")


def copy_of(server):
    return server.cluster.directory / "copy"


@attack(17, "Tail rollback: the whole server is put back to a file-level backup")
def _(t, fresh):
    server, data = fresh.server, fresh.server.cluster.data

    def run(*command):
        return subprocess.run(command, check=True)

    server.restart(lambda: run("cp", "-a", data, copy_of(server)))
    with fresh.connect() as connection:
        connection.execute("SELECT count(skill_system.append_audit('embarrassing', '{}')) FROM generate_series(1, 20)")
        seal(connection)
        held = connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    server.restart(lambda: (run("rm", "-rf", data), run("mv", copy_of(server), data)))
    with fresh.connect() as connection:
        assert connection.execute(
            "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'embarrassing'"
        ).fetchone() == (0,)
        # The server alone cannot know.
        t.unseen(connection)
        t.verifier(
            "older",
            1,
            "watch",
            "new",
            "--state",
            "held",
            "--key",
            fresh.key,
            keep=" against the checkpoint held outside",
            new=fresh.checkpoint,
            held=held,
        )
        # Nor does it help to write until the log is longer than it was.
        connection.execute("SELECT count(skill_system.append_audit('harmless', '{}')) FROM generate_series(1, 50)")
        seal(connection)
        now = connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
        proof = connection.execute(
            "SELECT proof FROM skill_system.audit_consistency_proof(%s)", [int(held.split("\n")[1])]
        ).fetchone()[0]
        t.verifier(
            "not_consistent",
            1,
            "watch",
            "new",
            "--state",
            "held",
            "--proof",
            "proof",
            "--key",
            fresh.key,
            keep=" against the checkpoint held outside",
            new=now,
            held=held,
            proof=proof,
        )
        continued, loss = connection.execute(
            "SELECT continued, detail FROM skill_system.adopt_log('restored', %s)", [held]
        ).fetchone()
        assert continued is False and loss
        t.said("detected", "`adopt_log()` with that checkpoint: a new incarnation, the loss recorded")


def kill(connection, id):
    place = connection.execute(f"SELECT ctid::text FROM skill_system.{MONTH} WHERE id = %s", [id]).fetchone()[0]
    connection.execute(f"SELECT heap_force_kill('skill_system.{MONTH}', ARRAY[%s::tid])", [place])


@attack(18, "Removal of a record before it is sealed")
def _(t, fresh):
    with fresh.connect() as connection:
        connection.execute("CREATE EXTENSION pg_surgery")
        id = connection.execute("SELECT skill_system.append_audit('embarrassing', '{}')").fetchone()[0]
        t.guarded(connection, "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL")
        kill(connection, id)
        t.unseen(connection)
        seal(connection)
        t.unseen(connection)
        t.said(
            "out of scope",
            "a superuser can remove what is younger than the last seal"
            + (" (`skill_system.seal_interval`, 1 s)" if t.preloaded else " (the last call of `seal_audit()`)")
            + "; run with `pg_surgery`, nothing finds it",
        )
        # Sealed, it is not to be removed unseen.
        id = connection.execute("SELECT skill_system.append_audit('embarrassing', '{}')").fetchone()[0]
        if t.preloaded:
            connection.execute("ALTER SYSTEM SET skill_system.seal_interval = '1s'")
            connection.execute("SELECT pg_reload_conf()")
            try:
                deadline = time.monotonic() + 20
                while connection.execute("SELECT skill_system.audit_leaf_index(%s)", [id]).fetchone()[0] is None:
                    assert time.monotonic() < deadline, "the sealer does not seal"
                    time.sleep(0.05)
            finally:
                connection.execute("ALTER SYSTEM RESET skill_system.seal_interval")
                connection.execute("SELECT pg_reload_conf()")
        else:
            seal(connection)
        kill(connection, id)
        t.found(connection, "record_missing")


@attack(19, "`pg_surgery`: heap_force_kill, heap_force_freeze")
def _(t, fresh):
    with fresh.connect() as connection:
        connection.execute("CREATE EXTENSION pg_surgery")
        connection.execute("BEGIN")
        dead = connection.execute("SELECT skill_system.append_audit('never happened', '{}')").fetchone()[0]
        place = connection.execute(f"SELECT ctid::text FROM skill_system.{MONTH} WHERE id = %s", [dead]).fetchone()[0]
        connection.execute("ROLLBACK")
        connection.execute("SELECT skill_system.append_audit('x', '{}')")
        seal(connection)
        kill(connection, victim(connection))
        t.found(connection, "record_missing")
        # A record that was rolled back comes to life.
        connection.execute(f"SELECT heap_force_freeze('skill_system.{MONTH}', ARRAY[%s::tid])", [place])
        assert connection.execute(
            "SELECT id FROM skill_system.audit_logs WHERE event_type = 'never happened'"
        ).fetchall() == [(dead,)]
        t.found(connection, "record_not_sealed")


@attack(20, "Direct edit of the heap file")
def _(t, fresh):
    with fresh.connect() as connection:
        assert connection.execute("SHOW data_checksums").fetchone() == ("off",)
        path = fresh.path(connection, f"skill_system.{MONTH}")
    fresh.server.restart(lambda: edit(path, b"permit 123", b"permit 321"))
    with fresh.connect() as connection:
        assert connection.execute(
            "SELECT event_data ->> 'text' FROM skill_system.audit_logs WHERE id = %s", [victim(connection, 123)]
        ).fetchone() == ("permit 321",)
        t.found(connection, "signature_mismatch", "leaf_mismatch")


@attack(21, "Index tampering, so that queries or the sealer do not see a record")
def _(t, log, fresh):
    with log.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        t.guarded(
            connection,
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'skill_system.{MONTH}_pkey'::regclass",
        )
    with going_on(t), log.rolled_back() as connection:
        connection.execute(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'skill_system.{MONTH}_pkey'::regclass"
        )
        t.found(connection, "protection_missing")
    server = fresh.server
    with fresh.connect() as connection:
        paths = {name: fresh.path(connection, f"skill_system.{MONTH}_{name}") for name in ("pkey", "brin_idx")}
    kept = {}
    server.restart(lambda: kept.update({name: path.read_bytes() for name, path in paths.items()}))
    fresh.settle()
    with fresh.connect() as connection:
        id = connection.execute("SELECT skill_system.append_audit('embarrassing', '{}')").fetchone()[0]
        seal(connection)
    server.restart(lambda: overwrite(paths["pkey"], kept["pkey"]))
    with fresh.connect() as connection:
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        assert connection.execute("SELECT count(*) FROM skill_system.audit_logs WHERE id = %s", [id]).fetchone() == (0,)
        connection.execute("RESET enable_seqscan; RESET enable_bitmapscan")
        t.found(connection, "index_mismatch")
        connection.execute(f"REINDEX TABLE skill_system.{MONTH}")
        t.unseen(connection)
        # Small tables are read as a whole.
        connection.execute("SELECT count(skill_system.append_audit('bulk', '{}')) FROM generate_series(1, 9000)")
        seal(connection)
        connection.execute(f"VACUUM ANALYZE skill_system.{MONTH}")
        paths = {name: fresh.path(connection, f"skill_system.{MONTH}_{name}") for name in paths}
    # The index that sealing reads: an old copy hides newer records from it.
    server.restart(lambda: kept.update({name: path.read_bytes() for name, path in paths.items()}))
    fresh.settle()
    with fresh.connect() as connection:
        connection.execute("SELECT skill_system.append_audit('embarrassing', '{}')")
    server.restart(lambda: overwrite(paths["brin_idx"], kept["brin_idx"]))
    # What comes next lies elsewhere, so that the server does not repair the index by itself.
    with fresh.connect() as connection:
        connection.execute(
            "INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) "
            "VALUES ('later', '{}', '2041-01-05')"
        )
        seal(connection)
        t.found(connection, "record_not_sealed")


LEDGER = ("audit_seal_state", "audit_tiles", "audit_map", "audit_checkpoints")


def open_ledger(connection):
    for table in LEDGER:
        connection.execute(f"ALTER TABLE skill_system.{table} DISABLE TRIGGER ALL")


def close_ledger(connection):
    for table in LEDGER:
        connection.execute(
            f"ALTER TABLE skill_system.{table} ENABLE ALWAYS TRIGGER {table}_no_change, "
            f"ENABLE ALWAYS TRIGGER {table}_no_truncate"
        )


@attack(22, "Edits of tiles, map, checkpoints and the seal state")
def _(t, log):
    with log.connect() as connection:
        for table, column in zip(LEDGER, ("tree_size = 1", "n = 1", "n = 1", "tree_size = 1"), strict=True):
            t.refused(connection, f"UPDATE skill_system.{table} SET {column}", "55000", APPEND_ONLY)
            t.refused(connection, f"DELETE FROM skill_system.{table}", "55000", APPEND_ONLY)
            t.refused(connection, f"TRUNCATE skill_system.{table}", "55000", APPEND_ONLY)
    # Rows can be added.
    for text, problem in (
        ("INSERT INTO skill_system.audit_tiles VALUES (0, 7, sha256(''))", "tile_damaged"),
        (
            (
                "INSERT INTO skill_system.audit_checkpoints (incarnation, tree_size, root_hash, key_id, note) "
                "SELECT incarnation, tree_size - 1, root_hash, key_id, note FROM skill_system.audit_checkpoints"
            ),
            "checkpoint_signature",
        ),
    ):
        with log.rolled_back(insist=False) as connection:
            connection.execute(text)
            t.found(connection, problem)
    with log.connect() as connection:
        t.guarded(connection, "ALTER TABLE skill_system.audit_tiles DISABLE TRIGGER ALL")
    for text, problem in (
        (
            (
                "UPDATE skill_system.audit_tiles SET hashes = overlay(hashes PLACING sha256('') FROM 33) "
                "WHERE level = 0 AND n = 0"
            ),
            "tile_damaged",
        ),
        (
            (
                "UPDATE skill_system.audit_map SET ids = overlay(ids PLACING uuid_send(gen_random_uuid()) "
                "FROM 17) WHERE n = 0"
            ),
            "record_missing",
        ),
        ("UPDATE skill_system.audit_checkpoints SET root_hash = sha256('')", "checkpoint_signature"),
        ("UPDATE skill_system.audit_seal_state SET root_hash = sha256('')", "root_mismatch"),
        ("UPDATE skill_system.audit_seal_state SET tree_size = tree_size - 1", "root_mismatch"),
    ):
        with log.rolled_back() as connection:
            open_ledger(connection)
            connection.execute(text)
            close_ledger(connection)
            assert "protection_missing" not in str(findings(connection))
            t.found(connection, problem)


@attack(23, "Everything rewritten and signed again with the live keys (split view)")
def _(t, fresh):
    with fresh.connect() as connection:
        if t.preloaded:
            connection.execute("SET skill_system.allow_unprotected = on")
        record = values(connection, victim(connection))
        connection.execute(f"ALTER TABLE skill_system.{MONTH} DISABLE TRIGGER ALL")
        open_ledger(connection)
        connection.execute("DELETE FROM skill_system.audit_logs WHERE id = %s", [record[0]])
        record[RECORD.index("event_data")] = '{"n": 17, "text": "nothing happened"}'
        put(connection, resign(record, fresh.log_id, keyring(connection)))
        # An empty state would stop the sealing, so one is forged.
        connection.execute(
            "UPDATE skill_system.audit_seal_state SET tree_size = 0, root_hash = sha256(''), snapshot = '1:1:', "
            "target = NULL, position_transaction = NULL, position_id = NULL, written_by = pg_current_xact_id()::text::bigint"
        )
        for table in LEDGER:
            if table != "audit_seal_state":
                connection.execute(f"DELETE FROM skill_system.{table}")
        close_ledger(connection)
        connection.execute(
            "".join(
                f"ALTER TABLE skill_system.{MONTH} ENABLE ALWAYS TRIGGER {name};"
                for name in ("audit_logs_sign", "audit_logs_no_change", "audit_logs_no_truncate")
            )
        )
        seal(connection)
        # What the server says is consistent in itself.
        t.unseen(connection)
        now = connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
        proof = connection.execute(
            "SELECT proof FROM skill_system.audit_consistency_proof(%s)", [fresh.size]
        ).fetchone()[0]
        t.verifier(
            "other_root",
            1,
            "compare",
            "old",
            "new",
            "--proof",
            "proof",
            "--key",
            fresh.key,
            keep=" with the checkpoint held outside",
            old=fresh.checkpoint,
            new=now,
            proof=proof,
        )


@attack(24, "Stolen signing keys")
def _(t, fresh):
    with fresh.rolled_back() as connection:
        record = values(connection, victim(connection))
        record[RECORD.index("event_data")] = '{"n": 17, "text": "nothing happened"}'
        connection.execute(f"ALTER TABLE skill_system.{MONTH} DISABLE TRIGGER ALL")
        connection.execute("DELETE FROM skill_system.audit_logs WHERE id = %s", [record[0]])
        put(connection, resign(record, fresh.log_id, keyring(connection)))
        # Its signature is true.
        assert "signature_mismatch" not in str(findings(connection))
        t.found(connection, "leaf_mismatch")
    with fresh.connect() as connection:
        connection.execute("BEGIN")
        record[0], record[RECORD.index("transaction_id")] = (
            "01a1fe1c-509a-711b-9572-85a8c450d751",
            connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0],
        )
        put(connection, resign(record, fresh.log_id, keyring(connection)))
        connection.execute("COMMIT")
        seal(connection)
        t.unseen(connection)
    t.said(
        "out of scope",
        "for the future: a thief with the keys and the owner's rights writes new records that are as good "
        "as true ones, until the key is rotated; run, and nothing finds it",
    )


@attack(25, "Old records signed again with a newer key")
def _(t, log):
    with log.connect() as connection:
        ring = keyring(connection)
    path = log.server.cluster.data / "skill_system_keyring.json"
    newer = json.loads(ring)
    newer["keys"].append({"kty": "oct", "alg": "HS256", "kid": "newer", "active": False, "k": "A" * 43})
    overwrite(path, json.dumps(newer).encode())
    try:
        with log.rolled_back() as connection:
            record = values(connection, victim(connection))
            record[RECORD.index("key_id")] = "newer"
            connection.execute(f"ALTER TABLE skill_system.{MONTH} DISABLE TRIGGER ALL")
            connection.execute("DELETE FROM skill_system.audit_logs WHERE id = %s", [record[0]])
            put(connection, resign(record, log.log_id, keyring(connection)))
            assert "signature_mismatch" not in str(findings(connection)) and "key_unknown" not in str(
                findings(connection)
            )
            t.found(connection, "leaf_mismatch")
    finally:
        overwrite(path, ring.encode())


@attack(26, "The log replaced by one that was never sealed")
def _(t, log):
    with log.rolled_back() as connection:
        open_ledger(connection)
        connection.execute("DELETE FROM skill_system.audit_seal_state")
        close_ledger(connection)
        t.found(connection, "seal_missing")
        open_ledger(connection)
        for table in LEDGER:
            connection.execute(f"DELETE FROM skill_system.{table}")
        close_ledger(connection)
        t.found(connection, "seal_missing")
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            log.export(connection)
    # Without a seal it did not succeed.
    t.verifier("", 2, "export", "empty", "--key", log.key, empty="", keep=" of nothing: exit status 2")


def health(connection, check):
    return connection.execute('SELECT status FROM skill_system.health() WHERE "check" = %s', [check]).fetchone()[0]


@attack(27, "The sealer stopped, the library taken from `shared_preload_libraries`")
def _(t, fresh):
    if t.preloaded:
        fresh.server.restart(preload=False)
    with fresh.connect() as connection:
        assert health(connection, "utility_guard") == "warning"
        t.said("detected", "`health()`: utility_guard")
        seal(connection)
        said = connection.execute(
            "SELECT event_data -> 'state' ->> 'library' FROM skill_system.audit_logs "
            "WHERE event_type = 'audit.fingerprint' ORDER BY recorded_at DESC LIMIT 1"
        ).fetchone()[0]
        assert said.endswith(", not preloaded")
        t.said("detected", "the next seal: an `audit.fingerprint` record, “not preloaded”")
        # Nobody seals, and ten minutes go by.
        assert health(connection, "audit_seal") == "ok"
        connection.execute("BEGIN")
        record = values(connection, victim(connection))
        long_ago = connection.execute(
            "SELECT (now() - interval '10 minutes')::text, pg_current_xact_id()::text"
        ).fetchone()
        record[0], record[RECORD.index("recorded_at")], record[RECORD.index("transaction_id")] = (
            "01a1fe1c-509a-711b-9572-85a8c450d751",
            *long_ago,
        )
        put(connection, resign(record, fresh.log_id, keyring(connection)))
        assert health(connection, "audit_seal") == "warning"
        t.said("detected", "`health()`: audit_seal")
        connection.execute("ROLLBACK")
    if t.preloaded:
        fresh.server.restart()
        with fresh.connect() as connection:
            assert health(connection, "utility_guard") == "ok"


@attack(28, "The library, the server or its loader replaced (`LD_PRELOAD`)")
def _(t, log):
    # Code of the attacker's own speaks for the server.
    with log.rolled_back() as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION skill_system.verify_audit(since timestamptz DEFAULT '-infinity', "
            "until timestamptz DEFAULT 'infinity', since_checkpoint bigint DEFAULT NULL) "
            "RETURNS TABLE (partition regclass, record_id uuid, created_at timestamptz, problem text, detail text) "
            "LANGUAGE sql AS 'SELECT NULL::regclass, NULL::uuid, NULL::timestamptz, NULL, NULL WHERE false'"
        )
        triggers(connection, "DISABLE")
        connection.execute("UPDATE skill_system.audit_logs SET event_data = '{}' WHERE id = %s", [victim(connection)])
        t.unseen(connection)
        t.verifier(
            "root_differs",
            1,
            "export",
            "file",
            "--key",
            log.key,
            keep=" on a clean machine",
            file="\n".join(log.export(connection)) + "\n",
        )
    t.said(
        "out of scope",
        "for what a replaced server signs from then on: it can sign anything; run with a `verify_audit()` that lies",
    )


@attack(29, "CREATE OR REPLACE of functions, ALTER EXTENSION, DROP EXTENSION CASCADE")
def _(t, log):
    statement(
        t,
        log,
        "CREATE OR REPLACE FUNCTION skill_system.refuse_change() RETURNS trigger "
        "LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "protection_missing",
    )
    statement(t, log, "ALTER EXTENSION skill_system DROP FUNCTION skill_system.refuse_change()", "protection_missing")
    for role in ("chief", None):
        with log.connect(role) as connection:
            t.guarded(connection, "DROP EXTENSION skill_system CASCADE")
    with going_on(t), log.rolled_back() as connection:
        connection.execute("DROP EXTENSION skill_system CASCADE")
        with pytest.raises(errors.UndefinedFunction):
            findings(connection)
        t.said("detected", "`verify_audit()` is gone: 42883")


@attack(30, "`ALTER EVENT TRIGGER ... DISABLE`")
def _(t, log):
    with log.rolled_back(insist=False) as connection:
        # Only tables of other people depend on one.
        connection.execute("ALTER EVENT TRIGGER skill_system_protect_children DISABLE")
        t.found(connection, "event trigger skill_system_protect_children")
        connection.execute("SAVEPOINT before")
        t.guarded(connection, "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL")
        connection.execute("ROLLBACK TO before")
        with going_on(t):
            if t.preloaded:
                connection.execute("SET LOCAL skill_system.allow_unprotected = on")
            connection.execute("ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL")
            t.found(connection, "protection_missing")


@attack(31, "Single-user mode (`postgres --single`)")
def _(t, fresh):
    with fresh.connect() as connection:
        id = victim(connection)
    script = [
        f"ALTER TABLE skill_system.audit_logs {how}"
        for how in (
            "DISABLE TRIGGER ALL",
            "ENABLE ALWAYS TRIGGER audit_logs_sign",
            "ENABLE ALWAYS TRIGGER audit_logs_no_change",
            "ENABLE ALWAYS TRIGGER audit_logs_no_truncate",
        )
    ]
    script[1:1] = [f"DELETE FROM skill_system.audit_logs WHERE id = '{id}'"]
    script += [
        f"ALTER TABLE skill_system.{table} ENABLE ALWAYS TRIGGER audit_logs_no_truncate"
        for table in (MONTH, "audit_logs_2041_01")
    ]

    def alone():
        file = fresh.server.cluster.directory / "script.sql"
        file.write_text("\n".join(script) + "\n")
        as_server("sh", "-c", f"{bindir()}/postgres --single -D {fresh.server.cluster.data} {fresh.name} < {file}")

    fresh.server.restart(alone)
    with fresh.connect() as connection:
        assert "protection_missing" not in str(findings(connection))
        t.found(connection, "record_missing")


@attack(32, "search_path, SECURITY DEFINER and operators of the attacker")
def _(t, log):
    with log.rolled_back(insist=False) as connection:
        connection.execute(
            "CREATE SCHEMA shadow; CREATE TABLE shadow.audit_logs (LIKE skill_system.audit_logs); "
            "CREATE TABLE shadow.pg_trigger (a int); CREATE TABLE shadow.pg_class (a int); "
            "CREATE FUNCTION shadow.trap(anyelement, anyelement) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN "
            "RAISE EXCEPTION 'trapped'; END$$"
        )
        for operator, type in [
            (operator, type)
            for operator in ("=", "<", ">=", "<>")
            for type in ("uuid", "bigint", "text", "bytea", "timestamptz", "oid", "name", "integer")
        ]:
            connection.execute(
                (
                    f"CREATE FUNCTION shadow.trap_{type}({type}, {type}) RETURNS boolean "
                    "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$"
                )
                if operator == "="
                else "SELECT"
            )
            connection.execute(
                f"CREATE OPERATOR shadow.{operator} (LEFTARG = {type}, RIGHTARG = {type}, "
                f"FUNCTION = shadow.trap_{type})"
            )
        assert connection.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace AND prosecdef"
        ).fetchone() == (0,)
        connection.execute("SET LOCAL search_path = shadow, skill_system, pg_catalog")
        connection.execute("SAVEPOINT before")
        with pytest.raises(errors.RaiseException):
            connection.execute("SELECT 'a'::text = 'b'::text")
        connection.execute("ROLLBACK TO before")
        for text in (
            "SELECT skill_system.append_audit('x', '{}')",
            "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')",
            "SELECT * FROM skill_system.seal_audit()",
            "SELECT * FROM skill_system.health()",
            "SELECT * FROM skill_system.audit_export()",
            "SELECT * FROM skill_system.audit_fingerprint()",
        ):
            connection.execute(text)
        t.unseen(connection)
        # And what is wrong is found as ever.
        if t.preloaded:
            connection.execute("SET LOCAL skill_system.allow_unprotected = on")
        connection.execute("ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL")
        assert "protection_missing" in str(findings(connection))
    t.said("prevented", "every name the functions use is pg_catalog's")


@attack(33, "SET ROLE, SET SESSION AUTHORIZATION, settings: to be somebody else")
def _(t, log):
    with log.connect("test_agent") as agent:
        agent.execute("SELECT skill_system.current_tenant()")
        for text in ("SET SESSION AUTHORIZATION postgres", "SET ROLE chief", "SET skill_system.tenant = 'other'"):
            t.refused(agent, text, "42501", DENIED)
    with log.rolled_back(insist=False) as connection:
        id = "SELECT skill_system.append_audit('x', '{}', 'the pope')"
        who = "SELECT session_user_name, current_user_name, actor_id FROM skill_system.audit_logs WHERE id = %s"
        connection.execute("SET SESSION AUTHORIZATION test_agent")
        made = connection.execute(id).fetchone()[0]
        connection.execute("RESET SESSION AUTHORIZATION")
        assert connection.execute(who, [made]).fetchone() == ("postgres", "test_agent", "the pope")
        connection.execute("SET ROLE skill_system_agent")
        made = connection.execute(id).fetchone()[0]
        connection.execute("RESET ROLE")
        assert connection.execute(who, [made]).fetchone() == ("postgres", "skill_system_agent", "the pope")
    t.said(
        "prevented",
        "session_user_name is who logged in, also after SET SESSION AUTHORIZATION; actor_id is a claim and named so",
    )


@attack(34, "Row security that hides records from auditors; BYPASSRLS writers")
def _(t, log):
    statement(
        t,
        log,
        "CREATE POLICY less ON skill_system.audit_logs AS RESTRICTIVE FOR SELECT USING (event_data ->> 'n' <> '17')",
        "protection_missing",
    )
    statement(
        t,
        log,
        "ALTER POLICY auditor ON skill_system.audit_logs USING (event_data ->> 'n' <> '17')",
        "protection_missing",
    )
    with going_on(t), log.rolled_back() as connection:
        connection.execute(
            "CREATE POLICY less ON skill_system.audit_logs AS RESTRICTIVE FOR SELECT USING "
            "(event_data ->> 'n' IS DISTINCT FROM '17')"
        )
        connection.execute("SET LOCAL ROLE skill_system_auditor")
        t.found(connection, "protection_missing", "record_missing")
    with log.connect() as connection:
        connection.execute(
            "DROP ROLE IF EXISTS free; CREATE ROLE free BYPASSRLS LOGIN; GRANT skill_system_agent TO free; "
            "GRANT INSERT ON skill_system.audit_logs TO free"
        )
        with log.connect("free") as free:
            t.refused(
                free,
                "INSERT INTO skill_system.audit_logs (tenant_id, event_type, event_data) VALUES ('other', 'x', '{}')",
                "42501",
                "belongs to the tenant of its session",
            )
        connection.execute("DROP OWNED BY free; DROP ROLE free")


@attack(35, "Logical replication applies UPDATE, DELETE, TRUNCATE")
def _(t, fresh):
    server, environment = fresh.server, fresh.server.cluster.environment
    kinds = ("update", "delete", "truncate")
    with fresh.connect() as connection:
        record = values(connection, victim(connection))
    with server.connect("postgres") as admin:
        admin.execute("CREATE DATABASE publisher TEMPLATE template0")
    log = server.cluster.directory / "log"
    before = len(as_server("cat", str(log)))
    with server.connect("publisher") as publisher, fresh.connect() as subscriber:
        publisher.execute(
            "CREATE SCHEMA skill_system; CREATE TABLE skill_system.audit_logs (id uuid, tenant_id text, "
            "event_type varchar(100), event_data jsonb, actor_id varchar(100), actor_type varchar(20), "
            "created_at timestamptz, recorded_at timestamptz, transaction_id bigint, "
            "session_user_name text, current_user_name text, key_id text, signature varchar(256)); "
            "ALTER TABLE skill_system.audit_logs REPLICA IDENTITY FULL"
        )
        put(publisher, record)
        for kind in kinds:
            publisher.execute(f"CREATE PUBLICATION {kind} FOR TABLE skill_system.audit_logs WITH (publish = '{kind}')")
            publisher.execute(f"SELECT pg_create_logical_replication_slot('{kind}', 'pgoutput')")
        for kind in kinds:
            subscriber.execute(
                f"CREATE SUBSCRIPTION {kind} CONNECTION 'host={environment['PGHOST']} "
                f"port={environment['PGPORT']} user=postgres dbname=publisher' PUBLICATION {kind} "
                f"WITH (create_slot = false, slot_name = '{kind}', copy_data = false)"
            )
        publisher.execute("UPDATE skill_system.audit_logs SET event_type = 'harmless'")
        publisher.execute("DELETE FROM skill_system.audit_logs")
        publisher.execute("TRUNCATE skill_system.audit_logs")
        deadline = time.monotonic() + 60
        wanted = [f"{APPEND_ONLY}: {kind.upper()} is refused" for kind in kinds]
        while not all(text in as_server("cat", str(log))[before:] for text in wanted):
            assert time.monotonic() < deadline, "not everything was applied and refused"
            time.sleep(0.1)
        for kind in kinds:
            subscriber.execute(
                f"ALTER SUBSCRIPTION {kind} DISABLE; ALTER SUBSCRIPTION {kind} SET (slot_name = NONE); "
                f"DROP SUBSCRIPTION {kind}"
            )
        t.unseen(subscriber)
        for kind in kinds:
            while not publisher.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s "
                "AND NOT active",
                [kind],
            ).fetchone():
                assert time.monotonic() < deadline
                time.sleep(0.05)
    t.said("prevented", f"55000 “{APPEND_ONLY}”, by ALWAYS triggers in the apply worker")


@attack(36, "`COPY ... TO PROGRAM`, foreign data wrappers, pg_write_server_files")
def _(t, fresh):
    server = fresh.server
    with fresh.connect("test_agent") as agent:
        t.refused(agent, "COPY (SELECT 1) TO PROGRAM 'true'", "42501", "COPY to or from an external program")
    with fresh.connect() as connection:
        path = fresh.path(connection, f"skill_system.{MONTH}")
        connection.execute("CREATE EXTENSION postgres_fdw")
        connection.execute(
            "CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw OPTIONS "
            f"(host '{server.cluster.environment['PGHOST']}', "
            f"port '{server.cluster.environment['PGPORT']}', dbname '{fresh.name}'); "
            "CREATE USER MAPPING FOR postgres SERVER itself OPTIONS (user 'postgres')"
        )
        connection.execute(
            "CREATE FOREIGN TABLE public.far (id uuid) SERVER itself OPTIONS (schema_name 'skill_system', "
            "table_name 'audit_logs')"
        )
        t.refused(connection, "DELETE FROM public.far", "55000", APPEND_ONLY)
        connection.execute("CHECKPOINT")
        at = path.read_bytes().index(b"permit 123")
        connection.execute(
            f"COPY (SELECT 1) TO PROGRAM 'printf \"permit 321\" | dd of={path} bs=1 seek={at} conv=notrunc 2>/dev/null'"
        )
    server.restart()
    with fresh.connect() as connection:
        t.found(connection, "signature_mismatch", "leaf_mismatch")


@attack(37, "The clock set back")
def _(t, fresh):
    with fresh.connect("test_agent") as agent:
        t.refused(
            agent,
            "INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) VALUES ('x', '{}', '2020-01-01')",
            "42501",
            DENIED,
        )
    with fresh.connect() as connection:
        # As a server with a wrong clock writes it, signature included.
        connection.execute("BEGIN")
        record = values(connection, victim(connection))
        record[0], record[RECORD.index("transaction_id")] = (
            "016f5e66-e800-7000-8000-000000000001",
            connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0],
        )
        record[RECORD.index("created_at")] = record[RECORD.index("recorded_at")] = "2020-01-01 00:00:00+00"
        put(connection, resign(record, fresh.log_id, keyring(connection)))
        connection.execute("COMMIT")
        seal(connection)
        t.unseen(connection)
        # It is younger than all that was sealed before, whatever its times say.
        assert connection.execute("SELECT skill_system.audit_leaf_index(%s)", [record[0]]).fetchone()[0] == fresh.size
        t.said(
            "detected",
            "the place in the tree: a leaf later than its neighbours with an earlier time; "
            "order never comes from a clock",
        )


@attack(38, "The audit table locked, so that nothing can be recorded")
def _(t, log):
    with log.connect("test_agent") as agent, log.connect() as holder:
        agent.execute("BEGIN")
        t.refused(agent, "LOCK TABLE skill_system.audit_logs", "42501", DENIED)
        agent.execute("ROLLBACK")
        holder.execute("BEGIN; LOCK TABLE skill_system.audit_logs IN ACCESS EXCLUSIVE MODE")
        agent.execute("SET lock_timeout = '200ms'")
        t.refused(agent, "SELECT skill_system.append_audit('x', '{}')", "55P03", "lock timeout")
        t.refused(agent, "SELECT skill_system.log_denial('x', '{}')", "53400", "could not record the denial")
        holder.execute("ROLLBACK")
    t.said("prevented", "what cannot be recorded fails")


@attack(39, "A flood that delays sealing")
def _(t, fresh):
    with fresh.connect("test_agent") as agent:
        agent.execute("SELECT count(skill_system.append_audit('flood', '{}')) FROM generate_series(1, 10000)")
    with fresh.connect() as connection:
        connection.execute("SELECT skill_system.append_audit('buried', '{}')")
        sealed, unsealed, age = connection.execute(
            "SELECT sealed, unsealed, oldest_unsealed_age FROM skill_system.seal_audit(1000)"
        ).fetchone()
        assert sealed == 1000 and unsealed >= 9001 and age is not None
        t.said("detected", "`seal_audit()`: unsealed, oldest_unsealed_age")
        t.unseen(connection)
        while connection.execute("SELECT sealed FROM skill_system.seal_audit(4000)").fetchone()[0]:
            pass
        assert (
            connection.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0]
            >= 10000 + fresh.size
        )
        t.unseen(connection)


@attack(40, "The key read from memory or from its file")
def _(t, log):
    with log.connect("test_agent") as agent:
        t.refused(agent, "SELECT pg_read_file('skill_system_keyring.json')", "42501", DENIED)
    with log.connect() as connection:
        assert skr1.keys(keyring(connection))
    assert (log.server.cluster.data / "skill_system_keyring.json").stat().st_mode & 0o777 == 0o600
    t.said(
        "out of scope", "a superuser or root reads what the server can read: run; what was sealed before is safe (24)"
    )


def inclusion(connection, id):
    """The record as JSON, and the proof as text."""
    return (
        connection.execute("SELECT to_jsonb(a)::text FROM skill_system.audit_logs a WHERE id = %s", [id]).fetchone()[0],
        connection.execute("SELECT proof FROM skill_system.audit_inclusion_proof(%s)", [id]).fetchone()[0],
    )


@attack(41, "Second preimage: an inner node of the tree passed off as a leaf, or the reverse")
def _(t, log):
    with log.connect() as connection:
        record, proof = inclusion(connection, victim(connection))
        left, right = (
            row[0] for row in connection.execute("SELECT leaf_hash FROM skill_system.audit_leaves(0, 2)").fetchall()
        )
        inner = connection.execute(
            "SELECT hashes[2] FROM skill_system.audit_inclusion_proof((SELECT record_id FROM skill_system.audit_leaves(2, 1)))"
        ).fetchone()[0]
    assert skill_verify("proof", "text", "--record", "record", "--key", log.key, text=proof, record=record)[0] == 0
    assert hashlib.sha256(b"\1" + left + right).digest() == inner != hashlib.sha256(b"\0" + left + right).digest()
    # The same record as the node above it.
    lines = proof.split("\n")
    [at] = [n for n, line in enumerate(lines) if line.startswith("index ")]
    lines[at] = f"index {int(lines[at].split()[1]) // 2}"
    del lines[at + 1]
    status, output, error = skill_verify(
        "proof", "text", "--record", "record", "--key", log.key, text="\n".join(lines), record=record
    )
    assert status == 1 and '"not_in_log"' in output
    t.said("prevented", "`skill-verify proof`: not_in_log; leaves and nodes are hashed apart (RFC 6962)")


def judge(connection, log, record):
    """What audit_problem() says of values."""
    return connection.execute(
        "SELECT skill_system.audit_problem(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [log.log_id, *record],
    ).fetchone()[0]


@attack(42, "Ambiguous encoding: a delimiter moved from one field into the next")
def _(t, log):
    with log.rolled_back(insist=False) as connection:
        id = connection.execute("SELECT skill_system.append_audit('ab', '\"x\"', 'c|d', 'e')").fetchone()[0]
        record = values(connection, id)
        assert judge(connection, log, record) is None
        at = RECORD.index("event_type")
        for changes in (
            {at: "ab|c", RECORD.index("actor_id"): "d"},
            {at: "a", RECORD.index("actor_id"): "bc|d"},
            {RECORD.index("actor_id"): "c|de", RECORD.index("actor_type"): ""},
            {RECORD.index("actor_type"): None},
            {
                RECORD.index("session_user_name"): record[RECORD.index("session_user_name")]
                + record[RECORD.index("current_user_name")],
                RECORD.index("current_user_name"): "",
            },
        ):
            changed = [changes.get(n, value) for n, value in enumerate(record)]
            assert judge(connection, log, changed) == "signature_mismatch"
    t.said("prevented", "every value is signed with its length and kind (SKR1): signature_mismatch")


@attack(43, "Numbers that another reader takes for the same (2^53 + 1 and 2^53)")
def _(t, log):
    with log.rolled_back(insist=False) as connection:
        id = connection.execute(
            "SELECT skill_system.append_audit('x', '{\"n\": 9007199254740993, \"m\": 1.0}')"
        ).fetchone()[0]
        record = values(connection, id)
        assert judge(connection, log, record) is None
        for data in (
            '{"n": 9007199254740992, "m": 1.0}',
            '{"n": 9007199254740993, "m": 1.00}',
            '{"n": 9007199254740993, "m": 1}',
            '{"n": "9007199254740993", "m": 1.0}',
        ):
            changed = list(record)
            changed[RECORD.index("event_data")] = data
            assert judge(connection, log, changed) == "signature_mismatch"
    t.said("prevented", "every digit is signed: signature_mismatch")


def bounded():
    """At most 2 GB of addresses and 20 s of CPU: what wants more dies, and the test fails."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))


@attack(44, "Hostile input for the verifier: huge proofs, nested bombs, endless lines")
def _(t, log):
    with log.connect() as connection:
        lines = log.export(connection)
        record, proof = inclusion(connection, victim(connection))
    head = json.loads(lines[0])

    def manifest(**changes):
        return json.dumps(head | changes)

    deep = '{"a":' * 200_000
    many = proof.replace("\n\n", "\n" + (b64(b"x" * 32) + "\n") * 64 + "\n", 1)
    for _, *call in (
        (2, "proof", "file", "--record", "record", many),
        (2, "proof", "file", "--record", "record", proof.replace("index ", "index " + "9" * 30)),
        (2, "proof", "file", "--record", "record", proof + "x" * 100_000),
        (2, "export", "file", "\n".join([lines[0], "x" * 30_000_000])),
        (2, "export", "file", "\0" * 30_000_000),
        (2, "export", "file", "\n".join([lines[0], deep, *lines[1:]])),
        (2, "export", "file", deep),
        (2, "export", "file", "\n".join([manifest(size=2**63), *lines[1:]])),
        (2, "export", "file", "\n".join([manifest(size=2**64), *lines[1:]])),
        (2, "export", "file", "\n".join([manifest(left=[b64(b"x" * 32)] * 100_000), *lines[1:]])),
        (
            2,
            "export",
            "file",
            "\n".join([lines[0], '{"leaf":0,"count":18446744073709551615,"retired":true,"hashes":[]}', *lines[2:]]),
        ),
        (2, "checkpoint", "file", log.checkpoint + "— x AAAA\n" * 100_000),
        (2, "checkpoint", "file", "x\n" * 20_000),
        (2, "export", "file", b"\xff\xfe" * 1000),
    ):
        *words, text = call
        got, output, error = skill_verify(
            *words,
            "--key",
            log.key,
            "--threads",
            "2",
            limit=bounded,
            file=text,
            **({"record": record} if "record" in words else {}),
        )
        # Never killed, never a panic.
        assert got in (1, 2) and "panicked" not in error, (words, str(text)[:200], got, output[-300:], error[-300:])
    # An endless file is left after a bounded part of it.
    assert skill_verify("checkpoint", "/dev/zero", "--key", log.key, limit=bounded)[0] == 2
    t.said("prevented", "`skill-verify`: exit status 1 or 2 within 2 GB of address space and 20 s of CPU")


@attack(45, "Lawful pruning as a cover")
def _(t, log):
    retired = "SELECT skill_system.{}('audit.partition_retired', '{{\"leaves\": \"{{[0,5)}}\"}}')"
    with log.connect("test_agent") as agent:
        t.refused(agent, retired.format("append_audit"), "42501", "are reserved for the extension's records")
        t.refused(agent, retired.format("log_denial"), "42501", "are reserved for the extension's records")
        t.refused(
            agent,
            "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('audit.partition_retired', '{}')",
            "42501",
            "are reserved for the extension's records",
        )
    # One person is not two.
    with log.rolled_back(insist=False) as connection:
        connection.execute("SET SESSION AUTHORIZATION test_admin")
        t.refused(
            connection,
            "SELECT * FROM skill_system.retire_audit_partition('2041-01-01', 'rule 1')",
            "42501",
            "without SET SESSION AUTHORIZATION",
        )
    statement(t, log, "DROP TABLE skill_system.audit_logs_2041_01", "record_missing")
    with log.rolled_back() as connection:
        # A retirement that nobody agreed to, signed with the stolen key: it is not a leaf.
        record = values(connection, victim(connection))
        record[0], record[RECORD.index("event_type")], record[RECORD.index("event_data")] = (
            "01a1fe1c-509a-711b-9572-85a8c450d751",
            "audit.partition_retired",
            '{"partition": "audit_logs_2041_01", "leaves": "{[0,1000)}", "since": "2041-01-01", "until": "2041-02-01"}',
        )
        connection.execute(
            f"INSERT INTO skill_system.audit_kept ({', '.join(RECORD)}) VALUES ({', '.join(['%s'] * len(RECORD))})",
            resign(record, log.log_id, keyring(connection)),
        )
        connection.execute("DROP TABLE skill_system.audit_logs_2041_01")
        with going_on(t):
            t.found(connection, "record_missing")
        lines = log.export(connection)
    # The export made to say it was retired.
    gone = [n for n, line in enumerate(lines) if '"missing":true' in line]
    assert len(gone) == 5
    first = json.loads(lines[gone[0]])["leaf"]
    lines[gone[0] : gone[-1] + 1] = [
        json.dumps(
            {
                "leaf": json.loads(lines[n])["leaf"],
                "count": 1,
                "retired": True,
                "hashes": [json.loads(lines[n])["hash"]],
            },
            separators=(",", ":"),
        )
        for n in gone
    ]
    last = json.loads(lines[-1])
    lines[-1] = json.dumps(last | {"missing": 0, "retired": 5})
    t.verifier("retired_without_record", 1, "export", "file", "--key", log.key, file="\n".join(lines) + "\n")
    assert first >= 0


@attack(46, "A person's key erased to hide evidence")
def _(t, log):
    path = log.server.cluster.data / "skill_system_keyring.json"
    with log.connect() as connection:
        ring = keyring(connection)
    other = json.loads(ring)
    for key in other["keys"]:
        if key["kty"] == "oct":
            key["kid"], key["k"] = "other", "A" * 43
    overwrite(path, json.dumps(other).encode())
    try:
        with log.connect() as connection:
            t.found(connection, "key_unknown")
    finally:
        overwrite(path, ring.encode())
    t.said(
        "out of scope",
        "records hold no encrypted fields, so no keys of persons exist; run is the erasure of the signing key",
    )


@attack(47, "The event is never logged")
def _(t, log):
    with log.rolled_back(insist=False) as connection:
        connection.execute(
            "CREATE TABLE public.wells (id int PRIMARY KEY, depth int); GRANT ALL ON public.wells TO test_agent"
        )
        before = connection.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone()
        connection.execute("INSERT INTO public.wells VALUES (1, 100)")
        assert connection.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone() == before
        t.unseen(connection)
        # Nor what the owner keeps out for a while that no seal falls into.
        if not t.preloaded:
            connection.execute("CREATE RULE quiet AS ON INSERT TO skill_system.audit_logs DO INSTEAD NOTHING")
            connection.execute("INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')")
            connection.execute("DROP RULE quiet ON skill_system.audit_logs")
            t.unseen(connection)
        # Where the database itself records, the writer has no choice.
        connection.execute("SELECT skill_system.audit_table('public.wells')")
        connection.execute("SET LOCAL ROLE test_agent; INSERT INTO public.wells VALUES (2, 200); RESET ROLE")
        assert connection.execute(
            "SELECT event_type FROM skill_system.audit_logs ORDER BY recorded_at DESC LIMIT 1"
        ).fetchone() == ("row.inserted",)
    t.said(
        "out of scope",
        "no log holds what nobody tells it"
        + ("" if t.preloaded else ", or what a rule swallows (11) that is gone before the next seal")
        + ": run; `audit_table()` and a policy enforced in the same transaction take the choice away",
    )


@attack(48, "A denial hidden by ROLLBACK")
def _(t, log):
    count = "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = %s"
    with log.connect("test_agent") as agent, log.connect() as connection:
        before = connection.execute(count, ["policy.denied"]).fetchone()[0]
        agent.execute("BEGIN")
        agent.execute("SELECT skill_system.log_denial('tool.denied', '{\"tool\": \"rm\"}')")
        agent.execute("ROLLBACK")
        assert connection.execute(count, ["tool.denied"]).fetchone()[0] == 1
        connection.execute("SELECT * FROM skill_system.install_starter_policies()")
        agent.execute("BEGIN")
        t.refused(agent, "SELECT skill_system.enforce_policy('dev', '{net.fetch}'::text[])", "42501", "does not allow")
        agent.execute("ROLLBACK")
        assert connection.execute(count, ["policy.denied"]).fetchone()[0] == before + 1
    t.said("prevented", "`log_denial()`: another process commits the record before the caller hears of it")


@attack(49, "A cherry-picked export")
def _(t, log):
    with log.connect() as connection:
        lines = log.export(connection)

    def verify(code, status, changed):
        return t.verifier(code, status, "export", "file", "--key", log.key, file="\n".join(changed) + "\n")

    assert skill_verify("export", "file", "--key", log.key, file="\n".join(lines) + "\n")[0] == 0
    verify("leaves_not_in_order", 1, lines[:9] + lines[10:])
    verify("leaves_not_in_order", 1, lines[:9] + [lines[10], lines[9]] + lines[11:])
    verify("leaves_not_in_order", 1, lines[:9] + [lines[9]] + lines[9:])
    verify(
        "root_differs",
        1,
        lines[:9] + [json.dumps(json.loads(lines[9]) | {"id": json.loads(lines[8])["id"]})] + lines[10:],
    )
    verify("root_differs", 1, lines[:9] + [lines[9].replace('"filed"', '"spilt"')] + lines[10:])
    head, last = json.loads(lines[0]), json.loads(lines[-1])
    verify("checkpoint_differs", 1, [json.dumps(head | {"root": b64(b"x" * 32)})] + lines[1:])
    verify("last_line_differs", 1, lines[:-1] + [json.dumps(last | {"since": "2020-01-01T00:00:00.000000Z"})])
    verify("counts_differ", 1, lines[:-1] + [json.dumps(last | {"records": last["records"] - 1})])
    # The end is cut off, with the last leaves or without.
    for cut in (lines[:-1], lines[:-9]):
        assert skill_verify("export", "file", "--key", log.key, file="\n".join(cut) + "\n")[0] == 3
    t.said("detected", "`skill-verify export` of a file without its end: exit status 3")


@attack(50, "A verifier that trusts the key inside the bundle")
def _(t, log):
    with log.connect() as connection:
        lines = log.export(connection)
    # The whole export again, signed by a key of the attacker's own under the name of the log.
    head = json.loads(lines[0])
    own = Ed25519PrivateKey.generate()
    public = own.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    body = head["checkpoint"].split("\n\n")[0] + "\n"
    vkey = b64(b"\x01" + public)
    key_hash = hashlib.sha256(head["origin"].encode() + b"\n\x01" + public).digest()[:4]
    note = f"{body}\n— {head['origin']} {b64(key_hash + own.sign(body.encode()))}\n"
    forged = [
        json.dumps(head | {"checkpoint": note}),
        *lines[1:-1],
        json.dumps(json.loads(lines[-1]) | {"checkpoint": note}),
    ]
    text = "\n".join(forged) + "\n"
    # The forgery is a valid one: anyone who takes the attacker's key for the log's believes it.
    assert skill_verify("export", "file", "--key", f"{head['origin']}+{key_hash.hex()}+{vkey}", file=text)[0] == 0
    got, output, _ = skill_verify("export", "file", "--key", log.key, file=text)
    assert got == 1 and '"checkpoint_not_signed"' in output
    t.said("prevented", "`skill-verify export` with the key from elsewhere: checkpoint_not_signed")
    assert skill_verify("export", "file", file=text)[0] == 3
    t.said("prevented", "without a key: exit status 3, “it is not authenticated”")


DOCUMENT = ROOT / "docs" / "attacks.md"


def test_the_document_is_of_this_run():
    """Last, because it tells what came of the others."""
    finished = {
        number: (title, each)
        for number, (title, each) in BOOK.trials.items()
        if len(each) == 2 and all(trial.finished for trial in each.values())
    }
    rows = {number: row(number, title, finished[number][1]) for number, (title, _) in finished.items()}
    assert rows, "run the attacks with it"
    if len(rows) == 50:
        table = "\n".join(rows[number] for number in sorted(rows))
        text = f"{HEAD}{summary(finished)}\n\n| # | Attack | Preloaded | Not preloaded |\n|---|---|---|---|\n{table}\n"
        if os.environ.get("UPDATE_GOLDEN"):
            DOCUMENT.parent.mkdir(exist_ok=True)
            DOCUMENT.write_text(text)
        assert DOCUMENT.read_text() == text, (
            "docs/attacks.md is not of this run: UPDATE_GOLDEN=1 writes it; read the difference"
        )
    else:
        # Some of the attacks only.
        known = DOCUMENT.read_text().splitlines()
        assert [line for line in rows.values() if line not in known] == []
