"""seal_audit(): every committed record becomes exactly one leaf, no matter which sessions write, seal,
roll back or wait meanwhile."""

import random
import re
import threading
import time

import psycopg
import pytest
from psycopg import errors

import rfc6962
from cluster import MONTH, governed, without_months
from ledger import (
    Outside,
    Writer,
    append,
    behind_the_triggers,
    consistent,
    exactly_once,
    origin,
    problems,
    read_note,
    seal,
    seal_all,
)
from standby import wait_for_replay


@pytest.fixture
def log(fresh_database, connect):
    """A connection to a fresh log of the test's own; .again() opens more."""
    name = fresh_database()
    connection = connect(dbname=name)
    connection.execute("LOAD 'skill_system'")
    return connection, lambda: connect(dbname=name)


@pytest.fixture
def prepared(new_cluster):
    """The same in a cluster that has prepared transactions."""
    cluster = new_cluster("max_prepared_transactions=50", "fsync=off")
    connection = governed(cluster)
    opened = [connection]

    def again():
        opened.append(cluster.connect(dbname="governed"))
        return opened[-1]

    yield connection, again
    for connection in opened:
        connection.close()


def test_the_proofs_are_checked_as_the_standard_says():
    entries = [b"%d" % n for n in range(40)]
    roots = [rfc6962.root(entries[:n]) for n in range(41)]
    for new in range(1, 41):
        for old in range(1, new + 1):
            proof = rfc6962.consistency_proof(old, entries[:new])
            assert consistent(old, new, roots[old], roots[new], proof)
            assert not consistent(old, new, roots[old - 1], roots[new], proof)
            assert not consistent(old, new, roots[old], roots[new - 1], proof) and not consistent(
                old, new, roots[old], roots[new], proof + [roots[1]]
            )
            assert old == new or not consistent(old, new, roots[old], roots[new], proof[1:])


# ---- many writers at once


@pytest.mark.parametrize("rows", [None, 7, 256, 1000], ids=str)
def test_every_committed_record_is_sealed_once_while_many_write(prepared, rows):
    connection, again = prepared
    # The first record is the one that others wait for.
    first = append(connection)
    until = threading.Event()
    writers = [Writer(again, seed, until) for seed in range(8)]
    for writer in writers:
        writer.start()
    # One transaction and one prepared one that stay open over all the seals.
    holder, forgotten = again(), again()
    holder.execute("BEGIN")
    late = [append(holder)]
    forgotten.execute("BEGIN")
    late.append(append(forgotten))
    forgotten.execute("PREPARE TRANSACTION 'forgotten'")
    seals, blocked, unsealed, deadline = 0, set(), 0, time.monotonic() + 8
    outside = Outside()
    while time.monotonic() < deadline:
        sealed, _, left, by = seal(connection, rows)
        assert rows is None or sealed <= rows
        seals += 1
        unsealed = max(unsealed, left)
        blocked.add(re.sub(r"\d+", "N", (by or "none").split(",")[0]))
        if seals % 10 == 0:
            outside.take(connection)
            late.append(append(holder))
    until.set()
    for writer in writers:
        writer.join()
    assert [(writer.error, writer.lost) for writer in writers if writer.error or writer.lost] == []
    exactly_once(
        connection,
        [first] + [id for writer in writers for id in writer.committed],
        [id for writer in writers for id in writer.never] + late,
    )
    assert [row for row in problems(connection)] == []
    assert "transaction N of process N in database governed" in blocked or any(
        text.startswith("transaction N of process N") for text in blocked
    ), blocked
    holder.execute("COMMIT")
    forgotten.execute("COMMIT PREPARED 'forgotten'")
    committed = [id for writer in writers for id in writer.committed] + late
    leaves = exactly_once(connection, committed, [id for writer in writers for id in writer.never])
    assert (
        connection.execute("SELECT count(*) FROM skill_system.audit_logs WHERE event_data ? 'gone'").fetchone()[0] == 0
    )
    assert problems(connection) == []
    assert outside.check(connection) >= 2
    # Of two transactions that do not overlap, the first one's records come first.
    place = dict(connection.execute("SELECT record_id, leaf_index FROM skill_system.audit_leaves()").fetchall())
    spans = sorted((span for writer in writers for span in writer.spans if span[2]), key=lambda span: span[1])
    checked, highest, at = 0, -1, 0
    for began, _, ids in sorted(spans, key=lambda span: span[0]):
        while spans[at][1] < began:
            highest = max(highest, max(place[id] for id in spans[at][2]))
            at += 1
        assert min(place[id] for id in ids) > highest, "a later transaction's record has an earlier leaf"
        checked += highest >= 0
    print(
        f"{leaves} leaves in {seals} seals of at most {rows} rows; up to {unsealed} left; "
        f"the order of {checked} transactions was checked; blocked by {sorted(blocked)}"
    )
    assert len(committed) > 300 and seals > 20 and checked > 100
    assert rows != 7 or unsealed > 0


def test_a_seal_in_several_steps(log):
    connection, again = log
    writer = again()
    connection.execute("SELECT count(skill_system.append_audit('x', '{}')) FROM generate_series(1, 1000)")
    held = again()
    held.execute("BEGIN")
    before = append(held)
    sizes = []
    while True:
        sealed, size, unsealed, _ = seal(connection, 300)
        sizes.append((sealed, size))
        if sealed == 0:
            break
        connection.execute("VACUUM skill_system.audit_tiles")
        # Written between the steps: behind the target, so they come later, once. A transaction that began before and
        # commits now too. Not for ever, or there would always be one more to seal.
        if sealed == 300:
            append(writer)
        if len(sizes) == 2:
            held.execute("COMMIT")
            assert problems(connection) == [], "verification in the middle of a seal"
        if unsealed == 0:
            continue
        assert problems(connection) == []
    assert [sealed for sealed, _ in sizes[:3]] == [300, 300, 300] and all(sealed <= 300 for sealed, _ in sizes)
    exactly_once(connection, [before])
    assert problems(connection) == []
    for wrong in (0, -1):
        with pytest.raises(errors.InvalidParameterValue):
            seal(connection, wrong)


def test_two_sealers_at_once(log):
    connection, again = log
    # Makes the partitions, for which it would have to wait below.
    connection.execute("SELECT * FROM skill_system.maintain()")
    before = seal_all(connection)
    append(connection)
    other = again()
    connection.execute("BEGIN")
    assert seal(connection)[0] == 1
    began = time.monotonic()
    sealed, size, _, by = seal(other, 10)
    assert time.monotonic() - began < 2
    assert (sealed, size) == (0, before) and by.startswith("another session is sealing: process ")
    other.execute("SET lock_timeout = '100ms'")
    sealed, size, _, by = seal(other)
    other.execute("RESET lock_timeout")
    assert (sealed, size) == (0, before) and by.startswith("another session is sealing: process ")
    # Nor does anything else go on with a tree that is being made.
    other.execute("SELECT * FROM skill_system.maintain()")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        other.execute("SELECT * FROM skill_system.adopt_log('x')")
    # A writer is not held up by it.
    writer = again()
    writer.execute("SET statement_timeout = '2s'")
    append(writer)
    connection.execute("ROLLBACK")
    exactly_once(other)
    assert problems(connection) == []
    # Many at once: never an error, never two.
    until, failures = threading.Event(), []

    def go_on(connection):
        try:
            while not until.is_set():
                seal(connection, random.choice([None, 3, 50]))
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=go_on, args=(again(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    written = []
    for _ in range(300):
        written.append(append(writer))
    until.set()
    for thread in threads:
        thread.join()
    assert failures == []
    exactly_once(connection, written)
    assert problems(connection) == []


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_sealing_inside_a_transaction(log, level):
    connection, again = log
    writer, outside = again(), Outside()
    mine, never = [append(connection)], []
    seal_all(connection)
    outside.take(connection)
    append(writer)
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as caught:
        with connection.transaction():
            append(connection)
            assert seal(connection)[0] == 1
            append(connection)
            connection.execute("SELECT skill_system.audit_checkpoint()")
    assert "rolled back" in str(caught.value)
    seal_all(connection)
    # It writes, seals, writes again, rolls parts of it back and commits.
    connection.execute(f"BEGIN ISOLATION LEVEL {level}")
    connection.execute("SELECT count(*) FROM skill_system.audit_logs")
    theirs = append(writer)
    mine.append(append(connection))
    # Its own records cannot be sealed by itself, but those of others can, also those that came after its snapshot.
    assert seal(connection)[0] == 1
    mine.append(append(connection))
    connection.execute("SAVEPOINT a")
    never.append(append(connection))
    append(writer)
    assert seal(connection)[0] == 1
    connection.execute("ROLLBACK TO a")
    # The seal went with the savepoint; the next one does it again.
    assert seal(connection)[0] == 1
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        with connection.transaction():
            connection.execute("SELECT skill_system.audit_checkpoint()")
    mine.append(append(connection))
    connection.execute("COMMIT")
    exactly_once(connection, mine + [theirs], never)
    outside.take(connection)
    # All of it is rolled back.
    theirs = append(writer)
    connection.execute(f"BEGIN ISOLATION LEVEL {level}")
    never.append(append(connection))
    assert seal(connection)[0] == 1
    connection.execute("ROLLBACK")
    exactly_once(connection, mine + [theirs], never)
    # In a savepoint that is rolled back while the transaction commits, with the lock gone to somebody else meanwhile.
    connection.execute(f"BEGIN ISOLATION LEVEL {level}")
    mine.append(append(connection))
    append(writer)
    connection.execute("SAVEPOINT a")
    seal(connection)
    connection.execute("ROLLBACK TO a")
    seal(writer)
    append(writer)
    outside.take(writer)
    if level == "READ COMMITTED":
        assert seal(connection)[0] == 1
        connection.execute("COMMIT")
    else:
        # Its snapshot is older than the other's seal, so it must start again, as with every row that another session
        # changed.
        with pytest.raises(errors.SerializationFailure):
            seal(connection)
        connection.execute("ROLLBACK")
        never.append(mine.pop())
    exactly_once(connection, mine, never)
    assert outside.check(connection) == 3
    assert problems(connection) == []


def test_a_seal_waits_for_the_one_under_way(log):
    connection, again = log
    seal_all(connection)
    append(connection)
    other = again()
    connection.execute("BEGIN")
    seal(connection)
    append(connection)
    later = threading.Timer(0.5, lambda: connection.execute("COMMIT"))
    later.start()
    sealed, _, unsealed, by = seal(other)
    later.join()
    assert sealed >= 1 and (unsealed, by) == (0, None)


def test_a_seal_in_a_prepared_transaction(prepared):
    connection, again = prepared
    first, other, outside = append(connection), again(), Outside()
    connection.execute("BEGIN")
    seal(connection)
    second = append(connection)
    connection.execute("PREPARE TRANSACTION 'seal'")
    other.execute("SET lock_timeout = '100ms'")
    assert seal(other)[3] == "another session is sealing: a prepared transaction"
    connection.execute("ROLLBACK PREPARED 'seal'")
    exactly_once(connection, [first], [second])
    outside.take(connection)
    connection.execute("BEGIN")
    second = append(connection)
    third = append(other)
    seal(connection)
    connection.execute("PREPARE TRANSACTION 'seal'")
    # The session that prepared it is free, and what is committed can be signed.
    outside.take(connection)
    connection.execute("COMMIT PREPARED 'seal'")
    exactly_once(connection, [first, second, third])
    outside.take(connection)
    assert outside.check(connection) == 2 and problems(connection) == []


def test_without_a_free_worker_the_first_record_of_all_makes_others_wait(new_cluster):
    cluster = new_cluster("max_worker_processes=0")
    connection = governed(cluster)
    second, third = cluster.connect(dbname="governed"), cluster.connect(dbname="governed")
    connection.execute("BEGIN")
    ids = [append(connection)]

    def write():
        second.execute("BEGIN")
        ids.append(append(second))

    thread = threading.Thread(target=write)
    thread.start()
    deadline = time.monotonic() + 20
    while (
        connection.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND classid = 'skill_system.audit_state'::regclass"
        ).fetchone()[0]
        == 0
    ):
        assert time.monotonic() < deadline, "the second does not wait"
        time.sleep(0.01)
    third.execute("SET statement_timeout = '20s'")
    late = threading.Thread(target=lambda: ids.append(append(third)))
    late.start()
    while (
        connection.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND classid = 'skill_system.audit_state'::regclass"
        ).fetchone()[0]
        < 2
    ):
        assert time.monotonic() < deadline, "the third does not wait"
        time.sleep(0.01)
    connection.execute("COMMIT")
    # The second one stays open, and the third goes on all the same.
    late.join(5)
    thread.join(5)
    assert len(ids) == 3
    exactly_once(connection, [ids[0]])
    second.execute("COMMIT")
    exactly_once(connection, ids)
    assert problems(connection) == []


def test_maintain_never_makes_writers_wait(prepared):
    """New partitions need the audit trail for themselves. All writers would wait for a session that waited for that,
    here forever."""
    connection, again = prepared
    without_months(connection)
    # By INSERT, which has chosen its partition before the log begins.
    connection.execute("INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')")
    forgotten, writer = again(), again()
    forgotten.execute("BEGIN")
    append(forgotten)
    forgotten.execute("PREPARE TRANSACTION 'forgotten'")
    writer.execute("SET statement_timeout = '900ms'")
    until, failures, waits = threading.Event(), [], []

    def write():
        try:
            while not until.is_set():
                started = time.monotonic()
                append(writer)
                waits.append(time.monotonic() - started)
        except psycopg.Error as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    tasks = dict(connection.execute("SELECT task, detail FROM skill_system.maintain()").fetchall())
    with pytest.raises(errors.LockNotAvailable) as caught:
        connection.execute("SELECT skill_system.create_audit_partition('2046-01-01')")
    until.set()
    thread.join()
    assert (
        failures == []
        and "has to wait" in tasks["audit_partitions"]
        and "prepared transactions" in caught.value.diag.message_hint
    )
    print(f"{len(waits)} records written meanwhile, the slowest in {max(waits) * 1000:.0f} ms")
    assert len(waits) > 50
    connection.execute("COMMIT PREPARED 'forgotten'")
    tasks = dict(connection.execute("SELECT task, detail FROM skill_system.maintain()").fetchall())
    assert tasks["audit_partitions"].count(" created") >= 2
    exactly_once(connection)
    assert problems(connection) == []


def test_read_only_and_standby(pair):
    cluster, copy = pair
    primary = cluster.connect(dbname="governed")
    seal_all(primary)
    note = primary.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    statements = [
        "SELECT * FROM skill_system.seal_audit()",
        "SELECT skill_system.audit_checkpoint()",
        "SELECT * FROM skill_system.adopt_log('x')",
    ]
    for statement in statements:
        with pytest.raises(errors.ReadOnlySqlTransaction):
            with primary.transaction():
                primary.execute("SET TRANSACTION READ ONLY")
                primary.execute(statement)
    with copy.connect() as standby:
        wait_for_replay(primary, standby)
        for statement in statements:
            with pytest.raises(errors.ReadOnlySqlTransaction):
                standby.execute(statement)
        # It can prove and export what the primary has signed.
        assert problems(standby) == []
        export = [row[0] for row in standby.execute("SELECT skill_system.audit_export()")]
        assert read_note(note)[1] == len(export) - 2
        id = standby.execute("SELECT record_id FROM skill_system.audit_leaves(0, 1)").fetchone()[0]
        assert standby.execute("SELECT leaf_index FROM skill_system.audit_inclusion_proof(%s)", [id]).fetchone()[0] == 0
    primary.close()


def test_a_checkpoint_is_one_text_for_one_tree(log):
    connection, again = log
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is sealed yet"):
        connection.execute("SELECT skill_system.audit_checkpoint()")
    append(connection)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing is sealed yet"):
        connection.execute("SELECT skill_system.audit_checkpoint()")
    seal_all(connection)
    # Asked for in a transaction that is rolled back, by many sessions at once, and later: always the same.
    connection.execute("BEGIN")
    notes = {connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]}
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM skill_system.audit_checkpoints").fetchone()[0] == 0

    def ask(connection):
        for _ in range(50):
            notes.add(connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0])

    threads = [threading.Thread(target=ask, args=(again(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [note] = notes
    note += "\n"
    name, size, root = read_note(note)
    assert connection.execute("SELECT tree_size, root_hash FROM skill_system.audit_seal_state").fetchone() == (
        size,
        root,
    )
    assert name == origin(connection)
    assert connection.execute(
        "SELECT incarnation, tree_size, root_hash, note FROM skill_system.audit_checkpoints"
    ).fetchall() == [(1, size, root, note)]
    # A record of the same transaction is not an obstacle, a seal of it is one, also when it was rolled back to a savepoint.
    connection.execute("BEGIN")
    append(connection)
    assert connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0] + "\n" == note
    connection.execute("ROLLBACK")
    append(connection)
    connection.execute("BEGIN")
    seal(connection)
    connection.execute("SAVEPOINT a")
    connection.execute("ROLLBACK TO a")
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        connection.execute("SELECT skill_system.audit_checkpoint()")
    connection.execute("ROLLBACK")
    assert problems(connection) == []


# ---- a heartbeat, and transaction ids that are not the server's


def test_a_heartbeat_after_a_minute_without_a_leaf(log):
    connection, _ = log

    def heartbeats():
        return connection.execute(
            "SELECT event_data ->> 'tree_size', event_data ->> 'root_hash', id FROM skill_system.audit_logs "
            "WHERE event_type = 'audit.heartbeat' ORDER BY id"
        ).fetchall()

    append(connection)
    size = seal_all(connection)
    for _ in range(3):
        assert seal(connection)[0] == 0
    assert (
        heartbeats() == []
        and connection.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0] == size
    )
    root = connection.execute("SELECT encode(root_hash, 'hex') FROM skill_system.audit_seal_state").fetchone()[0]

    def back(seconds):
        return behind_the_triggers(
            connection,
            "audit_seal_state",
            "UPDATE skill_system.audit_seal_state SET sealed_at = clock_timestamp() - make_interval(secs => %s)",
            seconds,
        )

    back(55)
    assert seal(connection)[0] == 0 and heartbeats() == []
    back(61)
    assert seal(connection)[0] == 0
    assert [row[:2] for row in heartbeats()] == [(str(size), root)]
    assert seal(connection)[0] == 1
    # That was a sign of life, so the next one is due a minute later.
    assert seal(connection)[0] == 0 and len(heartbeats()) == 1
    exactly_once(connection, [row[2] for row in heartbeats()])
    # Not when records exist: they are the sign.
    back(61)
    append(connection)
    assert seal(connection)[0] == 1 and len(heartbeats()) == 1
    assert problems(connection) == []


@pytest.mark.parametrize("forged", [5, 2**62, 2**63 - 1], ids=["sealed already", "far ahead", "largest"])
def test_forged_transaction_ids_are_swept_up(log, forged):
    connection, again = log
    append(connection)
    seal_all(connection)
    behind_the_triggers(
        connection,
        MONTH,
        f"""INSERT INTO skill_system.{MONTH}
        SELECT gen_random_uuid(), tenant_id, 'forged', event_data, actor_id, actor_type, created_at, signature,
            recorded_at, %s, session_user_name, current_user_name, key_id
        FROM skill_system.audit_logs LIMIT 1""",
        forged,
    )
    [forged_id] = connection.execute("SELECT id FROM skill_system.audit_logs WHERE event_type = 'forged'").fetchone()
    # No cut takes it, and verification says so.
    assert seal(connection)[0] == 0
    found = [problem for _, id, problem, _ in problems(connection) if id == str(forged_id)]
    assert set(found) == {"signature_mismatch", "record_not_sealed" if forged == 5 else "transaction_unknown"} or set(
        found
    ) == {"signature_mismatch", "record_not_sealed", "transaction_unknown"}, found
    with pytest.raises(AssertionError, match="never sealed"):
        exactly_once(connection)
    # maintain() finds it, makes it a leaf, and records that.
    connection.execute("SELECT * FROM skill_system.maintain()")
    [late] = connection.execute(
        "SELECT event_data FROM skill_system.audit_logs WHERE event_type = 'audit.sealed_late'"
    ).fetchone()
    assert (late["count"], late["first_ids"]) == (1, [str(forged_id)])
    exactly_once(connection, [forged_id])
    connection.execute("SELECT * FROM skill_system.maintain()")
    assert (
        connection.execute(
            "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'audit.sealed_late'"
        ).fetchone()[0]
        == 1
    )
    # Records go on being sealed once, and the wrong signature stays reported.
    written = [append(connection) for _ in range(5)]
    exactly_once(connection, written + [forged_id])
    assert [problem for _, id, problem, _ in problems(connection)] == ["signature_mismatch"]


# ---- storage


def test_a_seal_of_one_record_writes_no_tile(log):
    """Most seals write the row of the state, which has the last leaves, and no tile of up to 8 kB."""
    connection, _ = log
    append(connection)
    seal(connection)
    writers = set()
    for _ in range(64):
        record = append(connection)
        seal(connection)
        # Read from both places.
        leaf, leaf_hash = connection.execute(
            "SELECT leaf_index, leaf_hash FROM skill_system.audit_leaves() WHERE record_id = %s", [record]
        ).fetchone()
        assert connection.execute("SELECT skill_system.audit_leaf_index(%s)", [record]).fetchone()[0] == leaf
        tile = connection.execute("SELECT skill_system.audit_tile(0, %s)", [leaf // 256]).fetchone()[0]
        assert len(tile) == 32 * (leaf % 256 + 1) and tile[-32:] == leaf_hash
        writers.update(
            connection.execute(
                "SELECT xmin::text FROM skill_system.audit_tiles UNION SELECT xmin::text FROM skill_system.audit_map"
            ).fetchall()
        )
    tiles = connection.execute("SELECT octet_length(hashes) / 32 FROM skill_system.audit_tiles").fetchall()
    size, tail = connection.execute(
        "SELECT tree_size, octet_length(tail_ids) / 16 FROM skill_system.audit_seal_state"
    ).fetchone()
    assert tiles == [(size - size % 16,)] and tail == size % 16
    assert len(writers) == size // 16
    exactly_once(connection)
    assert problems(connection) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("tail_hashes = overlay(tail_hashes PLACING sha256('') FROM 1)", "root_mismatch"),
        ("tail_ids = overlay(tail_ids PLACING uuid_send(gen_random_uuid()) FROM 1)", "record_missing"),
        ("tail_ids = '', tail_hashes = ''", "tile_damaged"),
        (
            "tail_ids = tail_ids || substring(tail_ids FROM 1 FOR 16), "
            "tail_hashes = tail_hashes || substring(tail_hashes FROM 1 FOR 32)",
            "tile_damaged",
        ),
        ("tree_size = tree_size - 1", "root_mismatch"),
    ],
)
def test_tampering_with_the_last_leaves_is_found(log, change, problem):
    connection, _ = log
    for _ in range(20):
        append(connection)
    seal(connection)
    assert problems(connection) == []
    connection.execute("BEGIN")
    behind_the_triggers(connection, "audit_seal_state", f"UPDATE skill_system.audit_seal_state SET {change}")
    assert problem in [row[0] for row in problems(connection, "problem")]
    connection.execute("ROLLBACK")
    assert problems(connection) == []


def test_seal_data_takes_at_most_90_bytes_a_record(log):
    connection, _ = log

    def size():
        return connection.execute(
            "SELECT sum(pg_total_relation_size(t))::bigint "
            "FROM "
            "unnest('{skill_system.audit_tiles,skill_system.audit_map,skill_system.audit_seal_state}'::regclass[]) "
            "t"
        ).fetchone()[0]

    wanted, written, seals, randomly = 200_000, 0, 0, random.Random(1)
    while written < wanted:
        rows = randomly.choice([1, 10, 100, 500, 3000, 20_000])
        connection.execute("SELECT count(skill_system.append_audit('x', '{}')) FROM generate_series(1, %s)", [rows])
        written += rows
        # A sealer sees a steady stream in small portions.
        seals += 1
        assert seal(connection, rows)[0] == rows
        if seals % 50 == 0:
            connection.execute("VACUUM skill_system.audit_tiles, skill_system.audit_map, skill_system.audit_seal_state")
    tree = seal_all(connection)
    before = size() / tree
    connection.execute("VACUUM skill_system.audit_tiles, skill_system.audit_map, skill_system.audit_seal_state")
    after = size() / tree
    print(f"{tree} leaves in {seals} seals: {before:.1f} bytes a record, {after:.1f} after VACUUM")
    assert tree >= wanted and before <= 90 and after <= 90
    exactly_once(connection)
    assert problems(connection) == []
