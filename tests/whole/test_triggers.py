"""Every trigger function of the schema, put on a table in every way: it raises an ordinary error or does something, and the
server lives on."""

import os
from collections import namedtuple

import psycopg
import pytest
from psycopg import sql

# A value of each type. The tables have every column name that the extension's tables have, all of one type.
TYPES = {
    "integer": "7",
    "boolean": "true",
    "text": "a",
    "bytea": "\\x00ff",
    "uuid": "019b1f6e-5a3c-7e1f-9d2a-0123456789ab",
    "jsonb": '{"a": 1}',
    "timestamptz": "2026-01-01 00:00:00+00",
    "text[]": "{a,NULL}",
}
# More of them, for triggers that see rows.
MORE_TYPES = {
    "bigint": "8000000000",
    "smallint": "7",
    "double precision": "1.5",
    "numeric": "1.50",
    "varchar(10)": "a",
    "character(10)": "a",
    "date": "2026-01-01",
    "timestamp": "2026-01-01 00:00:00",
    "interval": "1 day",
    "json": '{"a": 1}',
    "oid": "7",
    "inet": "::1",
    "point": "(1,2)",
    "int8range": "[1,7)",
    "tsvector": "a:1",
    "integer[]": "{{1,2},{3,4}}",
    "jsonb[]": '{"{}"}',
    "other.number": "7",
    "other.word": "a",
    "other.label": "running",
    "other.pair": "(1,a)",
}
ROW_EVENTS = ("INSERT", "UPDATE", "DELETE")

Way = namedtuple("Way", "timing event level kind options condition", defaults=("", "", ""))
WAYS = [
    Way(timing, event, level)
    for timing in ("BEFORE", "AFTER")
    for level in ("ROW", "STATEMENT")
    for event in (*ROW_EVENTS, "TRUNCATE")
    if (level, event) != ("ROW", "TRUNCATE")
]
OF_ROWS = [way for way in WAYS if way.level == "ROW"]
INSTEAD = [Way("INSTEAD OF", event, "ROW") for event in ROW_EVENTS]
CONSTRAINTS = [
    Way("AFTER", event, "ROW", "CONSTRAINT", options)
    for event in ROW_EVENTS
    for options in ("NOT DEFERRABLE", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED")
]
TRANSITIONS = [
    Way("AFTER", event, level, "", f"REFERENCING {tables}")
    for event, tables in {
        "INSERT": "NEW TABLE AS came",
        "UPDATE": "OLD TABLE AS went NEW TABLE AS came",
        "DELETE": "OLD TABLE AS went",
    }.items()
    for level in ("ROW", "STATEMENT")
]
# {} is the first column.
CONDITIONS = [way._replace(condition="WHEN (true)") for way in WAYS] + [
    Way(timing, "UPDATE", "ROW", condition="WHEN (OLD.{} IS NULL OR NEW.{} IS NOT NULL)")
    for timing in ("BEFORE", "AFTER")
]
COLUMNS = [Way(timing, "UPDATE OF {}", level) for timing in ("BEFORE", "AFTER") for level in ("ROW", "STATEMENT")]
SEVERAL = [
    Way(timing, "INSERT OR UPDATE OR DELETE", level) for timing in ("BEFORE", "AFTER") for level in ("ROW", "STATEMENT")
]
ARGUMENTS = ["", "'only', 'name'", "'name', 'id'", "'', '', ''"]


def processes(connection):
    """A server that crashed has another checkpointer, and this connection would be gone."""
    return connection.execute(
        "SELECT pg_backend_pid(), (SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer')"
    ).fetchone()


@pytest.fixture(scope="module")
def names(db):
    """The names of the columns of all tables of the extension."""
    db.execute("""
        CREATE SCHEMA other;
        CREATE DOMAIN other.number AS integer;
        CREATE DOMAIN other.word AS text;
        CREATE TYPE other.label AS ENUM ('running', 'x');
        CREATE TYPE other.pair AS (a integer, b text);""")
    return [
        name
        for (name,) in db.execute(
            "SELECT DISTINCT attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p') "
            "AND attnum > 0 AND NOT attisdropped ORDER BY 1"
        )
    ]


def create(db, table, columns, rest=""):
    """A table with these columns, (name, type) each."""
    listed = sql.SQL(", ").join(sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in columns)
    db.execute(sql.SQL("CREATE TABLE {} ({}) " + rest).format(sql.Identifier(*table.split(".")), listed))


def filling(db, table, count, value):
    """A statement that inserts one full row and one of NULLs."""
    values = sql.SQL(", ").join([sql.Literal(value)] * count)
    nulls = sql.SQL(", ").join([sql.SQL("NULL")] * count)
    statement = sql.SQL("INSERT INTO {} VALUES ({}), ({})").format(sql.SQL(table), values, nulls)
    return statement.as_string(db)


def typed_tables(db, names, types, prefix):
    """Tables whose columns are all of one type, filled; each with a view over it."""
    found = {}
    for number, (kind, value) in enumerate(types.items()):
        table = f"other.{prefix}{number}"
        create(db, table, [(name, kind) for name in names])
        found[table] = filling(db, table, len(names), value)
        db.execute(found[table])
        db.execute(f"CREATE VIEW {table}_view AS SELECT * FROM {table}")
    return found


@pytest.fixture(scope="module")
def tables(db, names):
    """Tables as the triggers do not expect them: each with one full row and one of NULLs."""
    found = typed_tables(db, names, TYPES, "t")
    db.execute("CREATE TABLE other.bare (a integer); INSERT INTO other.bare VALUES (1), (NULL)")
    db.execute("CREATE VIEW other.bare_view AS SELECT * FROM other.bare")
    return found | {"other.bare": "INSERT INTO other.bare VALUES (1), (NULL)"}


@pytest.fixture(scope="module")
def functions(db):
    found = [
        name
        for (name,) in db.execute(
            "SELECT proname::text FROM pg_proc p JOIN pg_language l ON l.oid = prolang "
            "WHERE pronamespace = 'skill_system'::regnamespace AND prorettype = 'trigger'::regtype "
            "AND lanname = 'c' ORDER BY 1"
        )
    ]
    assert len(found) > 10
    return found


def fire(connection, function, relation, filling, way, arguments="", update=None):
    """The SQLSTATE, or None when the statement went through."""
    first = connection.execute(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", [relation]
    ).fetchone()[0]
    statements = {
        "INSERT": filling,
        "UPDATE": update or f"UPDATE {relation} SET {first} = {first}",
        "DELETE": f"DELETE FROM {relation}",
        "TRUNCATE": f"TRUNCATE {relation}",
    }
    event, condition = way.event.replace("{}", first), way.condition.replace("{}", first)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(
                f"CREATE {way.kind} TRIGGER x {way.timing} {event} ON {relation} {way.options} FOR EACH {way.level} {condition} "
                f"EXECUTE FUNCTION skill_system.{function}({arguments})"
            )
            for name, statement in statements.items():
                if name in way.event:
                    connection.execute(statement)
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        assert error.sqlstate is not None, f"{function} {way} on {relation}: the connection is lost: {error}"
        return error.sqlstate
    return None


def check(state, what):
    # Neither an internal error nor one of a server that goes down. XX001 is a column of another type.
    assert state in (None, "XX001") or not state.startswith(("08", "57", "58", "XX")), (state, what)


def fire_all(db, functions, relations, ways, **options):
    """Each function on each relation in each way; the SQLSTATEs that came."""
    before, states = processes(db), set()
    for function in functions:
        for relation, filling in relations.items():
            for way in ways:
                state = fire(db, function, relation, filling, way, **options)
                check(state, (function, relation, way))
                states.add(state)
    assert processes(db) == before
    return states


def views(tables):
    """The views over tables, with the statements that insert into them."""
    return {f"{table}_view": filling.replace(table, f"{table}_view", 1) for table, filling in tables.items()}


def test_every_trigger_function_survives_every_way_to_fire(db, tables, functions):
    assert {"39P01", None} <= fire_all(db, functions, tables, WAYS)


def test_on_views(db, tables, functions):
    of_statements = [way for way in WAYS if way.level == "STATEMENT" and way.event != "TRUNCATE"]
    assert "39P01" in fire_all(db, functions, views(tables), INSTEAD + of_statements)


def test_columns_of_more_types(db, names, functions):
    more = typed_tables(db, names, MORE_TYPES, "m")
    assert "39P01" in fire_all(db, functions, more, [way for way in OF_ROWS if way.timing == "BEFORE"])
    assert "39P01" in fire_all(db, functions, views(more), INSTEAD)


@pytest.mark.parametrize(
    "ways", [CONSTRAINTS, TRANSITIONS, CONDITIONS, COLUMNS, SEVERAL], ids=lambda ways: str(ways[0])
)
def test_clauses_of_create_trigger(db, tables, functions, ways):
    some = {table: tables[table] for table in ("other.bare", "other.t2", "other.t4")}
    assert "39P01" in fire_all(db, functions, some, ways)


def test_on_partitioned_tables(db, names, functions):
    """An UPDATE that moves rows fires the triggers of DELETE and INSERT."""
    key = [("partition_key", "integer")]
    columns = key + [(name, "text") for name in names]
    create(db, "other.parts", columns, "PARTITION BY LIST (partition_key)")
    # Its columns have other numbers than the parent's.
    create(db, "other.part_1", [("dropped", "integer"), *reversed(columns)])
    db.execute("""
        ALTER TABLE other.part_1 DROP COLUMN dropped;
        ALTER TABLE other.parts ATTACH PARTITION other.part_1 FOR VALUES IN (1);
        CREATE TABLE other.part_2 PARTITION OF other.parts FOR VALUES IN (2, NULL);""")
    filling = (
        f"INSERT INTO other.parts VALUES ({', '.join(['1'] * len(columns))}), ({', '.join(['NULL'] * len(columns))})"
    )
    db.execute(filling)
    move = "UPDATE other.parts SET partition_key = 3 - coalesce(partition_key, 1)"
    relations = {"other.parts": filling}
    assert {"39P01", None} <= fire_all(db, functions, relations, WAYS + CONSTRAINTS + SEVERAL, update=move)
    of_statements = [way for way in TRANSITIONS if way.level == "STATEMENT"]
    assert "39P01" in fire_all(db, functions, relations, of_statements + CONDITIONS[: len(WAYS)], update=move)
    partition = {"other.part_1": filling.replace("other.parts", "other.part_1", 1)}
    fire_all(db, functions, partition, [way for way in OF_ROWS if way.event != "INSERT"])


def test_on_foreign_tables(db, database, tables, functions):
    """The rows of a foreign table come from another session of this server."""
    db.execute("CREATE EXTENSION postgres_fdw")
    db.execute(
        sql.SQL("CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host {}, port {}, dbname {})").format(
            *map(sql.Literal, (os.environ["PGHOST"], os.environ["PGPORT"], database))
        )
    )
    db.execute(
        sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER here OPTIONS (user {})").format(
            sql.Literal(os.environ["PGUSER"])
        )
    )
    db.execute("CREATE SCHEMA far; IMPORT FOREIGN SCHEMA other LIMIT TO (bare, t2, t4) FROM SERVER here INTO far")
    relations = {f"far.{name}": tables[f"other.{name}"].replace("other.", "far.", 1) for name in ("bare", "t2", "t4")}
    assert {"39P01", None} <= fire_all(db, functions, relations, WAYS + SEVERAL + COLUMNS)


def test_arguments_that_no_trigger_of_the_extension_has(db, tables, functions):
    some = {table: tables[table] for table in ("other.bare", "other.t2")}
    for arguments in ARGUMENTS:
        fire_all(db, functions, some, WAYS, arguments=arguments)


def test_called_as_an_ordinary_function(db, functions):
    before = processes(db)
    for function in functions:
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"SELECT skill_system.{function}()")
        assert caught.value.sqlstate in ("0A000", "39P01"), function
    assert processes(db) == before
