"""New keys: announced under the old one, used from the commit on, and what can go wrong between."""

import json
import threading
import time

import psycopg
import pytest
from conftest import make_roles
from psycopg import errors

import skr1
from cluster import as_server
from keyring import read_keyring, write_keyring
from ledger import includes, problems


class Server:
    """A separate cluster with two databases, which share the keyring."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = cluster.data / "skill_system_keyring.json"
        with cluster.connect() as admin:
            for name in ("one", "two"):
                admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        for name in ("one", "two"):
            with self.connect(dbname=name) as connection:
                connection.execute("CREATE EXTENSION skill_system")
                make_roles(connection)
                self.append(connection)
                connection.execute("SELECT * FROM skill_system.seal_audit()")

    def connect(self, role=None, dbname="one"):
        return self.cluster.connect(role, dbname)

    def ring(self):
        return json.loads(read_keyring(self.path))

    def active(self, type="oct"):
        [id] = [key["kid"] for key in self.ring()["keys"] if key["kty"] == type and key["active"]]
        return id

    def files(self):
        """What belongs to the keyring, with modes."""
        return as_server("sh", "-c", f"cd '{self.cluster.data}' && stat -c '%a %n' *keyring*").splitlines()

    def append(self, connection):
        """Key of a record written now."""
        [(id,)] = connection.execute("SELECT skill_system.append_audit('note', '{}')").fetchall()
        return connection.execute("SELECT key_id FROM skill_system.audit_logs WHERE id = %s", [id]).fetchone()[0]

    def health(self, connection):
        return connection.execute(
            "SELECT status, detail FROM skill_system.health() WHERE \"check\" = 'keyring'"
        ).fetchone()

    def problems(self, connection):
        return problems(connection, "problem", "detail")


@pytest.fixture
def server(new_cluster):
    return Server(new_cluster("max_prepared_transactions=2"))


@pytest.fixture
def db(server):
    with server.connect() as connection:
        yield connection


ONLY_FILE = ["600 skill_system_keyring.json"]


def rotate(connection):
    return connection.execute("SELECT skill_system.rotate_audit_key()").fetchone()[0]


def test_a_new_key_is_announced_by_the_old_one_and_proofs_go_on(server, db):
    old, old_signing = server.active(), server.active("OKP")
    [(first_id,)] = db.execute("SELECT id FROM skill_system.audit_logs WHERE event_type = 'note'").fetchall()
    old_note = db.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    old_size = db.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0]
    [(old_vkey,)] = db.execute("SELECT verifier_key FROM skill_system.audit_public_key() WHERE active").fetchall()
    with server.connect() as other, server.connect("test_admin") as admin:
        assert server.append(other) == old
        new = rotate(admin)
        assert new == server.active() != old and server.active("OKP") != old_signing
        # This session at once, others within a second.
        assert server.append(db) in (old, new)
        admin.execute("SELECT skill_system.append_audit('mine', '{}')")
        assert db.execute("SELECT key_id FROM skill_system.audit_logs WHERE event_type = 'mine'").fetchone() == (new,)
        time.sleep(1.1)
        assert server.append(other) == server.append(db) == new
    assert server.files() == ONLY_FILE
    assert [(key["kid"], key["active"]) for key in server.ring()["keys"]] == [
        (old, False),
        (old_signing, False),
        (new, True),
        (server.active("OKP"), True),
    ]

    [(key_id, session, data)] = db.execute(
        "SELECT key_id, session_user_name, event_data FROM skill_system.audit_logs "
        "WHERE event_type = 'audit.key_rotated'"
    ).fetchall()
    assert (key_id, session) == (old, "test_admin")
    public = {
        id: (vkey, jwk)
        for id, vkey, jwk in db.execute("SELECT key_id, verifier_key, jwk FROM skill_system.audit_public_key()")
    }
    signing = server.active("OKP")
    assert data == {
        "key_ids": [new],
        "active_key_id": new,
        "checkpoint_key_id": signing,
        "verifier_key": public[signing][0],
        "jwk": public[signing][1],
    }
    assert public[signing][0] != old_vkey == public[old_signing][0]

    db.execute("SELECT * FROM skill_system.seal_audit()")
    new_note = db.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    assert [key for (key,) in db.execute("SELECT key_id FROM skill_system.audit_checkpoints ORDER BY tree_size")] == [
        old_signing,
        signing,
    ]
    assert old_note.splitlines()[0] == new_note.splitlines()[0], "the log is the same one"
    index, size, leaf, root, proof = db.execute(
        "SELECT leaf_index, tree_size, leaf_hash, root_hash, hashes FROM skill_system.audit_inclusion_proof(%s)",
        [first_id],
    ).fetchone()
    assert size > old_size and includes(leaf, index, size, proof, root)
    assert (
        db.execute("SELECT old_root_hash FROM skill_system.audit_consistency_proof(%s)", [old_size]).fetchone()
        == db.execute("SELECT root_hash FROM skill_system.audit_checkpoints ORDER BY tree_size").fetchone()
    )
    assert server.problems(db) == [] and server.health(db)[0] == "ok"
    # And the second implementation agrees about what each key signed.
    log_id = str(db.execute("SELECT log_id FROM skill_system.audit_state").fetchone()[0])
    ring = skr1.keys(json.dumps(server.ring()))
    wanted = ", ".join(f"{name}::text" for name in skr1.COLUMNS)
    db.execute("SET TIME ZONE 'UTC'")
    rows = db.execute(f"SELECT {wanted}, signature FROM skill_system.audit_logs").fetchall()
    assert {row[-2] for row in rows} == {old, new} and all(
        skr1.signature(row[:-1], log_id, ring) == row[-1] for row in rows
    )
    # Once more.
    third = rotate(db)
    assert third == server.append(db) and len(server.ring()["keys"]) == 6 and server.problems(db) == []


def test_only_administrators_rotate(server, db):
    for who in ("test_agent", "test_reviewer", "test_auditor"):
        with server.connect(who) as connection, pytest.raises(errors.InsufficientPrivilege):
            rotate(connection)


def test_a_rollback_leaves_the_keyring_alone(server, db):
    before, old = server.ring(), server.active()

    def nothing_happened():
        assert server.ring() == before and server.files() == ONLY_FILE and server.append(db) == old

    with pytest.raises(ZeroDivisionError), db.transaction():
        rotate(db)
        assert len(server.files()) == 2 and {line.split()[0] for line in server.files()} == {"600"}
        assert server.append(db) == old, "the new key signs before it is announced"
        raise ZeroDivisionError
    nothing_happened()
    # By an error in the same statement.
    with pytest.raises(errors.DivisionByZero):
        db.execute("SELECT skill_system.rotate_audit_key(), 1 / (SELECT 0 * count(*) FROM skill_system.audit_kept)")
    nothing_happened()
    # By a savepoint, also one inside another that was released.
    with db.transaction():
        with pytest.raises(ZeroDivisionError), db.transaction():
            with db.transaction():
                rotate(db)
            assert len(server.files()) == 2
            raise ZeroDivisionError
        assert server.files() == ONLY_FILE
    nothing_happened()
    assert db.execute("SELECT count(*) FROM skill_system.audit_kept").fetchone() == (0,)
    # And a released one counts.
    with db.transaction():
        with db.transaction():
            new = rotate(db)
        with pytest.raises(ZeroDivisionError), db.transaction():
            raise ZeroDivisionError
    assert server.append(db) == new == server.active()


def test_a_session_that_ends_leaves_the_keyring_alone(server, db):
    before = server.ring()
    lost = server.connect()
    lost.execute("BEGIN")
    rotate(lost)
    assert len(server.files()) == 2
    db.execute("SELECT pg_terminate_backend(%s)", [lost.info.backend_pid])
    deadline = time.monotonic() + 20
    while server.files() != ONLY_FILE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lost.close()
    assert server.ring() == before


def test_prepared_transactions_are_refused(server, db):
    before = server.ring()
    db.execute("BEGIN")
    rotate(db)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be prepared"):
        db.execute("PREPARE TRANSACTION 'rotation'")
    assert db.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
    assert server.ring() == before and server.files() == ONLY_FILE


def test_two_at_once(server, db):
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="already"), db.transaction():
        rotate(db)
        rotate(db)
    db.execute("BEGIN")
    second = rotate(db)
    # In the same database the other one waits.
    with server.connect() as other, server.connect(dbname="two") as elsewhere:
        found = []
        thread = threading.Thread(target=lambda: found.append(rotate(other)))
        thread.start()
        deadline = time.monotonic() + 20
        while db.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", [other.info.backend_pid]
        ).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # In another database it is refused.
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="another session is rotating"):
            rotate(elsewhere)
        db.execute("COMMIT")
        thread.join()
    assert found and found[0] != second and server.active() == found[0]
    assert len(server.ring()["keys"]) == 6
    assert server.problems(db) == []
    assert [
        row[0]
        for row in db.execute("SELECT event_data->>'active_key_id' FROM skill_system.audit_kept ORDER BY recorded_at")
    ] == [second, found[0]]


def test_the_databases_of_a_server_share_the_keyring(server, db):
    old, new = server.active(), rotate(db)
    with server.connect(dbname="two") as two:
        assert server.append(two) == new
        assert server.health(two) == ("warning", f"{new} signs, but no record announces it")
        assert [problem for problem, _ in server.problems(two)] == ["key_unannounced"]
        # Here the key is announced, not made.
        assert rotate(two) == new and server.active() == new
        assert two.execute("SELECT key_id, event_data->'key_ids' FROM skill_system.audit_kept").fetchall() == [
            (old, [new])
        ]
        assert server.problems(two) == [] and server.health(two)[0] == "ok"
        # Two rotations in the other database with a record between: both keys are announced.
        third = rotate(db)
        time.sleep(1.1)
        assert server.append(two) == third
        fourth = rotate(db)
        time.sleep(1.1)
        assert server.append(two) == fourth
        assert sorted(detail.split()[1] for _, detail in server.problems(two)) == sorted([third, fourth])
        assert rotate(two) == fourth
        assert server.problems(two) == []
    assert server.problems(db) == [] and server.health(db)[0] == "ok"


def test_a_key_from_nowhere_is_reported(server, db):
    """Somebody exchanged the key by hand; nothing in the log says so, except in records that this key signed itself."""
    ring = server.ring()
    foreign = {"kty": "oct", "alg": "HS256", "kid": "hs-foreign", "active": True, "k": "A" * 43}
    write_keyring(
        server.path,
        json.dumps(
            {"keys": [{**key, "active": key["active"] and key["kty"] != "oct"} for key in ring["keys"]] + [foreign]}
        ),
    )
    time.sleep(1.1)
    assert server.append(db) == "hs-foreign"
    assert server.health(db)[0] == "warning"
    # A forged announcement, signed with the foreign key itself, changes nothing.
    row = dict(
        zip(
            skr1.COLUMNS,
            db.execute(
                f"SELECT {', '.join(name + '::text' for name in skr1.COLUMNS)} FROM skill_system.audit_logs "
                "WHERE key_id = 'hs-foreign'"
            ).fetchone(),
            strict=True,
        )
    )
    row |= {
        "id": "01a1fe1c-509a-711b-9572-85a8c450d751",
        "event_type": "audit.key_rotated",
        "event_data": '{"key_ids": ["hs-foreign"], "active_key_id": "hs-foreign"}',
        "transaction_id": db.execute("SELECT (pg_current_xact_id()::text::bigint + 1)::text").fetchone()[0],
    }
    log_id = str(db.execute("SELECT log_id FROM skill_system.audit_state").fetchone()[0])
    for table in ("audit_logs", "audit_kept"):
        db.execute(
            f"INSERT INTO skill_system.{table} ({', '.join(row)}, signature) VALUES ({', '.join(['%s'] * 13)})",
            [*row.values(), skr1.signature(tuple(row.values()), log_id, skr1.keys(json.dumps(server.ring())))],
        )
    assert [problem for problem, _ in server.problems(db)] == ["key_unannounced"]
    assert server.health(db)[0] == "warning"
    # An old key vouches for it when an administrator says so.
    assert rotate(db) == "hs-foreign"
    assert db.execute(
        "SELECT key_id FROM skill_system.audit_logs WHERE event_type = 'audit.key_rotated' AND key_id <> 'hs-foreign'"
    ).fetchone() == ([key["kid"] for key in ring["keys"] if key["kty"] == "oct"][0],)
    assert server.problems(db) == [] and server.health(db)[0] == "ok"
    assert rotate(db) != "hs-foreign"


def test_a_keyring_that_changes_meanwhile_stops_the_commit(server, db):
    ring = server.ring()
    foreign = json.dumps({"keys": [{**key, "note": "edited"} for key in ring["keys"]]})
    changes = {
        "keyring": lambda: write_keyring(server.path, foreign),
        "new one": lambda: as_server("sh", "-c", 'cat > "$0"', f"{server.path}.rotation", input=foreign),
        "new one lost": lambda: as_server("rm", f"{server.path}.rotation"),
        "lost": lambda: as_server("rm", str(server.path)),
        "mode": lambda: as_server("chmod", "640", str(server.path)),
    }
    for change, make in changes.items():
        write_keyring(server.path, json.dumps(ring))
        time.sleep(1.1)
        db.execute("BEGIN")
        rotate(db)
        make()
        with pytest.raises(errors.ConfigFileError, match="not the one"):
            db.execute("COMMIT")
        assert f"{server.path.name}.rotation" not in " ".join(server.files() if change != "lost" else []), change
        if change != "lost":
            as_server("chmod", "600", str(server.path))
            assert server.ring() == (json.loads(foreign) if change == "keyring" else ring), change
    write_keyring(server.path, json.dumps(ring))
    assert db.execute("SELECT count(*) FROM skill_system.audit_kept").fetchone() == (0,)
    time.sleep(1.1)
    assert rotate(db) == server.active() and server.files() == ONLY_FILE


def test_a_crash_between_announcement_and_change_harms_nothing(orphans, server, db):  # noqa: F811
    checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    old, before = server.active(), server.ring()
    [(pid_before,)] = db.execute(checkpointer).fetchall()
    db.execute("SET skill_system.fault_point = 'key_announced'")
    with pytest.raises(psycopg.OperationalError):
        rotate(db)
    deadline = time.monotonic() + 60
    while True:
        # A server that has not noticed the crash yet still accepts connections, and ends them soon after.
        try:
            connection = server.connect()
            if connection.execute(checkpointer).fetchall() not in ([], [(pid_before,)]):
                break
            connection.close()
        except psycopg.OperationalError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with connection as db:
        # Announced and never used: the old key goes on.
        assert server.ring() == before and len(server.files()) == 2
        [(announced,)] = db.execute("SELECT event_data->>'active_key_id' FROM skill_system.audit_kept").fetchall()
        assert server.append(db) == old
        status, detail = server.health(db)
        assert status == "warning" and announced in detail
        assert server.problems(db) == []
        new = rotate(db)
        assert new not in (old, announced) and server.append(db) == new
        assert server.files() == ONLY_FILE and server.health(db)[0] == "ok" and server.problems(db) == []


def test_a_keyring_command_cannot_be_rotated_but_its_keys_announced(server, db):
    old = server.ring()
    source = server.cluster.data / "elsewhere.json"
    write_keyring(source, json.dumps(old))
    db.execute("LOAD 'skill_system'")
    db.execute("ALTER SYSTEM SET skill_system.keyring_command = 'cat elsewhere.json'")
    db.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)
    with server.connect() as connection:
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="keyring_command") as caught:
            rotate(connection)
        for word in ("HS256", "Ed25519", "active", "rotate_audit_key()"):
            assert word in caught.value.diag.message_hint
    # The steps of the hint.
    new = {"kty": "oct", "alg": "HS256", "kid": "by-hand", "active": True, "k": "Q" * 43}
    write_keyring(source, json.dumps({"keys": [{**key, "active": key["kty"] != "oct"} for key in old["keys"]] + [new]}))
    with server.connect() as connection:
        assert server.health(connection)[0] == "warning"
        assert rotate(connection) == "by-hand"
        assert server.append(connection) == "by-hand"
        assert server.health(connection)[0] == "ok" and server.problems(connection) == []
    assert server.ring() == old


def test_a_broken_keyring_is_said_and_not_replaced(server, db):
    ring = json.dumps(server.ring())
    breaks = {
        "lost": lambda: as_server("rm", str(server.path)),
        "mode": lambda: as_server("chmod", "644", str(server.path)),
        "garbage": lambda: write_keyring(server.path, "garbage"),
        "unreadable": lambda: as_server("chmod", "000", str(server.path)),
        "directory": lambda: as_server("sh", "-c", 'rm -f "$0" && mkdir "$0"', str(server.path)),
    }
    for how, make in breaks.items():
        make()
        with server.connect() as connection:
            with pytest.raises(errors.ConfigFileError, match="keyring") as caught:
                rotate(connection)
            assert caught.value.diag.message_hint, how
            status, detail = server.health(connection)
            assert status == "error" and "keyring" in detail, how
        assert as_server("sh", "-c", f"ls -d '{server.path}'* || true").split() == (
            [] if how == "lost" else [str(server.path)]
        )
        as_server("sh", "-c", 'test ! -d "$0" || rmdir "$0"', str(server.path))
        write_keyring(server.path, ring)
    assert db.execute("SELECT count(*) FROM skill_system.audit_kept").fetchone() == (0,)


def test_without_any_old_key_the_log_starts_again_with_a_record(server, db):
    old = server.active()
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="keyring already"):
        db.execute("SELECT skill_system.create_keyring()")
    as_server("rm", str(server.path))
    with server.connect() as connection:
        connection.execute("SELECT skill_system.create_keyring()")
        new = server.active()
        [(key_id, data)] = connection.execute("SELECT key_id, event_data FROM skill_system.audit_kept").fetchall()
        assert key_id == new and data["key_ids"] == [new] and data["checkpoint_key_id"] == server.active("OKP")
        assert server.health(connection)[0] == "ok"
        assert {problem for problem, _ in server.problems(connection)} == {"key_unknown"}
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="keyring already"):
            connection.execute("SELECT skill_system.create_keyring()")
        newer = rotate(connection)
        assert server.append(connection) == newer and {problem for problem, _ in server.problems(connection)} == {
            "key_unknown"
        }
    # In the other database the keyring is there, but it has no key that is known: it says so and takes it on.
    with server.connect(dbname="two") as two:
        assert server.health(two)[0] == "warning"
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="no key that the log knows") as caught:
            rotate(two)
        assert "create_keyring()" in caught.value.diag.message_hint
        two.execute("SELECT skill_system.create_keyring()")
        assert server.active() == newer != old
        assert server.health(two)[0] == "ok" and server.append(two) == newer
        assert {problem for problem, _ in server.problems(two)} == {"key_unknown"}


def test_nothing_to_rotate_yet(server):
    with server.cluster.connect() as admin:
        admin.execute("CREATE DATABASE three TEMPLATE template0")
    with server.connect(dbname="three") as three:
        three.execute("CREATE EXTENSION skill_system")
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is recorded"):
            rotate(three)
        assert server.health(three)[0] == "ok"
