"""Every trigger function of the schema, put on a table in every way: it raises an ordinary error or does something, and the
server lives on."""

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
WAYS = [
    (timing, level, event)
    for timing in ("BEFORE", "AFTER")
    for level in ("ROW", "STATEMENT")
    for event in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
    if (level, event) != ("ROW", "TRUNCATE")
]
INSTEAD = [("INSTEAD OF", "ROW", event) for event in ("INSERT", "UPDATE", "DELETE")]
ARGUMENTS = ["", "'only', 'name'", "'name', 'id'", "'', '', ''"]


def processes(connection):
    """A server that crashed has another checkpointer, and this connection would be gone."""
    return connection.execute(
        "SELECT pg_backend_pid(), (SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer')"
    ).fetchone()


@pytest.fixture(scope="module")
def tables(db):
    """Tables as the triggers do not expect them: each with one full row and one of NULLs."""
    db.execute("CREATE SCHEMA other")
    names = [
        name
        for (name,) in db.execute(
            "SELECT DISTINCT attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p') "
            "AND attnum > 0 AND NOT attisdropped ORDER BY 1"
        )
    ]
    made = [("other.bare", "CREATE TABLE other.bare (a integer)", "INSERT INTO other.bare VALUES (1), (NULL)")]
    for number, (kind, value) in enumerate(TYPES.items()):
        columns = sql.SQL(", ").join(sql.SQL("{} " + kind).format(sql.Identifier(name)) for name in names)
        values = sql.SQL(", ").join([sql.Literal(value)] * len(names))
        nulls = sql.SQL(", ").join([sql.SQL("NULL")] * len(names))
        table = sql.Identifier("other", f"t{number}")
        made.append(
            (
                f"other.t{number}",
                sql.SQL("CREATE TABLE {} ({})").format(table, columns),
                sql.SQL("INSERT INTO {} VALUES ({}), ({})").format(table, values, nulls),
            )
        )
    for name, create, fill in made:
        db.execute(create)
        db.execute(fill)
        db.execute(f"CREATE VIEW {name}_view AS SELECT * FROM {name}")
    return {name: fill for name, _, fill in made}


def trigger_functions(connection):
    return [
        name
        for (name,) in connection.execute(
            "SELECT proname::text FROM pg_proc p JOIN pg_language l ON l.oid = prolang "
            "WHERE pronamespace = 'skill_system'::regnamespace AND prorettype = 'trigger'::regtype "
            "AND lanname = 'c' ORDER BY 1"
        )
    ]


def fire(connection, function, relation, filled, way, arguments):
    """The SQLSTATE, or None when the statement went through."""
    timing, level, event = way
    first = connection.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", [relation]
    ).fetchone()[0]
    statements = {
        "INSERT": filled,
        "UPDATE": sql.SQL("UPDATE {} SET {column} = {column}").format(
            sql.Identifier(*relation.split(".")), column=sql.Identifier(first)
        ),
        "DELETE": f"DELETE FROM {relation}",
        "TRUNCATE": f"TRUNCATE {relation}",
    }
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(
                f"CREATE TRIGGER x {timing} {event} ON {relation} FOR EACH {level} "
                f"EXECUTE FUNCTION skill_system.{function}({arguments})"
            )
            connection.execute(statements[event])
    except psycopg.Error as error:
        assert error.sqlstate is not None, f"{function} {way} on {relation}: the connection is lost: {error}"
        return error.sqlstate
    return None


def check(state, what):
    # Neither an internal error nor one of a server that goes down.
    assert state is None or not state.startswith(("08", "57", "58", "XX")), (state, what)


def test_every_trigger_function_survives_every_way_to_fire(db, tables):
    before = processes(db)
    functions = trigger_functions(db)
    assert len(functions) > 10
    states = set()
    for function in functions:
        for table, fill in tables.items():
            for way in WAYS:
                state = fire(db, function, table, fill, way, "")
                check(state, (function, table, way))
                states.add(state)
            view = f"{table}_view"
            # The view's name instead of the table's.
            text = fill if isinstance(fill, str) else fill.as_string(db)
            onto = text.replace(table, view, 1).replace('"{}"."{}"'.format(*table.split(".")), view, 1)
            for way in INSTEAD:
                state = fire(db, function, view, onto, way, "")
                check(state, (function, view, way))
                states.add(state)
    assert processes(db) == before
    assert {"39P01", None} <= states


def test_arguments_that_no_trigger_of_the_extension_has(db, tables):
    before = processes(db)
    for function in trigger_functions(db):
        for table in ("other.bare", "other.t2"):
            for way in WAYS:
                for arguments in ARGUMENTS:
                    check(fire(db, function, table, tables[table], way, arguments), (function, way, arguments))
    assert processes(db) == before


def test_called_as_an_ordinary_function(db):
    before = processes(db)
    for function in trigger_functions(db):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"SELECT skill_system.{function}()")
        assert caught.value.sqlstate in ("0A000", "39P01"), function
    assert processes(db) == before
