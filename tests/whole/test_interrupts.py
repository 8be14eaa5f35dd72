"""Sessions and workers cancelled and terminated at random while all modules work: what was acknowledged is there, the log
verifies, and no lock, transaction or worker stays behind.

FUZZ_SECONDS is how long, FUZZ_SEED repeats the choices that a failure names."""

import os
import random
import re
import threading
import time
from collections import Counter
from contextlib import suppress

import psycopg
import pytest

from cluster import PRELOAD, governed, server_log, until
from ledger import exactly_once

SECONDS = float(os.environ.get("FUZZ_SECONDS", "15"))
SEED = os.environ.get("FUZZ_SEED") or str(random.randrange(1 << 32))
WORKERS = 4
SKILL = "---\nname: {0}\ndescription: d {1}\n---\n\n# {0}\n{1}\n"
ORDINARY = {
    *("57014", "57P01", "42501", "53400", "40001", "40P01", "55P03", "55000", "25001", "SK409", "22023"),
    # The connection is gone, told or not.
    *(None, "08006", "08003"),
}


class Worker(threading.Thread):
    """Does one job after the other, on a new connection where the old one was lost."""

    def __init__(self, cluster, number, ending):
        super().__init__()
        self.cluster, self.number, self.ending = cluster, number, ending
        self.random, self.count, self.states, self.wrong = random.Random(f"{SEED}/{number}"), 0, Counter(), []
        self.logged, self.appended, self.tried = set(), set(), set()
        # Of the denials: how many were recorded for certain, and how many at most.
        self.denied, self.asked = 0, 0

    def run(self):
        connection = None
        while not self.ending.is_set():
            try:
                if connection is None or connection.broken:
                    connection = self.cluster.connect(dbname="governed")
                job = self.random.choice(JOBS)
                connection.execute(f"SET statement_timeout = {self.random.choice((0, 0, 1, 2, 5, 10, 20))}")
                self.count += 1
                job(self, connection.execute, f"{self.number}.{self.count}")
                self.states["ok"] += 1
            except psycopg.Error as error:
                self.states[error.sqlstate] += 1
                if error.sqlstate not in ORDINARY:
                    self.wrong.append((error.sqlstate, str(error)))
            finally:
                # The ROLLBACK may be what is cancelled.
                while connection is not None and not connection.broken and connection.info.transaction_status != 0:
                    with suppress(psycopg.Error):
                        connection.execute("ROLLBACK")
        connection.close()

    def log(self, execute, key):
        self.tried.add(key)
        execute("SELECT skill_system.log_run('s', 'op', 'ok', 1, policy_name => 'dev', idempotency_key => %s)", [key])
        self.logged.add(key)

    def append(self, execute, key):
        self.appended.add(execute("SELECT skill_system.append_audit('test', '{}')").fetchone()[0])

    def transaction(self, execute, key):
        execute("BEGIN")
        made = execute("SELECT skill_system.append_audit('test', '{}') FROM generate_series(1, 20)").fetchall()
        execute("SAVEPOINT s")
        execute("SELECT skill_system.start_run('g')")
        execute("ROLLBACK TO s")
        execute("COMMIT")
        self.appended |= {row[0] for row in made}

    def deny(self, execute, key):
        self.asked += 1
        try:
            execute("SELECT skill_system.enforce_policy('locked', '{db.write}'::text[])")
        except psycopg.errors.InsufficientPrivilege:
            self.denied += 1
            raise

    def skill(self, execute, key):
        name = f"s{self.random.randrange(6)}"
        execute("SELECT skill_system.register_skill(%s)", [SKILL.format(name, key)])
        execute(
            "SELECT skill_system.set_skill_status(%s, 'approved', (SELECT version FROM skill_system.skill_version_list(%s) LIMIT 1))",
            [name, name],
        )

    def policy(self, execute, key):
        execute(
            "UPDATE skill_system.policy_profiles SET metadata = jsonb_build_object('key', %s::text) WHERE name = 'dev'",
            [key],
        )

    def seal(self, execute, key):
        execute("SELECT * FROM skill_system.seal_audit()")
        execute("SELECT skill_system.audit_checkpoint()")

    def verify(self, execute, key):
        found = execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall()
        if found:
            self.wrong.append(("verify_audit", found))

    def export(self, execute, key):
        execute("SELECT count(*) FROM skill_system.audit_export()")

    def maintain(self, execute, key):
        execute("SELECT * FROM skill_system.maintain()")
        execute("SELECT * FROM skill_system.health()")


JOBS = [
    *[Worker.log, Worker.append, Worker.transaction, Worker.deny] * 4,
    *[Worker.skill, Worker.seal, Worker.policy] * 2,
    *[Worker.verify, Worker.export, Worker.maintain],
]
LEFT = """SELECT pid, backend_type, state, query FROM pg_stat_activity WHERE datname = 'governed' AND pid <> pg_backend_pid()
    AND backend_type NOT LIKE 'skill_system sealer%' AND backend_type NOT LIKE 'autovacuum%'"""
LOCKS = """SELECT locktype, mode, pid FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = 'governed' AND pid <> pg_backend_pid() AND backend_type NOT LIKE 'autovacuum%'"""
SEALER = "SELECT FROM pg_stat_activity WHERE datname = 'governed' AND backend_type LIKE 'skill_system sealer%'"


@pytest.mark.long
def test_nothing_is_lost_and_nothing_is_left(new_cluster):
    cluster = new_cluster(PRELOAD, "skill_system.seal_interval=200ms", "max_worker_processes=10", "max_connections=40")
    db = governed(cluster)
    db.execute("SELECT * FROM skill_system.install_starter_policies()")
    postmaster = db.execute("SELECT pg_postmaster_start_time()").fetchone()
    ending, choice = threading.Event(), random.Random(SEED)
    workers = [Worker(cluster, number, ending) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    deadline, signals = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        time.sleep(choice.uniform(0, 0.03))
        signal = "pg_terminate_backend" if choice.random() < 0.3 else "pg_cancel_backend"
        # The extension's workers too; those of the server itself look after themselves.
        signals += db.execute(
            f"SELECT count({signal}(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND (backend_type IN ('client backend', 'parallel worker') OR backend_type LIKE 'skill_system%') "
            "ORDER BY random() LIMIT 1) s"
        ).fetchone()[0]
    ending.set()
    for worker in workers:
        worker.join(60)
    states = sum((worker.states for worker in workers), Counter())
    wrong = [found for worker in workers for found in worker.wrong]
    assert not wrong, (SEED, states, wrong[:10])
    assert signals > SECONDS * 5 and states["ok"] > 50 and states["57014"] > 10 and states["57P01"] > 2, (
        signals,
        states,
    )
    assert db.execute("SELECT pg_postmaster_start_time()").fetchone() == postmaster
    log = server_log(cluster.directory)
    assert re.findall(r"^.*(?:PANIC|TRAP:|terminated by signal|panicked at|XX000).*$", log, re.M) == []

    until(lambda: not db.execute(LEFT).fetchall(), "sessions or workers stay behind", 30)
    assert db.execute("SELECT * FROM pg_prepared_xacts").fetchall() == []
    until(lambda: db.execute(SEALER).fetchall(), "the sealer does not come back", 30)
    until(lambda: not db.execute(LOCKS).fetchall(), "locks stay behind", 30)
    check_counts(db, workers)
    check_slots(db)
    exactly_once(db, {identity for worker in workers for identity in worker.appended}, quiet=False)
    assert db.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []
    print(f"FUZZ_SEED={SEED}", signals, dict(states))


def check_counts(db, workers):
    """What was acknowledged exists, and each run has one event and one record."""
    keys = {
        row[0] for row in db.execute("SELECT idempotency_key FROM skill_system.runs WHERE idempotency_key IS NOT NULL")
    }
    assert (
        {key for worker in workers for key in worker.logged}
        <= keys
        <= {key for worker in workers for key in worker.tried}
    )
    runs, events, records, denials = db.execute(
        "SELECT (SELECT count(*) FROM skill_system.runs WHERE idempotency_key IS NOT NULL), "
        "(SELECT count(*) FROM skill_system.run_events), "
        "count(*) FILTER (WHERE event_type = 'run.logged'), count(*) FILTER (WHERE event_type = 'policy.denied') "
        "FROM skill_system.audit_logs"
    ).fetchone()
    assert runs == events == records
    assert sum(worker.denied for worker in workers) <= denials <= sum(worker.asked for worker in workers)


def check_slots(db):
    """Denials, each written by a worker, more than workers have slots."""
    for _ in range(30):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SELECT skill_system.enforce_policy('locked', '{db.write}'::text[])")
