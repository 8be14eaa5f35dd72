"""What health() compares the catalogue with is what CREATE EXTENSION creates."""

import os
from pathlib import Path

AUDIT = Path(__file__).parents[2] / "src/audit"


def test_the_expected_structure_is_that_of_a_new_database(connect, fresh_database):
    """The same on each version of the server. UPDATE_GOLDEN=1 writes it; then build again."""
    connection = connect(dbname=fresh_database())
    connection.execute("SET search_path = pg_catalog, pg_temp")
    rows = connection.execute((AUDIT / "structure.sql").read_text()).fetchall()
    assert not any(c in value for row in rows for value in row for c in "\t\n"), "a line is one row"
    found = "".join(line + "\n" for line in sorted("\t".join(row) for row in rows))
    expected = AUDIT / "structure.tsv"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(found)
    assert found == expected.read_text()


def test_what_is_created_again_from_its_definition_is_the_same(connect, fresh_database):
    """As repair() does: the server's text of a definition gives the same definition. (BETWEEN and lists of varchar do not.)"""
    connection = connect(dbname=fresh_database())
    connection.execute("SET search_path = pg_catalog, pg_temp")
    rows = [tuple(line.split("\t")) for line in (AUDIT / "structure.tsv").read_text().splitlines()]
    for kind, relation, name, state in rows:
        table = f"skill_system.{relation}"
        if kind == "constraint" and state.startswith(("CHECK", "FOREIGN KEY", "EXCLUDE")):
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {state}")
        elif kind == "default":
            connection.execute(f"ALTER TABLE {table} ALTER {name} SET DEFAULT {state}")
        elif kind in ("index", "unique index"):
            connection.execute(f"DROP INDEX skill_system.{name}; {state}")
        elif kind == "trigger":
            connection.execute(f"DROP TRIGGER {name} ON {table}; {state.removeprefix('ALWAYS ')}")
            if state.startswith("ALWAYS "):
                connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
    found = connection.execute((AUDIT / "structure.sql").read_text()).fetchall()
    assert set(rows) - set(found) == set()
