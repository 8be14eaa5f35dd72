"""Every ```sql block of the README and of docs/skills.md runs, in the page's order, in one fresh database, as superuser.

A block that begins with ```sql error=42501 must fail with that SQLSTATE.
"""

import re

import psycopg
import pytest
from conftest import ROOT, open_connection

BLOCK = re.compile(r"^```sql(?: error=(?P<error>\w{5}))?\n(?P<text>.*?)^```$", re.M | re.S)
README = (ROOT / "README.md").read_text()
CREATED = ("readme_agent",)


@pytest.fixture(scope="module")
def clean_roles():
    def drop():
        with open_connection() as connection:
            for role in CREATED:
                connection.execute(f"DROP ROLE IF EXISTS {role}")

    drop()
    yield
    drop()


@pytest.mark.parametrize("page, least", [("README.md", 15), ("docs/skills.md", 8)])
def test_blocks(page, least, clean_roles, fresh_database):
    text = (ROOT / page).read_text()
    blocks = list(BLOCK.finditer(text))
    # A change of the pattern or of the page must not empty the test.
    assert text.count("\n```sql") == len(blocks) >= least
    name = fresh_database(extension=page != "README.md")
    with open_connection(dbname=name) as connection:
        if page != "README.md":
            connection.execute("SELECT * FROM skill_system.install_starter_policies()")
        for block in blocks:
            line = text.count("\n", 0, block.start()) + 1
            expected = block["error"]
            try:
                connection.execute(block["text"])
                happened = None
            except psycopg.Error as error:
                happened, message = error.sqlstate, str(error)
            if happened != expected:
                if happened is None:
                    pytest.fail(f"{page} line {line}: should have failed with {expected}")
                pytest.fail(f"{page} line {line}: {happened} {message}")
        # The roles can only be dropped when nothing of theirs is left.
        connection.execute("RESET ROLE")
        for role in CREATED if page == "README.md" else ():
            connection.execute(f"DROP OWNED BY {role}")


def test_readme_names_every_function_and_view(db):
    names = [
        row[0]
        for row in db.execute(
            """SELECT DISTINCT p.proname FROM pg_proc p
           JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
           WHERE p.pronamespace = 'skill_system'::regnamespace AND p.prorettype <> 'trigger'::regtype
           UNION
           SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind = 'v'"""
        )
    ]
    assert len(names) > 20
    assert [name for name in sorted(names) if f"`{name}`" not in README] == []
    # And the other way round: the table names nothing that is not there.
    table = README.split("## Functions and views")[1].split("\n## ")[0].split("|---|---|")[1].split("\n\n")[0]
    claimed = set(re.findall(r"`(\w+)`", table))
    assert sorted(claimed - set(names)) == []


def test_readme_names_every_setting(db):
    db.execute("SELECT skill_system.current_tenant()")
    names = [row[0] for row in db.execute("SELECT name FROM pg_settings WHERE name LIKE 'skill_system.%'")]
    assert len(names) >= 5
    assert [name for name in names if f"`{name}`" not in README] == []
