"""A log that finds itself in another server, or in this one at another time, is not sealed until somebody says so; then
it goes on where it can, and says what was lost where it cannot. Nothing is sealed twice and nothing never.

pg_upgrade is not tried here: the tests have one major version at a time."""

import re
import subprocess
import time

import pytest
from psycopg import errors

from cluster import as_server, bindir, governed, ready_for_restore, skill_verify_program
from keyring import read_keyring
from ledger import (
    Outside,
    append,
    compare,
    exactly_once,
    origin,
    problems,
    read_note,
    seal,
    seal_all,
)
from standby import wait_for_replay


@pytest.fixture(scope="module")
def program():
    return skill_verify_program()


def append_and_seal(connection, count=600):
    """Records sealed in several steps, one that is not sealed, and a checkpoint that somebody keeps. Returns ids and
    checkpoint."""
    ids = []
    for _ in range(3):
        ids += [
            row[0]
            for row in connection.execute(
                "SELECT skill_system.append_audit('x', '{}') FROM generate_series(1, %s)", [count // 3]
            )
        ]
        seal(connection)
    outside = Outside()
    outside.take(connection)
    ids.append(append(connection, "not sealed"))
    return ids, outside


def stops(connection, saw):
    """Nothing is sealed or signed, and the errors say what was seen. Writing goes on."""
    for statement in (
        "SELECT * FROM skill_system.seal_audit()",
        "SELECT * FROM skill_system.seal_audit(1)",
        "SELECT skill_system.audit_checkpoint()",
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as caught:
            connection.execute(statement)
        assert re.search(saw, caught.value.diag.message_detail), caught.value.diag.message_detail
        assert "adopt_log" in caught.value.diag.message_hint
    assert [(problem, bool(re.search(saw, detail))) for _, _, problem, detail in problems(connection)] == [
        ("sealed_elsewhere", True)
    ]
    assert (
        connection.execute("SELECT status FROM skill_system.health() WHERE \"check\" = 'audit_seal'").fetchone()[0]
        == "warning"
    )
    return append(connection, "before the adoption")


def adopt(connection, checkpoint=None, reason="tried by a test"):
    return connection.execute(
        "SELECT incarnation, continued, tree_size, sealed, detail FROM skill_system.adopt_log(%s, %s)",
        [reason, checkpoint],
    ).fetchone()


def goes_on(connection, ids, outside, program, tmp_path):
    """The same log: what was held outside before is a beginning of what is signed now."""
    assert problems(connection) == []
    ids = ids + [append(connection, "after") for _ in range(3)]
    exactly_once(connection, ids)
    old = outside.newest()
    outside.take(connection)
    assert outside.check(connection) == len(outside.notes) >= 2
    assert compare(program, tmp_path, connection, old, outside.newest())[0] == 0
    assert problems(connection) == []
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="nothing to adopt"):
        adopt(connection)
    [record] = connection.execute(
        "SELECT event_data FROM skill_system.audit_logs WHERE event_type = 'audit.log_adopted' "
        "ORDER BY recorded_at DESC LIMIT 1"
    ).fetchone()
    return record


def pass_transaction_ids(connection, beyond):
    """Uses transaction ids up to that one: each block with an exception handler that writes takes one."""
    connection.execute("CREATE TABLE IF NOT EXISTS public.burnt (n int)")

    def now():
        return connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()[0]

    while now() <= beyond:
        connection.execute(
            f"DO $$ BEGIN FOR i IN 1..{min(beyond - now() + 2, 20_000)} LOOP BEGIN INSERT INTO public.burnt "
            "VALUES (i); "
            "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"
        )
        connection.execute("TRUNCATE public.burnt")


# ---- dump and restore


def test_restored_into_a_fresh_cluster(new_cluster, program, tmp_path):
    source = new_cluster("fsync=off")
    db = governed(source)
    # Far ahead of any fresh server, so that the new one's ids come to pass those of the restored records.
    pass_transaction_ids(db, 12_000)
    ids, outside = append_and_seal(db)
    keyring = read_keyring(source.data / "skill_system_keyring.json")
    dump = tmp_path / "dump"
    subprocess.run([f"{bindir()}/pg_dump", "-Fc", "-f", dump, "governed"], env={**source.environment}, check=True)
    # What comes after the dump is lost; a checkpoint of it is held outside.
    append(db, "lost")
    seal_all(db)
    ahead = Outside()
    ahead.take(db)
    held = read_note(outside.newest())[1]
    for loss in (False, True):
        cluster = new_cluster("fsync=off", copied=False)
        ready_for_restore(cluster, keyring)
        subprocess.run(
            [f"{bindir()}/pg_restore", "--exit-on-error", "-d", "governed", dump],
            env={**cluster.environment},
            check=True,
        )
        new = cluster.connect(dbname="governed")
        kept = [
            *ids,
            stops(
                new, "system identifier .* a restore or copy into another cluster; next transaction .* an older state"
            ),
        ]
        highest = new.execute("SELECT max(transaction_id) FROM skill_system.audit_logs").fetchone()[0]
        assert new.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0] < highest
        # In a transaction that also writes, and one that goes on over it.
        holder = cluster.connect(dbname="governed")
        holder.execute("BEGIN")
        kept.append(append(holder, "held over the adoption"))
        with new.transaction():
            kept.append(append(new, "with the adoption"))
            incarnation, continued, size, sealed, _ = adopt(new, ahead.newest() if loss else outside.newest())
            kept.append(append(new, "with the adoption"))
        assert (incarnation, continued) == ((2, False) if loss else (1, True))
        # The one that the dump had not sealed, what was recorded before the adoption, and the first record of the
        # transaction itself.
        assert sealed >= 3 and size >= held + 3
        exactly_once(new, [id for id in kept if id != kept[-3]])
        holder.execute("COMMIT")
        exactly_once(new, kept)
        if not loss:
            # Step by step over the ids of the restored records.
            for beyond in (highest - 2, highest, highest + 2, highest + 50):
                pass_transaction_ids(new, beyond)
                kept.append(append(new, "on the way"))
                exactly_once(new, kept)
                assert problems(new) == []
            assert (
                new.execute("SELECT foreign_below FROM skill_system.audit_seal_state").fetchone()[0]
                <= new.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
            )
            record = goes_on(new, kept, outside, program, tmp_path)
            assert (
                record["continued"] is True
                and record["loss"] is None
                and "system identifier" in record["found"]
                and record["reason"] == "tried by a test"
            )
        else:
            assert origin(new).endswith("/2")
            second = Outside()
            second.take(new)
            assert problems(new) == []
            [record] = new.execute(
                "SELECT event_data FROM skill_system.audit_logs WHERE event_type = 'audit.log_adopted'"
            ).fetchone()
            assert record["continued"] is False and "lost" in record["loss"]
            assert (
                record["checkpoint"]["tree_size"] == read_note(ahead.newest())[1]
                and record["checkpoint"]["root_hash"] == read_note(ahead.newest())[2].hex()
            )
            append(new)
            seal_all(new)
            second.take(new)
            assert second.check(new) == 2
            # The auditor's tool does not take one for the other.
            assert compare(program, tmp_path, new, ahead.newest(), second.newest())[0] != 0
        holder.close()
        new.close()
    db.close()


# ---- inside one cluster


def test_a_copy_made_with_template(new_cluster, program, tmp_path):
    cluster = new_cluster("fsync=off")
    db = governed(cluster)
    ids, outside = append_and_seal(db)
    db.close()
    with cluster.connect() as admin:
        admin.execute("CREATE DATABASE copy TEMPLATE governed")
    copy = cluster.connect(dbname="copy")
    kept = [*ids, stops(copy, "database .* instead of .*a restore or copy inside this cluster")]
    assert adopt(copy, outside.newest())[:2] == (1, True)
    goes_on(copy, kept, outside, program, tmp_path)
    copy.close()
    # The first one knows nothing of it.
    db = cluster.connect(dbname="governed")
    exactly_once(db, ids)
    assert problems(db) == []
    db.close()


# ---- promotion, recovery to a point in time, old files


def test_promotion_of_a_standby(new_cluster, copies, program, tmp_path):
    cluster = new_cluster("fsync=off", "max_prepared_transactions=5")
    db = governed(cluster)
    ids, outside = append_and_seal(db)
    standby = copies(cluster).backup(cluster, "-R").start("max_prepared_transactions=5", "fsync=off")
    # What is open when the primary dies: an ordinary transaction is gone, a prepared one is not.
    open_one, prepared = cluster.connect(dbname="governed"), cluster.connect(dbname="governed")
    open_one.execute("BEGIN")
    never = [append(open_one)]
    prepared.execute("BEGIN")
    late = append(prepared)
    prepared.execute("PREPARE TRANSACTION 'over'")
    ids.append(append(db))
    seal(db)
    outside.take(db)
    there = standby.connect()
    wait_for_replay(db, there)
    with pytest.raises(errors.ReadOnlySqlTransaction):
        adopt(there)
    for connection in (db, open_one, prepared):
        connection.close()
    cluster.stop()
    standby.promote()
    kept = [*ids, stops(there, "timeline 2 instead of 1: promotion of a standby")]
    assert adopt(there, outside.newest())[:2] == (1, True)
    exactly_once(there, kept, never + [late])
    there.execute("COMMIT PREPARED 'over'")
    record = goes_on(there, [*kept, late], outside, program, tmp_path)
    assert "promotion" in record["found"]
    there.close()


def test_promotion_of_a_standby_that_was_behind(new_cluster, copies, program, tmp_path):
    cluster = new_cluster("fsync=off")
    db = governed(cluster)
    ids, outside = append_and_seal(db)
    standby = copies(cluster).backup(cluster, "-R").start("fsync=off")
    there = standby.connect()
    wait_for_replay(db, there)
    there.execute("SELECT pg_wal_replay_pause()")
    while there.execute("SELECT pg_get_wal_replay_pause_state()").fetchone()[0] != "paused":
        time.sleep(0.02)
    lost = append(db)
    seal_all(db)
    ahead = Outside()
    ahead.take(db)
    # Received, but the server is asked for an older state: cut off before what was paused.
    db.close()
    there.close()
    standby.stop()
    cluster.stop()
    as_server(
        "sh",
        "-c",
        'rm "$0"/standby.signal && touch "$0"/recovery.signal && echo "restore_command = \'false\'" >> '
        '"$0"/postgresql.auto.conf',
        standby.data,
    )
    standby.start("fsync=off", "recovery_target=immediate", "recovery_target_action=promote", "primary_conninfo=''")
    there = standby.connect()
    while there.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
        time.sleep(0.02)
    has_it = there.execute("SELECT count(*) FROM skill_system.audit_logs WHERE id = %s", [lost]).fetchone()[0]
    kept = [*ids, stops(there, "timeline 2 instead of 1")]
    if has_it:
        pytest.fail("the standby was to be behind")
    incarnation, continued, _, _, detail = adopt(there, ahead.newest())
    assert (incarnation, continued) == (2, False) and "Compared with the given checkpoint" in detail
    exactly_once(there, kept, [lost])
    assert problems(there) == []
    second = Outside()
    second.take(there)
    assert compare(program, tmp_path, there, ahead.newest(), second.newest())[0] != 0
    there.close()


@pytest.mark.parametrize("loss", [False, True], ids=["to the end", "with loss"])
def test_recovery_to_a_point_in_time(loss, new_cluster, copies, program, tmp_path):
    cluster = new_cluster("fsync=off", "archive_mode=on", "archive_command='cp %p ../archive/%f'", "wal_level=replica")
    as_server("mkdir", "-p", cluster.directory / "archive")
    db = governed(cluster)
    # The keyring is made with the first record, and belongs in the backup.
    append(db)
    base = copies(cluster).backup(cluster)
    ids, outside = append_and_seal(db)
    db.execute("SELECT pg_create_restore_point('here')")
    lost = append(db)
    seal_all(db)
    ahead = Outside()
    ahead.take(db)
    db.execute("SELECT pg_switch_wal()")
    segment = db.execute("SELECT pg_walfile_name(pg_current_wal_lsn() - 1)").fetchone()[0]
    deadline = time.monotonic() + 30
    while (db.execute("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver").fetchone()[0]) < segment:
        assert time.monotonic() < deadline, "nothing is archived"
        time.sleep(0.05)
    db.close()
    cluster.stop()
    as_server("touch", base.data / "recovery.signal")
    target = ["recovery_target_name=here"] if loss else []
    base.start(
        "fsync=off",
        "archive_mode=off",
        f"restore_command='cp {cluster.directory}/archive/%f %p'",
        "recovery_target_action=promote",
        *target,
    )
    there = base.connect()
    while there.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
        time.sleep(0.02)
    kept = ids if loss else [*ids, lost]
    kept = [*kept, stops(there, "timeline 2 instead of 1: .*recovery to a point in time")]
    if not loss:
        outside.notes.update(ahead.notes)
        assert adopt(there, ahead.newest())[:2] == (1, True)
        goes_on(there, kept, outside, program, tmp_path)
        there.close()
        return
    # Without the checkpoint from outside the log cannot know what it lost. With it, it says so.
    there.execute("BEGIN")
    assert adopt(there)[:2] == (1, True)
    there.execute("ROLLBACK")
    incarnation, continued, size, _, _ = adopt(there, ahead.newest())
    assert (incarnation, continued) == (2, False)
    exactly_once(there, kept, [lost])
    assert problems(there) == []
    # Up to where it was not lost it is the same tree: the checkpoints of before agree with it.
    assert outside.check(there) == 1
    [record] = there.execute(
        "SELECT event_data FROM skill_system.audit_logs WHERE event_type = 'audit.log_adopted'"
    ).fetchone()
    assert (
        record["incarnation"] == 2
        and "are lost" in record["loss"]
        and record["checkpoint"]["tree_size"] == read_note(ahead.newest())[1]
    )
    there.close()


def test_old_files_without_recovery(new_cluster, copies, program, tmp_path):
    """A cold copy of the files, put back later, is an older state that agrees with itself in all its parts. Nothing
    inside can tell; only somebody who holds a newer checkpoint can."""
    cluster = new_cluster("fsync=off")
    db = governed(cluster)
    ids, outside = append_and_seal(db)
    db.close()
    cluster.stop()
    old = copies(cluster).files(cluster.data)
    cluster.start()
    db = cluster.connect(dbname="governed")
    lost = append(db)
    seal_all(db)
    ahead = Outside()
    ahead.take(db)
    db.close()
    cluster.stop()
    old.start("fsync=off")
    there = old.connect()
    assert problems(there) == []
    ids += [append(there, "another history") for _ in range(3)]
    seal_all(there)
    note = there.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
    status, text = compare(program, tmp_path, there, ahead.newest(), note)
    assert status == 1, text
    # Its holder gives it to adopt_log().
    assert adopt(there, ahead.newest())[:2] == (2, False)
    exactly_once(there, ids, [lost])
    assert problems(there) == []
    there.close()


def test_transaction_ids_that_went_back(new_cluster):
    """pg_resetwal, or a control file older than the tables."""
    cluster = new_cluster("fsync=off")
    db = governed(cluster)
    pass_transaction_ids(db, 3000)
    ids, outside = append_and_seal(db)
    seal_all(db)
    outside.take(db)
    # So that the server finds its old rows visible whatever it thinks of their transactions.
    db.execute("VACUUM FREEZE")
    oldest = db.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 400").fetchone()[0]
    db.close()
    with cluster.connect() as admin:
        admin.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    for name in ("postgres", "template0", "template1", "governed"):
        with cluster.connect(dbname=name) as admin:
            admin.execute("VACUUM FREEZE")
    cluster.stop()
    as_server(f"{bindir()}/pg_resetwal", "-x", str(oldest), "-f", "-D", cluster.data)
    cluster.start()
    db = cluster.connect(dbname="governed")
    kept = [*ids, stops(db, "an older state of the server")]
    assert adopt(db, outside.newest())[:2] == (1, True)
    for _ in range(6):
        pass_transaction_ids(
            db, db.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 100").fetchone()[0]
        )
        kept.append(append(db))
        exactly_once(db, kept)
    assert problems(db) == [] and outside.check(db) == len(outside.notes)
    db.close()


# ---- what adopt_log() refuses


def test_what_cannot_be_adopted(new_cluster, tmp_path):
    cluster = new_cluster("fsync=off")
    db = governed(cluster)
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        adopt(db)
    ids, outside = append_and_seal(db)
    db.close()
    with cluster.connect() as admin:
        admin.execute("CREATE DATABASE copy TEMPLATE governed")
        admin.execute("CREATE DATABASE other TEMPLATE template0")
    other = cluster.connect(dbname="other")
    other.execute("CREATE EXTENSION skill_system")
    _, foreign = append_and_seal(other, 9)
    copy = cluster.connect(dbname="copy")
    for reason in (None, "", "  "):
        with pytest.raises(errors.InvalidParameterValue):
            adopt(copy, None, reason)
    with pytest.raises(errors.InvalidParameterValue, match="of another log"):
        adopt(copy, foreign.newest())
    note = outside.newest()
    # Signed by nobody whom the keyring knows, or not a checkpoint at all.
    body = note.split("\n\n")[0]
    for wrong in (
        "",
        "x",
        body,
        body + "\n\n",
        note[:-20] + "AAAAAAAAAAAAAAAA" + note[-4:],
        note.replace(str(read_note(note)[1]), "1", 1),
    ):
        with pytest.raises(errors.DatabaseError) as caught:
            adopt(copy, wrong)
        assert caught.value.sqlstate in ("22023", "28000", "XX001"), (wrong, caught.value.sqlstate, str(caught.value))
    # It stays where it was, and rolls back with its transaction.
    copy.execute("BEGIN")
    assert adopt(copy, note)[:2] == (1, True)
    copy.execute("ROLLBACK")
    stops(copy, "database")
    assert adopt(copy, note)[:2] == (1, True)
    exactly_once(copy, ids)
    assert problems(copy) == []
    copy.close()
    other.close()
