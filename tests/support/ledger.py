"""What the tests of sealing, adoption and crashes share: is every committed record exactly one leaf, and is what
somebody outside holds still true?"""

import base64
import hashlib
import random
import subprocess
import threading
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]


# ---- checkpoints held outside


def read_note(note):
    """Origin, size and root of a checkpoint (C2SP tlog-checkpoint)."""
    origin, size, root = note.split("\n")[:3]
    return origin, int(size), base64.b64decode(root)


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def includes(leaf, index, size, proof, root):
    """RFC 9162, 2.1.3.2, word for word."""
    at, last, hash = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            hash = node(sibling, hash)
            while at & 1 == 0 and at != 0:
                at, last = at >> 1, last >> 1
        else:
            hash = node(hash, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and hash == root


def consistent(old, new, old_root, new_root, proof):
    """RFC 9162, 2.1.4.2, word for word."""
    if old == 0 or old == new:
        return not proof and (old == 0 or old_root == new_root)
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]

    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return fr == old_root and sr == new_root and sn == 0


class Outside:
    """Somebody who keeps the checkpoints that the server handed out, and trusts nothing else."""

    def __init__(self):
        self.notes = {}
        self.lock = threading.Lock()

    def take(self, connection):
        """Asks for a checkpoint and keeps it."""
        self.keep(connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0])

    def keep(self, note):
        origin, size, root = read_note(note)
        with self.lock:
            known = self.notes.setdefault((origin, size), note)
        assert known == note, f"two histories: {size} leaves of {origin} were signed with two roots"
        return size, root

    def newest(self):
        return max(self.notes.items(), key=lambda item: (int(item[0][0].rsplit("/", 1)[1]), item[0][1]))[1]

    def check(self, connection, origin=None):
        """Each checkpoint held is a beginning of the tree as it is now (of one origin, when given)."""
        state = connection.execute("SELECT tree_size, root_hash FROM skill_system.audit_seal_state").fetchone()
        checked = 0
        for (name, size), note in sorted(self.notes.items()):
            if origin is not None and name != origin:
                continue
            assert size <= state[0], (
                f"a checkpoint of {size} leaves is held, and the tree has {state[0]}: leaves are lost"
            )
            root = read_note(note)[2]
            proof = connection.execute(
                "SELECT old_root_hash, hashes FROM skill_system.audit_consistency_proof(%s, %s)", [size, state[0]]
            ).fetchone()
            assert proof[0] == root, (
                f"a second history: the tree of {size} leaves is not the one of the checkpoint held"
            )
            assert consistent(size, state[0], root, state[1], proof[1]), (
                f"the proof from {size} to {state[0]} proves nothing"
            )
            checked += 1
        return checked


def origin(connection):
    return connection.execute(
        "SELECT 'skill_system/' || log_id || '/' || incarnation "
        "FROM skill_system.audit_state, skill_system.audit_seal_state"
    ).fetchone()[0]


def compare(program, directory, connection, old, new):
    """What skill-verify compare says of two checkpoints: its exit status and output."""
    (directory / "old").write_text(old)
    (directory / "new").write_text(new)
    sizes = read_note(old)[1], read_note(new)[1]
    tree = connection.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0]
    command = [program, "compare", directory / "old", directory / "new"]
    if sizes[0] < sizes[1] <= tree:
        (directory / "proof").write_text(
            connection.execute("SELECT proof FROM skill_system.audit_consistency_proof(%s, %s)", sizes).fetchone()[0]
        )
        command += ["--proof", directory / "proof"]
    keys = [row[0] for row in connection.execute("SELECT verifier_key FROM skill_system.audit_public_key()")]
    for key in keys:
        command += ["--key", key]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


# ---- records and leaves


def seal(connection, rows=None):
    """(sealed, tree_size, unsealed, blocked_by)"""
    return connection.execute(
        "SELECT sealed, tree_size, unsealed, blocked_by FROM skill_system.seal_audit(%s)", [rows]
    ).fetchone()


def seal_all(connection, quiet=True):
    """Seals until nothing is left, what sealing itself records included; or, while others write, all that is committed
    now."""
    wanted = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()[0]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        sealed, size, unsealed, blocked = seal(connection)
        if (blocked or "").startswith("another session is sealing"):
            time.sleep(0.005)
        elif sealed == 0 and unsealed == 0:
            return size
        elif (
            not quiet
            and connection.execute(
                "SELECT target IS NULL AND pg_snapshot_xmax(snapshot)::text::bigint >= %s "
                "FROM skill_system.audit_seal_state",
                [wanted],
            ).fetchone()[0]
        ):
            return size
    raise AssertionError("something is always left to be sealed")


def problems(connection, *columns):
    """What verify_audit() reports: partition, record_id, problem and detail, or only these columns."""
    found = ", ".join(f"{column}::text" for column in columns or ("partition", "record_id", "problem", "detail"))
    return connection.execute(f"SELECT {found} FROM skill_system.verify_audit()").fetchall()


def exactly_once(connection, committed=(), never=(), quiet=True):
    """Seals the rest. Every record is one leaf and every leaf one record; of these ids all, and of those none. While
    others write, quiet must be false: then records that the last seal did not see may have no leaf yet."""
    seal_all(connection, quiet)
    with connection.transaction():
        # One statement, one snapshot: a background worker may be sealing, and the last seal may have written a
        # heartbeat.
        twice, lost, strange, leaves, first, last = connection.execute(
            """
            WITH leaves AS MATERIALIZED (SELECT * FROM skill_system.audit_leaves()),
                 records AS MATERIALIZED (SELECT id, event_type, recorded_at, transaction_id::text::xid8 AS xid
                     FROM skill_system.audit_logs)
            SELECT (SELECT array_agg(record_id) FROM (SELECT record_id FROM leaves GROUP BY record_id HAVING count(*) > 1) q),
                   (SELECT array_agg(id) FROM records r WHERE NOT (event_type = 'audit.heartbeat'
                       AND recorded_at > now() - interval '10 s')
                       AND (%s OR pg_visible_in_snapshot(r.xid, (SELECT snapshot FROM skill_system.audit_seal_state)))
                           AND NOT EXISTS (SELECT FROM leaves l WHERE l.record_id = r.id)),
                   (SELECT array_agg(record_id) FROM leaves l
                       WHERE NOT EXISTS (SELECT FROM records r WHERE r.id = l.record_id)),
                   (SELECT count(*) FROM leaves), (SELECT min(leaf_index) FROM leaves), (SELECT max(leaf_index) FROM leaves)""",
            [quiet],
        ).fetchone()
    assert twice is None, f"sealed twice: {twice[:5]}"
    assert strange is None, f"leaves without a record: {strange[:5]}"
    assert (first, last) in ((0, leaves - 1), (None, None)), "the leaves have gaps"
    assert lost is None, f"never sealed: {lost[:5]}"
    sealed = {row[0] for row in connection.execute("SELECT record_id FROM skill_system.audit_leaves()")}
    missing = set(committed) - sealed
    assert not missing, f"{len(missing)} committed records are not sealed: {sorted(missing)[:5]}"
    wrong = set(never) & sealed
    assert not wrong, f"{len(wrong)} records of what was rolled back are sealed: {sorted(wrong)[:5]}"
    return leaves


def append(connection, event="test", data="{}"):
    return connection.execute("SELECT skill_system.append_audit(%s, %s)", [event, data]).fetchone()[0]


class Writer(threading.Thread):
    """Writes in every way that exists, and notes which records were committed, which were not, and of which nobody can
    know. Loses its connection now and then, and opens a new one."""

    KINDS = [
        "plain",
        "plain",
        "savepoint",
        "nested",
        "rollback",
        "long",
        "many",
        "exception",
        "twophase",
        "select",
        "asynchronous",
    ]

    def __init__(self, connect, seed, until, kinds=KINDS, pause=0.0):
        super().__init__(daemon=True)
        self.connect, self.random, self.until, self.kinds, self.pause = (
            connect,
            random.Random(seed),
            until,
            kinds,
            pause,
        )
        self.name, self.count = f"w{seed}", 0
        self.committed, self.never, self.doubtful, self.spans, self.prepared = [], [], [], [], {}
        self.lost, self.error = 0, None

    def run(self):
        connection = None
        while not self.until.is_set():
            try:
                if connection is None:
                    connection = self.connect()
                self.transaction(connection)
                if self.pause:
                    time.sleep(self.random.uniform(0, self.pause))
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self.lost += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.02)
            except BaseException as error:  # noqa: BLE001 (shown by the test)
                self.error = error
                return
        if connection is not None:
            connection.close()

    def settle(self, connection):
        """Ends what was left prepared when the connection was lost."""
        there = {row[0] for row in connection.execute("SELECT gid FROM pg_prepared_xacts")}
        for name, ids in self.prepared.items():
            if name in there:
                connection.execute(f"COMMIT PREPARED '{name}'")
                self.committed += ids
            else:
                self.doubtful += ids
        self.prepared = {}

    def transaction(self, connection):
        kind = self.random.choice(self.kinds)
        execute = connection.execute
        self.count += 1
        began = time.monotonic()
        mine, gone = [], []
        try:
            execute("BEGIN ISOLATION LEVEL " + self.random.choice(["READ COMMITTED", "REPEATABLE READ"]))
            if kind == "asynchronous":
                execute("SET LOCAL synchronous_commit = off")
            self.write(connection, kind, mine, gone)
            if kind == "rollback":
                execute("ROLLBACK")
                gone += mine
        except (psycopg.OperationalError, psycopg.InterfaceError):
            self.never += mine + gone
            raise
        self.never += gone
        if kind == "rollback":
            return
        if kind == "twophase":
            name = f"{self.name}-{self.count}"
            self.prepared[name] = mine
            execute(f"PREPARE TRANSACTION '{name}'")
            time.sleep(self.random.uniform(0, 0.4))
            if self.random.random() < 0.3:
                execute(f"ROLLBACK PREPARED '{name}'")
                del self.prepared[name]
                self.never += mine
                return
            execute(f"COMMIT PREPARED '{name}'")
            del self.prepared[name]
        else:
            try:
                execute("COMMIT")
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self.doubtful += mine
                raise
        if kind == "asynchronous":
            # Committed, and still lost when the server dies the next moment; unless it was sealed by then.
            self.doubtful += mine
            return
        self.spans.append((began, time.monotonic(), mine))
        self.committed += mine

    def write(self, connection, kind, mine, gone):
        execute = connection.execute
        if kind in ("savepoint", "nested"):
            mine.append(append(connection))
            for depth in range(self.random.randint(1, 4)):
                execute(f"SAVEPOINT s{depth}")
                kept = [append(connection)]
                if kind == "nested":
                    execute("SAVEPOINT inner1")
                    inner = append(connection)
                    if self.random.random() < 0.5:
                        execute("ROLLBACK TO inner1")
                        gone.append(inner)
                    else:
                        execute("RELEASE inner1")
                        kept.append(inner)
                if self.random.random() < 0.5:
                    execute(f"ROLLBACK TO s{depth}")
                    gone += kept
                else:
                    execute(f"RELEASE s{depth}")
                    mine += kept
        elif kind == "exception":
            mine.append(append(connection))
            execute("""DO $$ BEGIN PERFORM skill_system.append_audit('test', '{"gone": true}'); RAISE division_by_zero;
                       EXCEPTION WHEN division_by_zero THEN PERFORM skill_system.append_audit('test', '{}'); END $$""")
        elif kind == "many":
            mine += [
                row[0]
                for row in execute(
                    "SELECT skill_system.append_audit('test', '{}') FROM generate_series(1, %s)",
                    [self.random.randint(1, 300)],
                )
            ]
        elif kind == "select":
            execute("SELECT count(*) FROM skill_system.audit_logs")
        elif kind == "elsewhen":
            months = self.random.randint(-2, 30)
            try:
                with connection.transaction():
                    record = execute(
                        "INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) "
                        "VALUES ('test', '{}', now() + make_interval(months => %s)) RETURNING id",
                        [months],
                    )
                mine.append(record.fetchone()[0])
            except psycopg.errors.CheckViolation:
                # Its partition was made this moment: nobody is kept out of a month that has not begun.
                assert months > 0
        elif kind == "denial":
            mine.append(append(connection))
            # Committed by itself, whatever becomes of this transaction.
            self.committed.append(execute("SELECT skill_system.log_denial('denied', '{}')").fetchone()[0])
        else:
            mine.append(append(connection))
        if kind == "long":
            time.sleep(self.random.uniform(0.05, 0.8))
            mine.append(append(connection))


def behind_the_triggers(connection, table, statement, *arguments):
    """As somebody does who takes the protection away for a moment."""
    with connection.transaction():
        connection.execute("SET LOCAL skill_system.allow_unprotected = on")
        connection.execute(f"ALTER TABLE skill_system.{table} DISABLE TRIGGER USER")
        connection.execute(statement, arguments)
        if table == "audit_seal_state" and "UPDATE" in statement:
            # The forger knows that a row which another transaction wrote stops the sealing.
            connection.execute(
                "UPDATE skill_system.audit_seal_state SET written_by = pg_current_xact_id()::text::bigint"
            )
        for (trigger,) in connection.execute(
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = %s::regclass", [f"skill_system.{table}"]
        ).fetchall():
            connection.execute(f"ALTER TABLE skill_system.{table} ENABLE ALWAYS TRIGGER {trigger}")
