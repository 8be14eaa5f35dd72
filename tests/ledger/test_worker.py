"""With shared_preload_libraries = 'skill_system': a launcher, and one sealer for each database that has the
extension."""

import datetime
import os
import signal
import subprocess
import time

import psycopg
import pytest

from cluster import MONTH, PRELOAD, governed, server_log, until, without_months
from ledger import append, behind_the_triggers

SEALERS = "SELECT datname::text, pid FROM pg_stat_activity WHERE backend_type = 'skill_system sealer'"

# pg_stat_activity keeps its answer for the transaction; pg_locks does not.
WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'pg_extension'::regclass"


def sealers(admin):
    return dict(admin.execute(SEALERS).fetchall())


def sealer(admin, name, other_than=None):
    """The process that seals the database, once it runs."""

    def found():
        pid = sealers(admin).get(name)
        return pid if pid != other_than else None

    return until(found, f"no sealer for {name}")


def governed_with_record(cluster, name="governed"):
    with governed(cluster, name) as connection:
        append(connection, "first")


def health(connection):
    return connection.execute("SELECT status, detail FROM skill_system.health() WHERE \"check\" = 'sealer'").fetchone()


def test_one_sealer_for_each_database_that_has_the_extension(new_cluster):
    cluster = new_cluster(PRELOAD)
    admin = cluster.connect()
    assert until(
        lambda: (
            admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'skill_system launcher'"
            ).fetchone()[0]
            == 1
        ),
        "no launcher",
    )
    admin.execute("CREATE DATABASE plain TEMPLATE template0")
    governed_with_record(cluster)
    governed_with_record(cluster, "second")
    governed(cluster, "silent").close()
    sealer(admin, "governed")
    sealer(admin, "second")
    # They seal.
    with cluster.connect(dbname="governed") as connection:
        connection.execute("SELECT count(skill_system.append_audit('x', '{}')) FROM generate_series(1, 1000)")
        until(
            lambda: (
                connection.execute(
                    "SELECT tree_size = (SELECT count(*) FROM skill_system.audit_logs) AND tree_size > 1000 "
                    "FROM skill_system.audit_seal_state"
                ).fetchone()
                == (True,)
            ),
            "not everything is sealed",
        )
        assert connection.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    # Without a record nothing is to be sealed; the first one calls for a sealer.
    with cluster.connect(dbname="silent") as silent:
        assert health(silent) == ("ok", "starts with the first record")
        assert "silent" not in sealers(admin)
        silent.execute("SELECT skill_system.append_audit('first', '{}')")
        sealer(admin, "silent")
        until(lambda: "seals this database every 1000 ms" in health(silent)[1], "health says otherwise")
    # What is rolled back calls for nothing, and neither does another database.
    assert set(sealers(admin)) == {"governed", "second", "silent"}
    # Idle means: no transaction, no snapshot, no lock.
    time.sleep(0.2)
    rows = admin.execute(
        "SELECT state, xact_start, backend_xmin, backend_xid, wait_event, (SELECT count(*) FROM pg_locks l "
        "WHERE l.pid = a.pid) FROM pg_stat_activity a WHERE backend_type LIKE 'skill_system%'"
    ).fetchall()
    assert set(rows) == {("idle", None, None, None, "Extension", 0)} and len(rows) == 4
    titles = subprocess.run(
        ["ps", "-o", "args=", "-p", ",".join(map(str, sealers(admin).values()))], capture_output=True, text=True
    ).stdout
    assert "skill_system sealer governed" in titles and "skill_system sealer second" in titles
    admin.close()
    # After a restart each is found, though nobody connects to it.
    cluster.stop()
    cluster.start()
    with cluster.connect() as admin:
        until(lambda: set(sealers(admin)) == {"governed", "second", "silent"}, "not all sealers are back")
        assert (
            admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname IN ('plain', 'template1')").fetchone()[0]
            == 0
        )


def test_a_sealer_is_in_nobodys_way(new_cluster):
    cluster = new_cluster(PRELOAD)
    admin = cluster.connect()
    governed_with_record(cluster)
    for i in range(3):
        first = sealer(admin, "governed")
        started = time.monotonic()
        admin.execute(f"CREATE DATABASE copy{i} TEMPLATE governed")
        assert time.monotonic() - started < 4
        again = sealer(admin, "governed", other_than=first)
        admin.execute("ALTER DATABASE governed RENAME TO renamed")
        sealer(admin, "renamed", other_than=again)
        admin.execute("ALTER DATABASE renamed RENAME TO governed")
        sealer(admin, "governed")
    assert [name for name in sealers(admin) if name.startswith("copy")] == []
    # One that has written a record; one that is busy in the middle of a statement; WITH (FORCE).
    with cluster.connect(dbname="copy0") as copy:
        copy.execute("SELECT skill_system.append_audit('x', '{}')")
    sealer(admin, "copy0")
    admin.execute("DROP DATABASE copy0")
    admin.execute("DROP DATABASE copy1 WITH (FORCE)")
    with cluster.connect(dbname="copy2") as copy:
        copy.execute("SELECT skill_system.append_audit('x', '{}')")
        sealer(admin, "copy2")
        # The extension goes: so does the sealer. It comes again: so does the sealer, for the same session's next
        # record.
        copy.execute("SET skill_system.allow_unprotected = on")
        copy.execute("DROP EXTENSION skill_system")
        until(lambda: "copy2" not in sealers(admin), "the sealer stays without the extension")
        copy.execute("CREATE EXTENSION skill_system")
        copy.execute("SELECT skill_system.append_audit('x', '{}')")
        sealer(admin, "copy2")
        with copy.transaction():
            copy.execute("SET skill_system.allow_unprotected = on; DROP EXTENSION skill_system")
            copy.execute("CREATE EXTENSION skill_system")
            copy.execute("SELECT skill_system.append_audit('x', '{}')")
    time.sleep(1.5)
    sealer(admin, "copy2")
    admin.execute("DROP DATABASE copy2")
    # Not even a template has one, and a database that becomes one lets its go with the next rename or restart.
    admin.execute("ALTER DATABASE governed IS_TEMPLATE true")
    admin.execute("SELECT pg_terminate_backend(%s)", [sealers(admin)["governed"]])
    until(lambda: sealers(admin) == {}, "a template keeps its sealer")
    time.sleep(2)
    assert sealers(admin) == {}
    admin.execute("ALTER DATABASE governed IS_TEMPLATE false")
    with cluster.connect(dbname="governed") as connection:
        connection.execute("SELECT skill_system.append_audit('x', '{}')")
    sealer(admin, "governed")
    assert "PANIC" not in server_log(cluster.directory) and "terminated by signal" not in server_log(cluster.directory)
    admin.close()


def test_crash_of_a_sealer_and_of_the_launcher(new_cluster):
    cluster = new_cluster(PRELOAD)
    governed_with_record(cluster)
    with cluster.connect() as admin:
        first = sealer(admin, "governed")
        launcher = admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'skill_system launcher'"
        ).fetchone()[0]
        # The launcher alone: the sealer goes on, and the next launcher knows it.
        admin.execute("SELECT pg_terminate_backend(%s)", [launcher])
        until(
            lambda: admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'skill_system launcher' AND pid <> %s",
                [launcher],
            ).fetchone(),
            "the launcher does not come back",
        )
        time.sleep(0.5)
        assert sealers(admin) == {"governed": first}
        admin.execute("SELECT pg_terminate_backend(%s)", [first])
        first = sealer(admin, "governed", other_than=first)
    # kill -9: the server restarts all its processes and forgets what was in shared memory.
    os.kill(first, signal.SIGKILL)

    def back():
        try:
            with cluster.connect() as admin:
                return sealers(admin).get("governed", first) != first
        except psycopg.OperationalError:
            return False

    until(back, "no sealer after the crash")
    with cluster.connect(dbname="governed") as connection:
        assert connection.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


def steps(admin, seconds):
    """How many steps the sealer makes in that time, at most one in 10 ms."""
    seen, deadline = set(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.add(
            admin.execute(
                "SELECT query_start FROM pg_stat_activity WHERE backend_type = 'skill_system sealer'"
            ).fetchone()
        )
    return len(seen)


def test_the_interval_changes_with_a_reload(new_cluster):
    cluster = new_cluster(PRELOAD)
    governed_with_record(cluster)
    with cluster.connect() as admin:
        sealer(admin, "governed")
        assert 2 <= steps(admin, 2.5) <= 5
        admin.execute("ALTER SYSTEM SET skill_system.seal_interval = '50ms'")
        admin.execute("SELECT pg_reload_conf()")
        time.sleep(1.2)
        assert 15 <= steps(admin, 2) <= 42
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            admin.execute("ALTER SYSTEM SET skill_system.seal_interval = '9ms'")
        with pytest.raises(psycopg.errors.CantChangeRuntimeParam):
            admin.execute("SET skill_system.seal_interval = '20ms'")


def test_an_error_is_logged_once_and_shown(new_cluster):
    cluster = new_cluster(PRELOAD)
    governed_with_record(cluster)
    text = "canceling statement due to user request"
    with cluster.connect(dbname="governed") as holder, cluster.connect(dbname="governed") as admin:
        pid = sealer(admin, "governed")
        holder.execute("BEGIN")
        # No step gets past this, because the first thing is to look for the extension.
        holder.execute("LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE")
        steps_seen = set()

        def step_waits():
            """A step that has not been seen before waits for the lock."""
            waiting = admin.execute(
                "SELECT virtualtransaction FROM pg_locks "
                "WHERE NOT granted AND relation = 'pg_extension'::regclass AND pid = %s",
                [pid],
            )
            new = {row[0] for row in waiting} - steps_seen
            steps_seen.update(new)
            return new

        while len(steps_seen) < 3:
            until(step_waits, "the sealer does not try again")
            admin.execute("SELECT pg_cancel_backend(%s)", [pid])
        until(step_waits, "the sealer does not try again")
        assert server_log(cluster.directory).count(f"skill_system sealer: {text}") == 1
        holder.execute("ROLLBACK")
        until(lambda: health(admin)[0] == "ok", "it does not work again")
        assert server_log(cluster.directory).count("skill_system sealer works again") == 1
        # An error that lasts is shown.
        behind_the_triggers(
            admin, "audit_seal_state", "UPDATE skill_system.audit_seal_state SET timeline = timeline + 1"
        )
        until(lambda: health(admin)[0] == "error", "the error is not shown")
        assert health(admin)[1].startswith(f"process {pid} cannot seal: ")
        admin.execute("SELECT skill_system.adopt_log('the timeline was changed by hand')")
        until(lambda: health(admin)[0] == "ok", "it does not work again")
        assert sealers(admin) == {"governed": pid}, "an error must not end the process"


def test_settings_of_the_database_keep_no_sealer_from_its_work(new_cluster):
    cluster = new_cluster(PRELOAD)
    governed_with_record(cluster)
    with cluster.connect() as admin:
        admin.execute("CREATE ROLE nobody LOGIN")
        for setting in (
            "role = nobody",
            "session_authorization = nobody",
            "default_transaction_read_only = on",
            "statement_timeout = 1",
            "lock_timeout = 1",
            "search_path = nowhere",
            "row_security = off",
        ):
            admin.execute(f"ALTER DATABASE governed SET {setting}")
        admin.execute("SELECT pg_terminate_backend(%s)", [pid := sealer(admin, "governed")])
        sealer(admin, "governed", other_than=pid)
    writer = psycopg.connect(
        host=cluster.environment["PGHOST"],
        port=cluster.environment["PGPORT"],
        user="postgres",
        dbname="governed",
        autocommit=True,
        options=(
            "-c role=none -c default_transaction_read_only=off -c lock_timeout=0 -c statement_timeout=0 -c "
            "session_authorization=postgres"
        ),
    )
    with writer:
        before = until(
            lambda: writer.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone(),
            "nothing is sealed",
        )[0]
        writer.execute("SELECT skill_system.append_audit('x', '{}')")
        until(
            lambda: writer.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0] > before,
            "not sealed",
        )
        assert health(writer)[0] == "ok"


@pytest.mark.parametrize("busy", [False, True])
def test_shutdown_is_fast(new_cluster, busy):
    cluster = new_cluster(PRELOAD)
    governed_with_record(cluster)
    governed_with_record(cluster, "second")
    holder = cluster.connect(dbname="governed")
    sealer(holder, "governed")
    sealer(holder, "second")
    if busy:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE")
        until(lambda: holder.execute(WAITING).fetchone(), "the sealer does not wait")
    cluster.stop()
    holder.close()
    # From the request until the last process but the checkpointer has ended; what comes then is the disk's time.
    lines = server_log(cluster.directory).splitlines()

    def moment(what):
        return datetime.datetime.fromisoformat(next(line for line in lines if what in line)[:23])

    assert moment("LOG:  shutting down") - moment("received fast shutdown request") < datetime.timedelta(seconds=2)


def test_no_worker_is_free(new_cluster):
    # One for the launcher, one for a single sealer.
    cluster = new_cluster(PRELOAD, "max_worker_processes=2", "max_logical_replication_workers=0")
    with cluster.connect() as admin:
        governed_with_record(cluster)
        sealer(admin, "governed")
        governed_with_record(cluster, "second")
        message = 'no background worker is free for the skill_system sealer of database "second"'
        until(lambda: message in server_log(cluster.directory), "nothing in the log")
        with cluster.connect(dbname="second") as second:
            assert health(second) == ("error", "no process seals this database")
        time.sleep(3)
        assert server_log(cluster.directory).count(message) == 1
        admin.execute("DROP DATABASE governed")
        sealer(admin, "second")


def test_a_standby_has_none_until_it_is_promoted(new_cluster, copies):
    primary = new_cluster(PRELOAD)
    governed_with_record(primary)
    standby_server = copies(primary).backup(primary, "-R").start(PRELOAD, "hot_standby=on")
    with standby_server.connect() as standby:
        time.sleep(1.5)
        assert (
            standby.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'skill_system%'").fetchone()[
                0
            ]
            == 0
        )
        assert health(standby) == ("ok", "a standby verifies; the sealer starts after promotion")
        standby.execute("SELECT pg_promote()")
        pid = sealer(standby, "governed")
        # It does not seal on its own authority what another server has sealed. That is shown, and logged once.
        status, detail = until(
            lambda: found if (found := health(standby))[0] == "error" else None, "health says otherwise"
        )
        assert detail.startswith(f"process {pid} cannot seal: ")
        time.sleep(4)
        assert server_log(standby_server.home).count("skill_system sealer: ") == 1
        standby.execute("SELECT skill_system.adopt_log('promoted')")
        until(lambda: health(standby)[0] == "ok", "it does not seal after adopt_log()")
        assert sealer(standby, "governed") == pid


def test_without_preload_there_is_none(db):
    assert (
        db.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'skill_system%'").fetchone()[0] == 0
    )
    assert health(db)[0] == "ok" and health(db)[1].startswith("not preloaded")


def test_the_sealer_creates_the_months(new_cluster):
    """Also those of a restored or copied database, whose months are over."""
    cluster = new_cluster(PRELOAD)
    with governed(cluster) as connection:
        without_months(connection)
        # By INSERT, which has chosen its partition before the log begins.
        connection.execute("INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')")
        created = f"SELECT count(*) FROM pg_class WHERE relname ~ '^audit_logs_[0-9_]+$' AND relname >= '{MONTH}'"
        until(lambda: connection.execute(created).fetchone() == (3,), "no partitions")
        assert connection.execute("SELECT count(*) FROM skill_system.audit_logs_default").fetchone() == (0,)


def test_the_sealer_survives_being_cancelled(new_cluster):
    """Also in the subtransaction in which it creates months: no transaction stays open."""
    cluster = new_cluster(PRELOAD, "skill_system.seal_interval=10")
    with governed(cluster) as connection, cluster.connect() as admin:
        without_months(connection)
        # In use, so that the sealer waits for the default partition.
        reader = cluster.connect(dbname="governed")
        reader.execute("BEGIN; INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')")
        append(connection, "first")
        pid = sealer(admin, "governed")
        for _ in range(150):
            admin.execute("SELECT pg_cancel_backend(%s)", [pid])
            time.sleep(0.01)
        reader.execute("COMMIT")
        until(lambda: health(connection)[0] == "ok", "the sealer does not recover")
        until(
            lambda: (
                connection.execute("SELECT unsealed, blocked_by FROM skill_system.seal_audit()").fetchone() == (0, None)
            ),
            "not everything is sealed",
        )
        assert connection.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
