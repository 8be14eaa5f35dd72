"""kill -9 at each step of sealing, adopting and signing, 200 times while others write: no lost leaf, no second history.

The session kills itself with SIGKILL at a fault point, so the postmaster ends all sessions and recovers from the log. A
killed process is not a power failure: what the server has handed to the kernel stays, so fsync is off here."""

import json
import os
import random
import threading
import time

import psycopg
import pytest

from cluster import governed
from ledger import Outside, Writer, append, behind_the_triggers, exactly_once, problems, seal, seal_all

ROUNDS = int(os.environ.get("SEAL_CRASHES", "200"))
SEED = int(os.environ.get("SEAL_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)

SEAL = [
    "seal_begun",
    "leaves_read",
    "map_written",
    "tiles_written",
    "state_written",
    "seal_recorded",
    "before_commit",
    "committed",
]
CHECKPOINT = ["checkpoint_signed", "checkpoint_stored", "before_commit", "committed"]
SWEEP = ["late_written"]
ADOPT = ["adoption_judged", "map_written", "adoption_written", "adoption_recorded", "before_commit", "committed"]
STEPS = (
    [("seal", point) for point in SEAL]
    + [("checkpoint", point) for point in CHECKPOINT]
    + [("sweep", point) for point in SWEEP]
    + [("adopt", point) for point in ADOPT]
)


def reconnect(cluster, witness):
    """Once the postmaster has noticed, which another session sees by its own end, and the server is back."""
    deadline = time.monotonic() + 30
    with pytest.raises(psycopg.OperationalError):
        while time.monotonic() < deadline:
            witness.execute("SELECT 1")
    witness.close()
    while True:
        try:
            return cluster.connect(dbname="governed")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the server does not come back"
            time.sleep(0.01)


def state(connection):
    return connection.execute("SELECT incarnation, tree_size, root_hash FROM skill_system.audit_seal_state").fetchone()


def a_late_record(connection):
    """A record whose transaction lies before the last seal, with a true signature: as a restore after the adoption
    leaves it."""
    with connection.transaction(force_rollback=True):
        id = append(connection, "late")
        record = connection.execute("SELECT to_jsonb(a) FROM skill_system.audit_logs a WHERE id = %s", [id]).fetchone()[
            0
        ]
    append(connection)
    seal(connection)
    connection.execute(
        "INSERT INTO skill_system.audit_logs SELECT * FROM jsonb_populate_record(NULL::skill_system.audit_logs, %s)",
        [json.dumps(record)],
    )
    return id


def prepare(connection, action, outside):
    """So that the step has something to do. Returns its statement."""
    if action == "seal":
        append(connection)
        return f"SELECT * FROM skill_system.seal_audit({random.choice(['NULL', '5', '200'])})"
    if action == "checkpoint":
        append(connection)
        seal(connection)
        return "SELECT skill_system.audit_checkpoint()"
    if action == "sweep":
        late.append(a_late_record(connection))
        return "SELECT * FROM skill_system.maintain()"
    behind_the_triggers(
        connection, "audit_seal_state", "UPDATE skill_system.audit_seal_state SET timeline = timeline + 1"
    )
    append(connection)
    return "SELECT * FROM skill_system.adopt_log('a crash on the way')"


late = []


@pytest.mark.long
def test_kill_at_each_step_of_sealing(new_cluster):
    print(f"SEAL_SEED={SEED}")
    random.seed(SEED)
    late.clear()
    cluster = new_cluster(
        "fsync=off",
        "max_prepared_transactions=50",
        "checkpoint_timeout=1h",
        "max_wal_size=4GB",
        "autovacuum_naptime=5s",
    )
    connection = governed(cluster)
    # Makes the partitions, which it could not while prepared transactions are open.
    connection.execute("SELECT * FROM skill_system.maintain()")
    append(connection)
    seal_all(connection)
    outside, until = Outside(), threading.Event()
    outside.take(connection)
    writers = [Writer(lambda: cluster.connect(dbname="governed"), f"{SEED}-{i}", until, pause=0.1) for i in range(3)]
    for writer in writers:
        writer.start()
    steps = (STEPS * (ROUNDS // len(STEPS) + 1))[:ROUNDS]
    random.shuffle(steps)
    killed, spent = {}, {"down": 0.0, "checks": 0.0}
    for number, (action, point) in enumerate(steps, 1):
        statement = prepare(connection, action, outside)
        before = state(connection)
        signed = None
        witness = cluster.connect(dbname="governed")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("BEGIN")
            connection.execute(f"SET LOCAL skill_system.fault_point = '{point}'")
            # A parallel worker, which commits while it starts, must not die in place of the session.
            connection.execute("SET LOCAL parallel_setup_cost = 0")
            connection.execute("SET LOCAL min_parallel_table_scan_size = 0")
            row = connection.execute(statement).fetchone()
            if action == "checkpoint":
                # The client has it, whether or not the server remembers: it must never come to be untrue.
                signed = row[0]
            connection.execute("COMMIT")
        killed[action, point] = killed.get((action, point), 0) + 1
        if signed:
            outside.keep(signed)
        started = time.monotonic()
        connection.close()
        connection = reconnect(cluster, witness)
        spent["down"] += time.monotonic() - started
        # All of the step or nothing of it.
        after = state(connection)
        if action == "checkpoint" or point != "committed":
            assert after == before, f"{action} killed at {point} left a part of it"
        else:
            assert after[1] > before[1], f"{action} was committed and is lost"
        if action == "adopt" and point != "committed":
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                seal(connection)
            assert connection.execute("SELECT continued FROM skill_system.adopt_log('once more')").fetchone()[0] is True
        if action == "sweep":
            connection.execute("SELECT * FROM skill_system.maintain()")
        seal(connection)
        outside.take(connection)
        assert [writer.error for writer in writers if writer.error] == []
        started = time.monotonic()
        if number % 20 == 0 or number == len(steps):
            outside.check(connection)
            assert problems(connection) == []
            # Whose COMMIT was seen is there, and once. The lists grow at their ends only.
            committed = [id for writer in writers for id in writer.committed[:]]
            exactly_once(
                connection, committed + late, [id for writer in writers for id in writer.never[:]], quiet=False
            )
        spent["checks"] += time.monotonic() - started
    until.set()
    for writer in writers:
        writer.join(60)
        assert not writer.is_alive() and writer.error is None
        writer.settle(connection)
    leaves = exactly_once(
        connection,
        [id for writer in writers for id in writer.committed] + late,
        [id for writer in writers for id in writer.never],
    )
    assert outside.check(connection) >= ROUNDS / 2
    assert problems(connection) == []
    assert connection.execute("SELECT incarnation FROM skill_system.audit_seal_state").fetchone()[0] == 1
    committed = sum(len(writer.committed) for writer in writers)
    print(
        f"{sum(killed.values())} kills at {len(killed)} steps, {leaves} leaves, "
        f"{committed} records acknowledged, {sum(len(writer.doubtful) for writer in writers)} in doubt, "
        f"{len(outside.notes)} checkpoints held outside; "
        f"{spent['down']:.0f} s until the server was back, {spent['checks']:.0f} s of checks"
    )
    assert sum(killed.values()) == ROUNDS and committed > ROUNDS * 3
    assert ROUNDS < len(STEPS) or len(killed) == len(STEPS)
    connection.close()
