"""Where records go: the partitions of this month and the next two, created before anybody needs them; and the beginning of a
log, for which no writer waits."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import MONTH, without_months

INSERT = "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')"
APPEND = "SELECT skill_system.append_audit('x', '{}')"
# Ways to write a record; the last column tells whether an agent may.
WRITES = {
    "a call": (APPEND, True),
    "an INSERT": (INSERT, True),
    "a run": ("SELECT skill_system.log_run('s', 'o', 'ok')", True),
    "a denial": ("SELECT skill_system.log_denial('tool.denied', '{}')", True),
    "a policy": ("SELECT skill_system.create_policy('p')", False),
    "an audited table": ("INSERT INTO public.wells VALUES (1)", False),
}
COUNTS = (
    "SELECT tableoid::regclass::text, count(*) FROM skill_system.audit_logs "
    "WHERE event_type <> 'audit.records_moved' GROUP BY 1 ORDER BY 1"
)
PARTITIONS = "SELECT affected, detail FROM skill_system.maintain() WHERE task = 'audit_partitions'"
CREATED = (
    "SELECT to_regclass('skill_system.audit_logs_' || to_char(now() AT TIME ZONE 'UTC' + make_interval(months => n), "
    "'YYYY_MM')) IS NOT NULL FROM generate_series(0, 2) n"
)


def created(connection):
    return [exists for (exists,) in connection.execute(CREATED).fetchall()]


def sound(connection):
    connection.execute("SELECT FROM skill_system.seal_audit()")
    return connection.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []


def test_create_extension_creates_months_that_a_dump_has(connect, fresh_database):
    connection = connect(dbname=fresh_database(extension=False))
    connection.execute("CREATE EXTENSION skill_system")
    assert created(connection) == [True] * 3
    months = "classid = 'pg_class'::regclass AND objid::regclass::text ~ 'audit_logs_[0-9]'"
    assert connection.execute(f"SELECT FROM pg_depend WHERE {months} AND deptype = 'e'").fetchall() == []
    found = connection.execute(
        "SELECT \"check\", detail FROM skill_system.health() WHERE status = 'error' OR \"check\" = 'audit_partitions'"
    ).fetchall()
    assert found == [("audit_partitions", "next month has its partition, and audit_logs_default is empty")]
    connection.execute("DROP EXTENSION skill_system")
    assert connection.execute("SELECT FROM pg_class WHERE relname ~ '^audit_logs'").fetchall() == []
    # As pg_dump has it: the months of the dump come next.
    connection.execute("SET row_security = off; CREATE EXTENSION skill_system")
    assert created(connection) == [False] * 3


@pytest.mark.parametrize("months", ["there", "gone"])
@pytest.mark.parametrize("write", WRITES)
def test_the_first_record_holds_up_nobody(write, months, connect, fresh_database, roles):
    database = fresh_database()
    connection = connect(dbname=database)
    connection.execute("CREATE TABLE public.wells (id int PRIMARY KEY)")
    # As audit_table() creates it, but without its record.
    connection.execute(
        "CREATE TRIGGER a AFTER INSERT ON public.wells FOR EACH ROW EXECUTE FUNCTION skill_system.capture_change()"
    )
    if months == "gone":
        without_months(connection)
    statement, by_agent = WRITES[write]
    first = connect("test_agent" if by_agent else None, dbname=database)
    first.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    first.execute(statement)
    others = [connect("test_agent", dbname=database) for _ in WRITES]
    begun = time.monotonic()
    for other, (another, _) in zip(others, [write for write in WRITES.values() if write[1]], strict=False):
        other.execute(another)
    assert time.monotonic() - begun < 2
    first.execute("ROLLBACK")
    connection.execute(statement)
    assert created(connection) == [True] * 3 or (months, write) == ("gone", "an INSERT")
    default = dict(connection.execute(COUNTS).fetchall()).get("skill_system.audit_logs_default", 0)
    assert default == 0 or (months, write) == ("gone", "an INSERT")
    assert sound(connection)


def test_many_first_records_at_once(connect, fresh_database, roles):
    database = fresh_database()
    writers = [connect("test_agent", dbname=database) for _ in range(12)]
    with ThreadPoolExecutor(len(writers)) as pool:
        list(pool.map(lambda writer: writer.execute(f"BEGIN; {APPEND}"), writers))
        list(pool.map(lambda writer: writer.execute("COMMIT"), writers))
    connection = connect(dbname=database)
    assert connection.execute(COUNTS).fetchall() == [(f"skill_system.{MONTH}", 12)]
    assert sound(connection)


def test_the_first_record_in_the_transaction_of_create_extension(connect, fresh_database):
    connection = connect(dbname=fresh_database(extension=False))
    with connection.transaction():
        connection.execute("CREATE EXTENSION skill_system")
        connection.execute(APPEND)
        connection.execute("SELECT skill_system.create_policy('p')")
    assert sound(connection)


def test_without_a_free_worker_the_session_begins_the_log(new_cluster):
    with new_cluster("max_worker_processes=0").connect() as connection:
        connection.execute("CREATE EXTENSION skill_system")
        connection.execute(APPEND)
        assert connection.execute(COUNTS).fetchall() == [(f"skill_system.{MONTH}", 1)]
        assert sound(connection)


@pytest.mark.parametrize("call", [PARTITIONS, "SELECT skill_system.create_audit_partition(now()::date)"])
def test_months_are_created_while_short_transactions_overlap(call, connect, fresh_database, roles):
    database = fresh_database()
    connection = connect(dbname=database)
    without_months(connection)
    connection.execute(INSERT)
    writers = [connect("test_agent", dbname=database) for _ in range(8)]
    end = time.monotonic() + 6
    done = []

    def work(number):
        time.sleep(number / 160)
        while not done and time.monotonic() < end:
            with writers[number].transaction():
                writers[number].execute((APPEND, INSERT)[number % 2])
                time.sleep(0.05)

    with ThreadPoolExecutor(len(writers)) as pool:
        work = [pool.submit(work, number) for number in range(len(writers))]
        time.sleep(0.3)
        done.append(connection.execute(call).fetchone())
        for writer in work:
            writer.result()
    assert created(connection)[0] and (created(connection) == [True] * 3 or call != PARTITIONS), done
    assert [name for name, _ in connection.execute(COUNTS).fetchall()] == [f"skill_system.{MONTH}"]
    assert sound(connection)


def test_nobody_waits_behind_a_long_transaction(connect, fresh_database, roles):
    """The default partition is in use by one that stays open: no partition is created, and no other writer is held up."""
    database = fresh_database()
    connection = connect(dbname=database)
    without_months(connection)
    connection.execute(INSERT)
    forgotten, writer = connect("test_agent", dbname=database), connect("test_agent", dbname=database)
    forgotten.execute(f"BEGIN; {APPEND}")
    time.sleep(0.2)
    longest = 0
    with ThreadPoolExecutor(1) as pool:
        maintained = pool.submit(lambda: connection.execute(PARTITIONS).fetchone())
        while not maintained.done():
            begun = time.monotonic()
            writer.execute(APPEND)
            longest = max(longest, time.monotonic() - begun)
    assert maintained.result()[0] == 0 and "has to wait" in maintained.result()[1]
    assert longest < 0.8
    forgotten.execute("COMMIT")
    assert connection.execute(PARTITIONS).fetchone()[0] == 3
    assert sound(connection)
