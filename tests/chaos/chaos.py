"""Everything at once for CHAOS_MINUTES: does the audit trail stay whole?

Writers with savepoints, rollbacks, long, prepared and asynchronous transactions and denials, while background workers
seal every 200 ms and this program kills processes, restarts servers, creates partitions, and moves the log to other
servers: by dump and restore, and by promotion of a standby, each with adopt_log(). Nothing that was acknowledged may be
missing or sealed twice, no checkpoint held outside may come to be untrue, and verification may never complain.

A killed process is not a power failure, so fsync is off. CHAOS_SEED repeats the choices, as far as the timing lets it."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]

from conftest import Cluster  # noqa: E402

from cluster import (  # noqa: E402
    adopt_orphans,
    as_server,
    bindir,
    governed,
    kill_hard,
    ready_for_restore,
    skill_verify_program,
)
from keyring import read_keyring  # noqa: E402
from ledger import Outside, Writer, append, compare, exactly_once, problems, seal_all  # noqa: E402
from standby import Copy  # noqa: E402

SETTINGS = (
    "shared_preload_libraries=skill_system",
    "skill_system.seal_interval=200ms",
    "max_prepared_transactions=100",
    "fsync=off",
    "checkpoint_timeout=1min",
    "max_connections=100",
    "wal_keep_size=1GB",
    "autovacuum_naptime=5s",
)
WRITERS = 6
# How often one is chosen against the others.
EVENTS = {
    "kill_backend": 4,
    "kill_child": 3,
    "terminate": 4,
    "kill_all": 2,
    "restart_fast": 1,
    "restart_immediate": 2,
    "partition": 4,
    "maintain": 3,
    "hold": 4,
    "verify": 6,
    "settle": 2,
    "promote": 1,
    "dump_and_restore": 1,
}
ABSENT = (psycopg.OperationalError, psycopg.InterfaceError)


def say(text):
    print(f"{time.monotonic() - STARTED:7.1f} s  {text}", flush=True)


class Chaos:
    def __init__(self, home, seed, minutes):
        self.random, self.seed, self.home = random.Random(seed), seed, home
        # A longer run has slower writers, so that it does not spend its time verifying ever more records.
        self.pause = 0.05 * max(1, minutes / 10)
        self.outside, self.done, self.generation, self.moves = Outside(), {}, 0, 0
        self.committed, self.never, self.doubtful, self.lost = set(), set(), set(), 0
        self.holders, self.verified = [], 0
        self.server = self.cluster("first").start()
        with governed(self.server) as connection:
            connection.execute("SELECT * FROM skill_system.maintain()")
            append(connection)
            seal_all(connection)
            self.outside.take(connection)
        self.writers = []
        self.start_writers()

    def cluster(self, name):
        return Cluster(self.home / name, SETTINGS, copied=False)

    def connect(self):
        """To the server as it is now, when it is back."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.server.connect(dbname="governed")
            except ABSENT:
                assert time.monotonic() < deadline, "the server does not come back"
                time.sleep(0.05)

    def persistently(self, work, attempts=20):
        """Does something in one session; again when the session was killed."""
        for attempt in range(attempts):
            try:
                with self.connect() as connection:
                    return work(connection)
            except ABSENT:
                if attempt + 1 == attempts:
                    raise
                time.sleep(0.2)

    # ---- writers

    def start_writers(self):
        self.generation += 1
        self.until = threading.Event()
        server = self.server
        kinds = Writer.KINDS + ["denial", "denial", "elsewhen"]
        self.writers = [
            Writer(
                lambda: server.connect(dbname="governed"),
                f"{self.seed}-{self.generation}-{i}",
                self.until,
                kinds,
                self.pause,
            )
            for i in range(WRITERS)
        ]
        for writer in self.writers:
            writer.start()

    def stop_writers(self):
        self.until.set()
        for writer in self.writers:
            writer.join(120)
            assert not writer.is_alive(), "a writer hangs"

    def settle_writers(self):
        """Ends prepared transactions, and takes over what the writers know."""
        while self.holders:
            self.release()
        for writer in self.writers:
            assert writer.error is None, writer.error
            self.persistently(writer.settle)
            self.committed.update(writer.committed)
            self.never.update(writer.never)
            self.doubtful.update(writer.doubtful)
            self.lost += writer.lost
        self.writers = []

    # ---- events

    def pids(self, condition):
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                f"AND {condition} ORDER BY backend_type, pid"
            ).fetchall()
        return rows

    def kill(self, condition):
        rows = self.pids(condition)
        if not rows:
            return "nothing to kill"
        pid, what = self.random.choice(rows)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return f"{what} had gone"
        return what

    def kill_backend(self):
        return self.kill("backend_type = 'client backend'")

    def kill_child(self):
        return self.kill("backend_type <> 'client backend'")

    def terminate(self):
        rows = self.pids("(backend_type = 'client backend' OR backend_type LIKE 'skill_system%')")
        if rows:
            pid, what = self.random.choice(rows)
            self.persistently(lambda connection: connection.execute("SELECT pg_terminate_backend(%s)", [pid]))
            return what
        return "nobody there"

    def kill_all(self):
        kill_hard(self.server.data)
        self.server.start()

    def restart_fast(self):
        self.server.stop()
        self.server.start()

    def restart_immediate(self):
        as_server(f"{bindir()}/pg_ctl", "-s", "-w", "-m", "immediate", "-D", self.server.data, "stop")
        self.server.start()

    def partition(self):
        month = self.random.randint(1, 30)
        try:
            with self.connect() as connection:
                connection.execute(
                    "SELECT skill_system.create_audit_partition((now() + make_interval(months => %s))::date)", [month]
                )
            return f"{month} months ahead"
        except (psycopg.errors.LockNotAvailable, psycopg.errors.ObjectNotInPrerequisiteState) as error:
            return str(error).splitlines()[0]

    def maintain(self):
        return "; ".join(
            row[0]
            for row in self.persistently(
                lambda connection: connection.execute(
                    "SELECT detail FROM skill_system.maintain() WHERE task LIKE 'audit%'"
                ).fetchall()
            )
        )

    def hold(self):
        """A transaction that stays open over whatever comes next."""
        holder = self.connect()
        holder.execute("BEGIN")
        self.holders.append((holder, append(holder)))
        if len(self.holders) > 3:
            self.release()

    def release(self):
        holder, id = self.holders.pop(0)
        try:
            holder.execute("COMMIT")
            self.committed.add(id)
        except ABSENT:
            # Its connection was killed; a COMMIT that is not answered may have happened.
            self.doubtful.add(id)
        holder.close()

    def verify(self):
        """No false alarm, no second history; what was acknowledged is sealed, while the writers go on."""

        def look(connection):
            committed = list(self.committed) + [id for writer in self.writers for id in writer.committed[:]]
            never = list(self.never) + [id for writer in self.writers for id in writer.never[:]]
            found = problems(connection)
            assert found == [], found
            self.outside.check(connection)
            return exactly_once(connection, committed, never, quiet=False)

        leaves = self.persistently(look)
        self.verified += 1
        for writer in self.writers:
            assert writer.error is None, writer.error
        return f"{leaves} leaves"

    def settle(self):
        self.stop_writers()
        self.settle_writers()
        self.start_writers()

    def adopted(self, why):
        """The new server has the whole log, so it goes on as the same one."""

        def adopt(connection):
            while True:
                try:
                    row = connection.execute(
                        "SELECT incarnation, continued, tree_size, sealed FROM skill_system.adopt_log(%s, %s)",
                        [why, self.outside.newest()],
                    ).fetchone()
                    break
                except psycopg.errors.ObjectNotInPrerequisiteState as error:
                    # The sealer of that server is about to find out that it may not.
                    assert "another session" in str(error), error
                    time.sleep(0.05)
            assert row[:2] == (1, True), row
            return f"{row[2]} leaves, {row[3]} of them new"

        said = self.persistently(adopt)
        self.moves += 1
        return said

    def promote(self):
        old, new = self.server, Copy(self.server)
        new.backup(old, "-R")
        new.start(*SETTINGS)
        with old.connect() as primary, new.connect(dbname="postgres"):
            deadline = time.monotonic() + 60
            while (
                primary.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").fetchone()[0] == 0
            ):
                assert time.monotonic() < deadline, "the standby does not stream"
                time.sleep(0.1)
        # A fast stop sends everything to the standby first; the writers lose their server in the middle of whatever
        # they do.
        old.stop()
        self.until.set()
        new.promote()
        self.server = Moved(new)
        self.stop_writers()
        said = self.adopted("promoted")
        self.settle_writers()
        old.destroy()
        self.start_writers()
        return said

    def dump_and_restore(self):
        self.stop_writers()
        self.settle_writers()
        old, new = self.server, self.cluster(f"restored{self.moves}").start()
        ready_for_restore(new, read_keyring(old.data / "skill_system_keyring.json"))
        dump = self.home / "dump"
        subprocess.run([f"{bindir()}/pg_dump", "-Fc", "-Z0", "-f", dump, "governed"], env=old.environment, check=True)
        subprocess.run(
            [f"{bindir()}/pg_restore", "--exit-on-error", "-d", "governed", dump], env=new.environment, check=True
        )
        dump.unlink()
        self.server = new
        said = self.adopted("restored")
        # What the old sealer recorded last, a heartbeat perhaps, came after the dump or is in it; nobody holds anything
        # of it.
        old.destroy()
        self.start_writers()
        return said

    # ---- all of it

    def step(self, name):
        started = time.monotonic()
        try:
            said = getattr(self, name)()
        except ABSENT as error:
            # Only what chose its own session may lose it to an earlier kill.
            said = f"came to nothing: {str(error).splitlines()[0]}"
            assert name in ("kill_backend", "kill_child", "terminate", "partition", "hold"), error
        self.done[name] = self.done.get(name, 0) + 1
        say(f"{name}{': ' + said if said else ''} ({time.monotonic() - started:.1f} s)")

    def run(self, seconds):
        end = time.monotonic() + seconds
        # Each kind of event comes at least once.
        queue = self.random.sample(list(EVENTS), len(EVENTS))
        while time.monotonic() < end or queue:
            self.step(queue.pop() if queue else self.random.choices(list(EVENTS), EVENTS.values())[0])
            self.persistently(self.outside.take)
            time.sleep(self.random.uniform(0.2, 2.5))
        self.stop_writers()
        self.settle_writers()
        return self.persistently(self.finish)

    def finish(self, connection):
        leaves = exactly_once(connection, self.committed, self.never)
        found = problems(connection)
        assert found == [], found
        checked = self.outside.check(connection)
        first = min(self.outside.notes.items(), key=lambda item: item[0][1])[1]
        self.outside.take(connection)
        program = skill_verify_program()
        notes = [first, *self.random.sample(sorted(self.outside.notes.values()), min(20, len(self.outside.notes)))]
        for note in notes:
            status, text = compare(program, self.home, connection, note, self.outside.newest())
            assert status == 0, text
        export = self.home / "export"
        with export.open("w") as file:
            for (line,) in connection.execute("SELECT skill_system.audit_export()"):
                file.write(line + "\n")
        keys = [
            word
            for (key,) in connection.execute("SELECT verifier_key FROM skill_system.audit_public_key()")
            for word in ("--key", key)
        ]
        checkpoint = subprocess.run([program, "export", export, *keys], capture_output=True, text=True)
        assert checkpoint.returncode == 0, checkpoint.stdout + checkpoint.stderr
        assert connection.execute("SELECT incarnation FROM skill_system.audit_seal_state").fetchone()[0] == 1
        assert len(self.committed) > 100, "no load, so nothing is proved"
        return (
            f"{leaves} leaves, {len(self.committed)} records acknowledged, {len(self.never)} rolled back, "
            f"{len(self.doubtful)} in doubt, {self.lost} connections lost, "
            f"{checked} checkpoints held outside, {self.verified} verifications meanwhile, "
            f"{self.moves} moves to another server, events: {dict(sorted(self.done.items()))}"
        )


class Moved:
    """A promoted standby, with the interface of a cluster."""

    def __init__(self, copy):
        self.copy, self.data, self.environment = copy, copy.data, copy.environment

    def connect(self, role=None, dbname="postgres"):
        return self.copy.connect(role, dbname)

    def start(self):
        self.copy.start(*SETTINGS)

    def stop(self):
        self.copy.stop()

    def destroy(self):
        self.copy.destroy()


def main():
    minutes = float(os.environ.get("CHAOS_MINUTES", "10"))
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1, 2**31))
    say(f"CHAOS_SEED={seed} CHAOS_MINUTES={minutes:g}")
    # The servers' user must get there, and the socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="chaos."))
    home.chmod(0o755)
    os.environ["PGHOST"] = str(home)
    adopt_orphans(True)
    chaos, status = None, 1
    # Ended by tests/run: what was started here must not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        chaos = Chaos(home, seed, minutes)
        say("chaos: " + chaos.run(minutes * 60))
        status = 0
    finally:
        if chaos is not None:
            chaos.until.set()
            if status:
                say(f"FAILED with CHAOS_SEED={seed}; the server's log: {chaos.server.data}, kept until this ends")
                subprocess.run(["sh", "-c", f"tail -n 60 {home}/*/log"])
            chaos.server.destroy()
        for left in home.glob("*/data"):
            Cluster(left.parent, ()).destroy()
        subprocess.run(["rm", "-rf", str(home)])
    sys.exit(status)


STARTED = time.monotonic()
if __name__ == "__main__":
    main()
