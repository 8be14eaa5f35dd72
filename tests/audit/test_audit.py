"""The audit trail: tampering, change capture, what a keyring can do wrong."""

import base64
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

import skr1
from cluster import MONTH, as_server, governed, server_log, until, without_months
from keyring import read_keyring, write_keyring
from ledger import problems


def test_what_is_signed_does_not_depend_on_the_settings_of_the_writer(connect):
    for setting in [
        "TimeZone = 'America/St_Johns'",
        "DateStyle = 'German'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "IntervalStyle = 'sql_standard'",
        "client_encoding = 'LATIN1'",
        "search_path = ''",
        "standard_conforming_strings = off",
        "xmloption = document",
        "lc_numeric = 'C'",
    ]:
        with connect() as writer:
            writer.execute(f"SET {setting}")
            writer.execute("SELECT skill_system.append_audit('setting', '{\"a\": [1.50, \"x\"]}')")
    with connect() as reader:
        assert problems(reader) == []


# ---- tampering

TAMPER = {
    "id": "gen_random_uuid()",
    "tenant_id": "tenant_id || 'x'",
    "event_type": "'other'",
    "event_data": "event_data || '{\"new\": 1}'",
    "actor_id": "NULL",
    "actor_type": "'user'",
    "created_at": "created_at + interval '1 microsecond'",
    "recorded_at": "recorded_at - interval '1 microsecond'",
    "transaction_id": "transaction_id + 1",
    "session_user_name": "'alice'",
    "current_user_name": "'alice'",
    "key_id": "'other'",
    "signature": "left(signature, -1) || CASE right(signature, 1) WHEN '0' THEN '1' ELSE '0' END",
}


@pytest.fixture(scope="module")
def tampering(fresh_database):
    """A database with some records, whose triggers a superuser has switched off."""
    name = fresh_database()
    with psycopg.connect(
        host=os.environ["PGHOST"], port=os.environ["PGPORT"], user=os.environ["PGUSER"], dbname=name, autocommit=True
    ) as connection:
        for i in range(20):
            connection.execute(
                "SELECT skill_system.append_audit('event', "
                "jsonb_build_object('n', %s::int, 'amount', 1.50), 'actor', 'agent')",
                [i],
            )
        connection.execute(f"ALTER TABLE skill_system.{MONTH} DISABLE TRIGGER USER")
        yield connection


def row_problems(connection):
    return [
        (identity, problem)
        for identity, problem in problems(connection, "record_id", "problem")
        if identity is not None
    ]


def test_the_list_of_columns_is_complete(tampering):
    columns = {
        row[0]
        for row in tampering.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'skill_system.audit_logs'::regclass "
            "AND attnum > 0 AND NOT attisdropped"
        )
    }
    assert columns == set(TAMPER) == set(skr1.COLUMNS) | {"signature"}


@pytest.mark.parametrize("column", TAMPER)
def test_a_changed_column_is_found_and_no_other_row_is_blamed(tampering, column):
    assert row_problems(tampering) == []
    with tampering.transaction(force_rollback=True):
        changed = tampering.execute(
            f"UPDATE skill_system.{MONTH} SET {column} = {TAMPER[column]} "
            f"WHERE event_data @> '{{\"n\": 7}}' RETURNING id::text"
        ).fetchall()
        assert len(changed) == 1
        assert [identity for identity, _ in row_problems(tampering)] == [changed[0][0]]
    assert row_problems(tampering) == []


@pytest.mark.parametrize(
    "change",
    [
        "jsonb_set(event_data, '{amount}', '1.5')",
        "jsonb_set(event_data, '{amount}', '\"1.50\"')",
        "event_data - 'amount'",
        "'[]'",
        "jsonb_build_array(event_data)",
    ],
)
def test_a_json_value_changed_in_spelling_only_is_found(tampering, change):
    with tampering.transaction(force_rollback=True):
        tampering.execute(f"UPDATE skill_system.{MONTH} SET event_data = {change} WHERE event_data @> '{{\"n\": 3}}'")
        assert [problem for _, problem in row_problems(tampering)] == ["signature_mismatch"]


def test_values_swapped_between_two_rows_are_found(tampering):
    for columns in ("event_data", "event_data, signature", "id, signature", "recorded_at, transaction_id"):
        with tampering.transaction(force_rollback=True):
            tampering.execute(f"ALTER TABLE skill_system.{MONTH} DROP CONSTRAINT {MONTH}_pkey")
            target = ", ".join(f"{name.strip()} = o.{name.strip()}" for name in columns.split(","))
            done = tampering.execute(
                f"UPDATE skill_system.{MONTH} a SET {target} "
                f"FROM (SELECT a.*, (a.event_data ->> 'n')::int AS n FROM skill_system.{MONTH} a) o "
                "WHERE ((a.event_data ->> 'n')::int, o.n) IN ((4, 5), (5, 4))"
            ).rowcount
            assert done == 2
            assert len(row_problems(tampering)) == 2, columns


def test_a_record_of_another_log_with_the_same_keyring_is_found(tampering, connect, fresh_database):
    other = connect(dbname=fresh_database())
    other.execute("SELECT skill_system.append_audit('foreign', '{}')")
    assert problems(other) == []
    row = other.execute(
        f"SELECT {', '.join(name + '::text' for name in TAMPER)} FROM skill_system.audit_logs"
    ).fetchone()
    with tampering.transaction(force_rollback=True):
        tampering.execute(
            f"INSERT INTO skill_system.audit_logs ({', '.join(TAMPER)}) VALUES ({', '.join(['%s'] * len(TAMPER))})", row
        )
        assert row_problems(tampering) == [(row[0], "signature_mismatch")]


def test_a_changed_identity_of_the_log_is_found(tampering):
    with tampering.transaction(force_rollback=True):
        tampering.execute("ALTER TABLE skill_system.audit_state DISABLE TRIGGER USER")
        tampering.execute("UPDATE skill_system.audit_state SET log_id = gen_random_uuid()")
        assert len(row_problems(tampering)) == 20
    with tampering.transaction(force_rollback=True):
        tampering.execute("ALTER TABLE skill_system.audit_state DISABLE TRIGGER USER")
        tampering.execute("DELETE FROM skill_system.audit_state")
        assert ("log_identity_missing") in [problem for (problem,) in problems(tampering, "problem")]


def test_no_record_is_refused_while_its_partition_is_made(connect, fresh_database):
    db = fresh_database()
    connection, writer = connect(dbname=db), connect(dbname=db)
    without_months(connection)
    with ThreadPoolExecutor(1) as pool:
        # It has opened the parent, and opens the default partition when pg_sleep() has its row.
        written = pool.submit(
            writer.execute,
            "INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) "
            "SELECT 'test', '{}', now() FROM pg_sleep(0.6)",
        )
        until(
            lambda: connection.execute(
                "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s", [writer.info.backend_pid]
            ).fetchone()[0],
            "the writer does not sleep",
        )
        # Nobody writes to a month that has not begun, so nobody is in its way.
        connection.execute("SELECT skill_system.create_audit_partition((now() + interval '2 months')::date)")
        assert not written.done()
        made = connection.execute("SELECT skill_system.create_audit_partition(now()::date)::text").fetchone()[0]
        written.result(10)
    assert connection.execute(f"SELECT count(*) FROM {made} WHERE event_type = 'test'").fetchone()[0] == 1
    assert problems(connection) == []


def test_missing_protection_is_reported(connect, fresh_database):
    connection = connect(dbname=fresh_database())
    connection.execute("SELECT skill_system.append_audit('x', '{}')")
    connection.execute("SELECT skill_system.create_audit_partition('2033-03-01')")
    assert problems(connection) == []
    triggers = ["audit_logs_sign", "audit_logs_no_change", "audit_logs_no_truncate"]
    for table in ["audit_logs_default", MONTH, "audit_logs_2033_03", "audit_logs"]:
        for trigger in triggers:
            for how in ["DISABLE TRIGGER", "ENABLE TRIGGER", "ENABLE REPLICA TRIGGER"]:
                with connection.transaction(force_rollback=True):
                    connection.execute(f"ALTER TABLE ONLY skill_system.{table} {how} {trigger}")
                    assert (f"skill_system.{table}", None, "protection_missing") in problems(
                        connection, "partition", "record_id", "problem"
                    ), (
                        table,
                        trigger,
                        how,
                    )
    with connection.transaction(force_rollback=True):
        connection.execute("DROP TRIGGER audit_logs_no_truncate ON skill_system.audit_logs_default")
        assert ("skill_system.audit_logs_default", None, "protection_missing") in problems(
            connection, "partition", "record_id", "problem"
        )
    # Records taken out of the log's sight.
    with connection.transaction(force_rollback=True):
        connection.execute(f"ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.{MONTH}")
        assert "protection_missing" in [problem for (problem,) in problems(connection, "problem")], (
            "a detached partition is not noticed"
        )
    assert problems(connection) == []


def test_verification_can_use_parallel_workers(connect, database):
    connection = connect()
    for name, value in {
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "max_parallel_workers_per_gather": "2",
    }.items():
        connection.execute(f"SET {name} = {value}")
    connection.execute("LOAD 'auto_explain'")
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.execute("SELECT skill_system.append_audit('x', '{}')")
    for name, value in {
        "log_min_duration": "0",
        "log_nested_statements": "on",
        "log_level": "notice",
        "log_analyze": "on",
    }.items():
        connection.execute(f"SET auto_explain.{name} = {value}")
    assert problems(connection) == []
    plan = "\n".join(notices)
    assert "audit_record_digest" in plan and "Workers Planned" in plan and re.search(r"Workers Launched: [12]", plan), (
        plan
    )


# ---- change capture

EVERYTHING = """
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE TYPE pair AS (a int, "B b" text);
CREATE DOMAIN positive AS numeric(10, 2) CHECK (value > 0);
CREATE DOMAIN deep AS positive;
CREATE TABLE everything (
    gone int, id bigint PRIMARY KEY, b boolean, i2 int2, i4 int4, f4 float4, f8 float8, n numeric, n2 numeric(12, 4),
        t text, vc varchar(20), bc bpchar, c3 char(3), one "char", nm name,
    gone2 text, u uuid, j json, jb jsonb, by bytea, d date, ti time, tz timetz, ts timestamp, tstz timestamptz,
        iv interval, inet inet, cidr cidr, mac macaddr,
    ia int[], ta text[], na numeric[], da date[], jba jsonb[], m mood, ma mood[], p pair, pa pair[], pos positive,
        dp deep, pos_a positive[], r int4range, tr tstzrange, mr int4multirange, pt point, bits varbit, x xml,
    mon money, o oid, rc regclass, tsv tsvector, "Odd ""name" int,
        g bigint GENERATED ALWAYS AS (i4::bigint * 2) STORED);
ALTER TABLE everything DROP COLUMN gone, DROP COLUMN gone2;
ALTER TABLE everything ADD COLUMN late text DEFAULT 'added later';
"""
ROWS = [
    "(id) VALUES (1)",
    """(id, b, i2, i4, f4, f8, n, n2, t, vc, bc, c3, one, nm, u, j, jb, by, d, ti, tz, ts, tstz, iv, inet, cidr, mac,
        ia, ta, na, da, jba, m, ma, p, pa, pos, dp, pos_a, r, tr, mr, pt, bits, x, mon, o, rc, tsv, "Odd ""name")
       VALUES (2, true, -32768, 2147483647, 'NaN', 'Infinity', 'NaN', 1.5, E'tab\\t"quote" \\\\ 😀', 'vc', 'bc  ', 'a',
           'z', 'nm', '00112233-4455-6677-8899-aabbccddeeff',
       '{"b": 1,  "a": [1.0, 1e300, {"a": 1, "a": 2}]}', '"scalar"', '\\xdeadbeef00', 'infinity', '24:00',
           '12:00+05:45', '-infinity', 'infinity', '1 mon -2 days', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03',
       '{{1,2},{3,NULL}}', '{"a,b","NULL",NULL,""}', '{NaN,1.50,Infinity}', '{2026-01-01,infinity}', ARRAY['1', 'null',
           '{"x": []}']::jsonb[], 'it''s "ok"', '{sad}', '(1,"x ""y"" ,")', ARRAY['(1,a)', NULL]::pair[], 1.50, 2,
           '{1.5}',
       '[1,5)', '(,2026-01-01Z]', '{[1,2),[5,7)}', '(1.5,-2)', B'1011', '<a>1</a>', '12.34', 16384, 'pg_class',
           'a:1 b:2', 7)""",
    """(id, b, f4, f8, n, n2, t, vc, bc, jb, d, ts, tstz, ia, r, j)
        VALUES (3, false, '-0', 1e-320, '-Infinity', -0.0001, '', '', '', 'null', '0044-03-15 BC',
        '2026-02-03 04:05:06.7', '1999-12-31 23:59:59.999999+14', '{}', 'empty', 'null')""",
    """(id, f4, f8, n, t, jb, d, tstz, by) VALUES (4, 1.1, 0.1, 12345678901234567890.12345678900,
        repeat('long ', 5000), (SELECT jsonb_object_agg(g, repeat('x', 100)) FROM generate_series(1, 100) g),
        '5874897-12-31', '4713-06-24 BC', decode(repeat('ab', 10000), 'hex'))""",
]


def captured(connection, since):
    return connection.execute(
        "SELECT event_type, event_data FROM skill_system.audit_logs WHERE transaction_id >= %s "
        "AND event_type LIKE 'row.%%' ORDER BY recorded_at, id",
        [since],
    ).fetchall()


def transaction_now(connection):
    return int(connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0])


# Arrays of types that are not the server's are their text: to_jsonb() would run casts that others made.
AS_JSON = "(to_jsonb(e) || jsonb_build_object('ma', e.ma::text))::text"


@pytest.mark.parametrize(
    "zone, style", [("UTC", "ISO"), ("Asia/Kathmandu", "German"), ("America/St_Johns", "SQL, DMY")]
)
def test_captured_rows_are_those_of_to_jsonb(connect, fresh_database, zone, style):
    connection = connect(dbname=fresh_database())
    connection.execute(EVERYTHING)
    connection.execute("SELECT skill_system.audit_table('everything')")
    connection.execute("SELECT set_config('TimeZone', %s, false), set_config('DateStyle', %s, false)", [zone, style])
    # What is recorded does not follow the settings of the writer.
    reader = connect(dbname=connection.info.dbname)
    reader.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'")
    for row in ROWS:
        since = transaction_now(connection)
        number = connection.execute(f"INSERT INTO everything {row} RETURNING id").fetchone()[0]
        # The comparison is on the texts, where 1.50 and 1.5 differ.
        expected = reader.execute(f"SELECT {AS_JSON} FROM everything e WHERE id = %s", [number]).fetchone()[0]
        kinds = connection.execute(
            "SELECT event_type, (event_data -> 'new')::text, event_data -> 'key', event_data ? 'old', "
            "event_data ->> 'table' FROM skill_system.audit_logs "
            "WHERE transaction_id >= %s",
            [since],
        ).fetchall()
        assert kinds == [("row.inserted", expected, {"id": json.loads(expected)["id"]}, False, "public.everything")]
    since = transaction_now(connection)
    before = [row[0] for row in reader.execute(f"SELECT {AS_JSON} FROM everything e ORDER BY id")]
    connection.execute("UPDATE everything SET t = t")
    assert captured(connection, since) == [], "an update that changes nothing is recorded"
    connection.execute("UPDATE everything SET id = id + 100, t = coalesce(t, '') || '!'")
    after = [row[0] for row in reader.execute(f"SELECT {AS_JSON} FROM everything e ORDER BY id")]
    pairs = connection.execute(
        "SELECT (event_data -> 'old')::text, (event_data -> 'new')::text FROM skill_system.audit_logs "
        "WHERE transaction_id >= %s AND event_type = 'row.updated' "
        "ORDER BY (event_data #>> '{new,id}')::int",
        [since],
    ).fetchall()
    assert pairs == list(zip(before, after, strict=True))
    connection.execute("DELETE FROM everything")
    gone = connection.execute(
        "SELECT (event_data -> 'old')::text, event_data ? 'new' FROM skill_system.audit_logs "
        "WHERE event_type = 'row.deleted' ORDER BY (event_data #>> '{old,id}')::int"
    ).fetchall()
    assert gone == [(text, False) for text in after]
    assert problems(connection) == []


def test_each_column_alone_is_noticed_when_it_changes(connect, fresh_database):
    connection = connect(dbname=fresh_database())
    connection.execute(EVERYTHING)
    connection.execute("SELECT skill_system.audit_table('everything')")
    connection.execute(f"INSERT INTO everything {ROWS[1]}")
    columns = [
        row[0]
        for row in connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'everything'::regclass AND attnum > 0 "
            "AND NOT attisdropped AND attgenerated = '' AND attname <> 'id'"
        )
    ]
    assert len(columns) > 45
    for column in columns:
        since = transaction_now(connection)
        connection.execute(sql.SQL("UPDATE everything SET {} = NULL").format(sql.Identifier(column)))
        assert [event for event, _ in captured(connection, since)] == ["row.updated"], column


def test_capture_on_partitioned_tables(connect, fresh_database):
    connection = connect(dbname=fresh_database())
    connection.execute("""CREATE TABLE parted (id int, day date, note text, PRIMARY KEY (day, id))
        PARTITION BY RANGE (day);
        CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
        CREATE TABLE parted_b (note text, x int, day date NOT NULL, id int NOT NULL);
            ALTER TABLE parted_b DROP COLUMN x;
        ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES FROM ('2031-01-01') TO ('2032-01-01');""")
    connection.execute("SELECT skill_system.audit_table('parted')")
    since = transaction_now(connection)
    connection.execute("INSERT INTO parted VALUES (1, '2030-05-05', 'a'), (2, '2031-05-05', 'b')")
    connection.execute("UPDATE parted SET note = note || '!'")
    connection.execute("UPDATE parted SET day = '2031-06-06' WHERE id = 1")
    connection.execute("CREATE TABLE parted_c PARTITION OF parted FOR VALUES FROM ('2032-01-01') TO ('2033-01-01')")
    connection.execute("INSERT INTO parted VALUES (3, '2032-05-05', 'c')")
    found = [(event, data["table"], data.get("old"), data.get("new")) for event, data in captured(connection, since)]

    def row(identity, day, note):
        return {"id": identity, "day": day, "note": note}

    a, b = "public.parted_a", "public.parted_b"
    assert sorted(found, key=str) == sorted(
        [
            ("row.inserted", a, None, row(1, "2030-05-05", "a")),
            ("row.inserted", b, None, row(2, "2031-05-05", "b")),
            ("row.updated", a, row(1, "2030-05-05", "a"), row(1, "2030-05-05", "a!")),
            ("row.updated", b, row(2, "2031-05-05", "b"), row(2, "2031-05-05", "b!")),
            ("row.deleted", a, row(1, "2030-05-05", "a!"), None),
            ("row.inserted", b, None, row(1, "2031-06-06", "a!")),
            ("row.inserted", "public.parted_c", None, row(3, "2032-05-05", "c")),
        ],
        key=str,
    )


def test_capture_survives_the_ways_a_statement_can_run(connect, fresh_database):
    """Subtransactions, cascades, deferred checks, COPY, functions in functions, cursors, TRUNCATE, errors in
    between."""
    connection = connect(dbname=fresh_database())
    warnings = []
    connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    connection.execute("""CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE
        DEFERRABLE INITIALLY DEFERRED);
        SELECT skill_system.audit_table('parent'), skill_system.audit_table('child');""")

    def count():
        return connection.execute(
            "SELECT count(*) FROM skill_system.audit_logs WHERE event_type LIKE 'row.%' "
            "OR event_type = 'table.truncated'"
        ).fetchone()[0]

    connection.execute(
        "INSERT INTO parent SELECT generate_series(1, 50); INSERT INTO child SELECT g, g FROM generate_series(1, 50) g"
    )
    assert count() == 100
    connection.execute("DELETE FROM parent WHERE id <= 10")
    assert count() == 120
    connection.execute("UPDATE parent SET id = id + 1000 WHERE id = 50")
    assert count() == 122
    connection.execute("""DO $$ BEGIN
        FOR i IN 100..119 LOOP
            BEGIN
                INSERT INTO parent VALUES (i);
                IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
            BEGIN
                INSERT INTO parent SELECT CASE g WHEN 3 THEN 11 ELSE i * 100 + g END FROM generate_series(1, 3) g;
            EXCEPTION WHEN unique_violation THEN NULL;
            END;
        END LOOP;
    END $$""")
    assert count() == 132
    with connection.cursor().copy("COPY parent FROM STDIN") as copy:
        copy.write("5001\n5002\n5003\n")
    assert count() == 135
    with connection.transaction():
        connection.execute("INSERT INTO child VALUES (9001, 9001)")
        connection.execute("SAVEPOINT s")
        connection.execute("INSERT INTO parent VALUES (9001), (9002)")
        connection.execute("ROLLBACK TO s")
        connection.execute("INSERT INTO parent VALUES (9001)")
    assert count() == 137
    connection.execute("INSERT INTO parent VALUES (9001), (9500) ON CONFLICT (id) DO NOTHING")
    assert count() == 138
    connection.execute("""CREATE FUNCTION nested(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO parent
        VALUES (n); IF n % 3 = 0 THEN RETURN n; END IF; RETURN nested(n + 1); END $$;
        WITH made AS (INSERT INTO parent SELECT nested(20002) + 100 RETURNING id) SELECT count(*) FROM made""")
    assert count() == 142
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO parent VALUES (30001), (9001)")
    assert count() == 142
    connection.execute("TRUNCATE child")
    assert count() == 143
    connection.execute("TRUNCATE parent CASCADE")
    assert count() == 145
    assert problems(connection) == []
    assert [text for text in warnings if "leak" in text or "owned" in text] == []


def test_capture_says_who_for_whom(connect, fresh_database, roles):
    name = fresh_database()
    connection = connect(dbname=name)
    connection.execute("CREATE ROLE nobody_special LOGIN")
    connection.execute(
        "CREATE TABLE t (id int); SELECT skill_system.audit_table('t'); GRANT INSERT ON t TO test_agent, nobody_special"
    )
    # A role that has no right on anything of the extension still leaves its trace.
    connect("nobody_special", name).execute("INSERT INTO t VALUES (1)")
    connection.execute("SET ROLE test_agent")
    connection.execute("INSERT INTO t VALUES (2)")
    connection.execute("RESET ROLE")
    found = connection.execute(
        "SELECT session_user_name, current_user_name, event_data -> 'new' FROM skill_system.audit_logs "
        "WHERE event_type = 'row.inserted' ORDER BY recorded_at"
    ).fetchall()
    assert found == [("nobody_special", "nobody_special", {"id": 1}), ("postgres", "test_agent", {"id": 2})]
    connection.execute("DROP OWNED BY nobody_special")
    connection.execute("DROP ROLE nobody_special")


# ---- what can be wrong with a keyring

SECRET = base64.urlsafe_b64encode(b"a secret that nobody may ever see in a log").decode().rstrip("=")


def key(kid="k1", active=True, k=SECRET, **more):
    return {"kty": "oct", "alg": "HS256", "kid": kid, "active": active, "k": k, **more}


def ring_text(*found):
    return json.dumps({"keys": list(found)})


def append(connection):
    return connection.execute("SELECT skill_system.append_audit('x', '{}')").fetchone()[0]


def keyring_refused(cluster, why=None):
    """In a new session and in one that had used the keyring before, by function and by INSERT."""
    with cluster.connect(dbname="governed") as connection:
        for statement in [
            "SELECT skill_system.append_audit('refused', '{}')",
            "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('refused', '{}')",
        ]:
            with pytest.raises(psycopg.errors.ConfigFileError) as caught:
                connection.execute(statement)
            diag = caught.value.diag
            assert diag.message_hint, "no hint"
            shown = f"{diag.message_primary} {diag.message_detail} {diag.message_hint}"
            assert SECRET not in shown and SECRET[:20] not in shown
            if why:
                assert re.search(why, shown), shown
        assert (
            connection.execute("SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'refused'").fetchone()[
                0
            ]
            == 0
        )


@pytest.fixture
def keyed(new_cluster):
    cluster = new_cluster()
    with governed(cluster) as connection:
        append(connection)
    yield cluster
    assert SECRET[:20] not in server_log(cluster.directory), "the server's log shows a key"


def ring_file(cluster):
    return cluster.data / "skill_system_keyring.json"


def test_the_keyring_is_made_private_at_first_use(keyed):
    path = ring_file(keyed)
    assert as_server("stat", "-c", "%a", str(path)).strip() == "600"
    ring = json.loads(read_keyring(path))
    assert [(key["alg"], key["active"]) for key in ring["keys"]] == [("HS256", True), ("EdDSA", True)]
    assert len(skr1.keys(read_keyring(path)).popitem()[1]) == 32


BROKEN = {
    "mode": (lambda path: as_server("chmod", "644", str(path)), "mode is 0644"),
    "group": (lambda path: as_server("chmod", "640", str(path)), "mode is 0640"),
    "missing": (lambda path: as_server("rm", str(path)), "keyring"),
    "directory": (lambda path: as_server("sh", "-c", 'rm "$0" && mkdir -m 700 "$0"', str(path)), "not a regular file"),
    "json": (lambda path: write_keyring(path, '{"keys": [{"kty": "oct", "k": "' + SECRET + '"'), "JSON Web Key"),
    "no json": (lambda path: write_keyring(path, SECRET), "JSON Web Key"),
    "type": (
        lambda path: write_keyring(
            path, '{"keys": [{"kty": "oct", "alg": "HS256", "kid": "a", "active": "' + SECRET + '"}]}'
        ),
        "JSON Web Key",
    ),
    "empty": (lambda path: write_keyring(path, ""), "JSON Web Key"),
    "none active": (lambda path: write_keyring(path, ring_text(key(active=False))), "0 active"),
    "two active": (lambda path: write_keyring(path, ring_text(key(), key("k2"))), "2 active"),
    "repeated id": (lambda path: write_keyring(path, ring_text(key(), key(active=False))), "same key id"),
    "bad id": (lambda path: write_keyring(path, ring_text(key("a:b"))), "key id"),
    "short": (lambda path: write_keyring(path, ring_text(key(k=SECRET[:20]))), "at least 32 bytes"),
    "no base64": (lambda path: write_keyring(path, ring_text(key(k=SECRET + "!"))), "base64url"),
    "too large": (lambda path: write_keyring(path, ring_text(key()) + " " * 1024 * 1024), "larger"),
}


def test_an_unusable_keyring_refuses_and_shows_no_secret(keyed):
    path = ring_file(keyed)
    good = read_keyring(path)
    used_before = keyed.connect(dbname="governed")
    for name, (damage, why) in BROKEN.items():
        as_server("rm", "-rf", str(path))
        write_keyring(path, good)
        time.sleep(1.1)
        append(used_before)
        damage(path)
        keyring_refused(keyed, why)
        # A session that has the ring in memory looks at the file at least once a second.
        time.sleep(1.1)
        with pytest.raises(psycopg.errors.ConfigFileError):
            append(used_before)
        with keyed.connect(dbname="governed") as reader, pytest.raises(psycopg.errors.ConfigFileError):
            reader.execute("SELECT * FROM skill_system.verify_audit()")
        assert not (name == "missing" and path_exists(path)), "a lost keyring was silently replaced"
    as_server("rm", "-rf", str(path))
    write_keyring(path, good)
    time.sleep(1.1)
    append(used_before)
    assert problems(used_before) == []
    used_before.close()


def path_exists(path):
    return as_server("sh", "-c", 'test -e "$0" && echo yes || echo no', str(path)).strip() == "yes"


def test_a_rotated_key_signs_what_is_new_and_old_records_still_verify(keyed):
    path = ring_file(keyed)
    old = json.loads(read_keyring(path))["keys"][0]
    with keyed.connect(dbname="governed") as connection:
        append(connection)
        write_keyring(path, ring_text({**old, "active": False}, key("k2")))
        time.sleep(1.1)
        append(connection)
        status = connection.execute(
            "SELECT key_id, records, key_present, key_active FROM skill_system.audit_status() ORDER BY first_recorded_at"
        ).fetchall()
        assert status == [(old["kid"], 2, True, False), ("k2", 1, True, True)]
        # A key that somebody put there by hand has to be announced.
        assert problems(connection, "partition", "record_id", "problem") == [(None, None, "key_unannounced")]
        assert connection.execute("SELECT skill_system.rotate_audit_key()").fetchone() == ("k2",)
        assert problems(connection) == []
        write_keyring(path, ring_text(key("k2")))
        time.sleep(1.1)
        # The old key signed three records, the announcement of the new one among them.
        assert (
            sorted(problem for (problem,) in problems(connection, "problem"))
            == ["key_unannounced"] + ["key_unknown"] * 3
        )
        status = connection.execute(
            "SELECT key_id, key_present, key_active FROM skill_system.audit_status() ORDER BY first_recorded_at"
        ).fetchall()
        assert status == [(old["kid"], False, False), ("k2", True, True)]
        # Another key under the old name does not replace it.
        write_keyring(
            path,
            ring_text(
                key("k2"), key(old["kid"], active=False, k=base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("="))
            ),
        )
        time.sleep(1.1)
        assert (
            sorted(problem for (problem,) in problems(connection, "problem"))
            == ["key_unannounced"] + ["signature_mismatch"] * 3
        )
        # Keys of other kinds are left alone.
        write_keyring(
            path,
            ring_text({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "AAAA"}, {**old, "active": False}, key("k2")),
        )
        time.sleep(1.1)
        append(connection)
        assert problems(connection) == []


def set_command(cluster, command):
    with cluster.connect() as admin:
        admin.execute("LOAD 'skill_system'")
        admin.execute(sql.SQL("ALTER SYSTEM SET skill_system.keyring_command = {}").format(sql.Literal(command)))
        admin.execute("SELECT pg_reload_conf()")
    time.sleep(0.3)


def test_a_keyring_command(keyed):
    good = ring_text(key("from-command"), key("other", active=False))
    script = keyed.data / "ring.json"
    write_keyring(script, good)
    set_command(keyed, f"cat '{script}'")
    with keyed.connect(dbname="governed") as connection:
        append(connection)
        assert (
            connection.execute("SELECT key_id FROM skill_system.audit_status() WHERE key_active").fetchone()[0]
            == "from-command"
        )
    # More than a pipe holds at once.
    write_keyring(script, good + " " * 300_000)
    with keyed.connect(dbname="governed") as connection:
        append(connection)
    write_keyring(script, "garbage " + SECRET)
    keyring_refused(keyed, "JSON Web Key")
    for command, why in [
        ("exit 3", "exit status: 3"),
        (f"cat '{script}'; cat '{script}' >&2; exit 1", "status"),
        ("no-such-program", "127"),
        ("printf '\\377\\376'", "not UTF-8 text"),
        ("yes", "larger|more than"),
        ("kill -9 $$", "signal"),
    ]:
        set_command(keyed, command)
        keyring_refused(keyed, why)
    started = time.monotonic()
    set_command(keyed, "sleep 60")
    with (
        keyed.connect(dbname="governed") as connection,
        pytest.raises(psycopg.errors.ConfigFileError, match="keyring_command"),
    ):
        append(connection)
    assert 9 < time.monotonic() - started < 20
    set_command(keyed, "sleep 600 > /dev/null")
    with (
        keyed.connect(dbname="governed") as connection,
        pytest.raises(psycopg.errors.ConfigFileError, match="keyring_command"),
    ):
        append(connection)
    # A hanging command can be cancelled.
    set_command(keyed, "sleep 60")
    with keyed.connect(dbname="governed") as connection:
        connection.execute("SET statement_timeout = '1s'")
        started = time.monotonic()
        with pytest.raises((psycopg.errors.QueryCanceled, psycopg.errors.ConfigFileError)) as caught:
            append(connection)
        assert caught.type is psycopg.errors.QueryCanceled and time.monotonic() - started < 5
    set_command(keyed, "")
    with keyed.connect(dbname="governed") as connection:
        append(connection)


def test_a_refused_record_leaves_nothing_open(connect, fresh_database):
    """What a savepoint's rollback does not close would be a warning at commit."""
    connection = connect(dbname=fresh_database())
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    without_months(connection)
    # So that the first record creates no partition.
    connection.execute("INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('before', '{}')")
    connection.execute("CREATE TABLE guarded (id int PRIMARY KEY); SELECT skill_system.audit_table('guarded')")
    connection.execute("ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.audit_logs_default")
    for statement in ["SELECT skill_system.append_audit('a', '{}')", "INSERT INTO guarded VALUES (1)"]:
        with connection.transaction():
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState), connection.transaction():
                connection.execute(statement)
    connection.execute("ALTER TABLE skill_system.audit_logs ATTACH PARTITION skill_system.audit_logs_default DEFAULT")
    # An error while a row is written, then more rows in the same transaction.
    with connection.transaction():
        with pytest.raises(psycopg.errors.InvalidParameterValue), connection.transaction():
            connection.execute("SELECT skill_system.append_audit(repeat('x', 101), '{}')")
        connection.execute("SELECT skill_system.append_audit('after', '{}')")
        connection.execute("INSERT INTO guarded VALUES (2)")
    assert notices == []
    assert (
        connection.execute(
            "SELECT count(*) FROM skill_system.audit_logs WHERE event_type IN ('before', 'after', 'row.inserted')"
        ).fetchone()[0]
        == 3
    )
    assert problems(connection) == []


@pytest.mark.parametrize(
    "place",
    [
        "FOREIGN TABLE {name} PARTITION OF {parent} DEFAULT SERVER nowhere",
        "FOREIGN TABLE {name} PARTITION OF {parent} FOR VALUES FROM (MINVALUE) TO (MAXVALUE) SERVER nowhere",
        "TABLE {name} PARTITION OF {parent} DEFAULT PARTITION BY LIST (event_type)",
    ],
)
def test_a_partition_that_is_no_table_is_an_error_of_the_writer(place, connect, fresh_database):
    """The server would crash where it takes a foreign table for a table."""
    connection = connect(dbname=fresh_database())
    without_months(connection)
    # So that the first record creates no partition.
    connection.execute("INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('before', '{}')")
    connection.execute("CREATE TABLE guarded (id int PRIMARY KEY); SELECT skill_system.audit_table('guarded')")
    connection.execute("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing")
    connection.execute("ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.audit_logs_default")
    connection.execute("ALTER TABLE skill_system.audit_logs_default RENAME TO audit_logs_before")
    place = place.format(name="skill_system.audit_logs_default", parent="skill_system.audit_logs")
    connection.execute(f"CREATE {place}")
    for statement in [
        "SELECT skill_system.append_audit('a', '{}')",
        "SELECT skill_system.log_run('a', 'b', 'ok')",
        "SELECT skill_system.create_policy('p')",
        "INSERT INTO guarded VALUES (1)",
    ]:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            connection.execute(statement)
    found = connection.execute("SELECT status FROM skill_system.health() WHERE \"check\" = 'audit_protection'")
    assert found.fetchone() == ("error",)
