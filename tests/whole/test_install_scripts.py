"""sql/ORDER lists every install script once, scripts name what modules below theirs create, and lockdown.sql refuses a
schema that lacks what it must have."""

import re
from pathlib import Path

import pytest
from psycopg import errors

ROOT = Path(__file__).resolve().parents[2]
SQL = ROOT / "sql"


def order():
    return [line for line in (SQL / "ORDER").read_text().splitlines() if line and not line.startswith("#")]


def test_the_order_lists_every_file_once():
    listed = order()
    # Next to the parts lie the upgrade scripts and the install scripts of released versions, which never change.
    files = [str(path.relative_to(SQL)) for path in SQL.rglob("*.sql") if path.parent not in (SQL / "releases", SQL)]
    files += [path.name for path in SQL.glob("*.sql") if not re.fullmatch(r"skill_system--.+--.+\.sql", path.name)]
    assert sorted(listed) == sorted(files)
    assert listed[0] == "system/schema.sql" and listed[-3:] == [
        "lockdown.sql",
        "ledger/monitoring.sql",
        "audit/months.sql",
    ]


def test_no_line_is_longer_than_140_characters():
    long = [
        f"{path.relative_to(SQL)}:{number}"
        for path in SQL.rglob("*.sql")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 140
    ]
    assert long == []


# --- Which module names what of which.


def created():
    """Each object of the scripts: its kind and the module that creates it."""
    create = re.compile(r"^CREATE (FUNCTION|TABLE|VIEW|TYPE) skill_system\.(\w+)", re.M)
    return {
        name: (kind, Path(script).parent.name)
        for script in order()
        for kind, name in create.findall((SQL / script).read_text())
    }


def may_use():
    """Module to the modules below it, by the table of ARCHITECTURE.md."""
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| ([^|]+) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    direct = {module: set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", used))) for module, used in rows}

    def below(module):
        return {module}.union(*(below(used) for used in direct[module]))

    return {Path(script).parent.name: below(Path(script).parent.name) for script in order() if "/" in script}


def names(text):
    return set(re.findall(r"\bskill_system\.(\w+)", text))


def without_comments(sql):
    sql = re.sub(r"^COMMENT ON [^;']+ IS\s*(?:'(?:[^']|'')*'\s*)+;", "", sql, flags=re.M)
    return re.sub(r"--[^\n]*", "", sql)


def test_install_scripts_name_what_modules_below_them_create():
    objects, allowed = created(), may_use()
    assert len(objects) > 200 and set(allowed) == {module for _, module in objects.values()}
    wrong = [
        f"{script} names {name} of {objects[name][1]}"
        for script in order()
        for name in sorted(names(without_comments((SQL / script).read_text())) & set(objects))
        if objects[name][1] not in allowed.get(Path(script).parent.name, {"system"})
    ]
    assert wrong == []


def test_comments_may_name_anything():
    comment = "-- skill_system.a\nCOMMENT ON TABLE skill_system.b IS\n'See ''skill_system.c'''\n'; and more.';\n"
    statement = "SELECT * FROM skill_system.d WHERE x = skill_system.e();\n"
    assert names(without_comments(comment + statement)) == {"d", "e"}


def test_modules_read_tables_of_modules_below_them():
    """What Rust code runs. Functions of other modules stand in hints, too."""
    objects, allowed = created(), may_use()
    wrong = [
        f"{path.relative_to(ROOT)} names {name} of {objects[name][1]}"
        for module in allowed
        for path in (ROOT / "src" / module).rglob("*")
        if path.suffix in (".rs", ".sql")
        for name in sorted(names(re.sub(r"^\s*(?://|--).*", "", path.read_text(), flags=re.M)) & set(objects))
        if objects[name][0] in ("TABLE", "VIEW") and objects[name][1] not in allowed[module]
    ]
    assert wrong == []


# --- What lockdown.sql does.


def lock_down(db, change):
    """Runs lockdown.sql after a change to the schema, and takes both back."""
    with db.transaction(force_rollback=True):
        db.execute(change)
        db.execute((SQL / "lockdown.sql").read_text())


COMMENT = "; COMMENT ON TABLE skill_system.t IS 'A table.'"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("CREATE TABLE skill_system.t (id int PRIMARY KEY)" + COMMENT, "table t has no column tenant_id text NOT NULL"),
        ("CREATE TABLE skill_system.t (tenant_id text)" + COMMENT, "table t has no column tenant_id text NOT NULL"),
        (
            "CREATE TABLE skill_system.t (tenant_id name PRIMARY KEY)" + COMMENT,
            "table t has no column tenant_id text NOT NULL",
        ),
        (
            "CREATE TABLE skill_system.t (tenant_id text NOT NULL, id int PRIMARY KEY)" + COMMENT,
            "table t has no primary key that starts with tenant_id",
        ),
        (
            "CREATE TABLE skill_system.t (tenant_id text NOT NULL, id int, PRIMARY KEY (id, tenant_id))" + COMMENT,
            "table t has no primary key that starts with tenant_id",
        ),
        ("CREATE TABLE skill_system.t (tenant_id text PRIMARY KEY)", "table skill_system.t has no comment"),
        ("COMMENT ON FUNCTION skill_system.uuid_v7() IS NULL", "function skill_system.uuid_v7() has no comment"),
        ("COMMENT ON TYPE skill_system.run_status IS NULL", "type skill_system.run_status has no comment"),
        (
            "CREATE VIEW skill_system.v AS SELECT 1 AS x; COMMENT ON VIEW skill_system.v IS 'A view.'",
            "view v is not a security_invoker view",
        ),
    ],
)
def test_lockdown_refuses(db, change, problem):
    db.execute("SET skill_system.allow_unprotected = on")
    with pytest.raises(errors.InvalidObjectDefinition, match="incomplete definitions") as refused:
        lock_down(db, change)
    assert problem in refused.value.diag.message_detail.splitlines()


def test_lockdown_protects_a_new_table_and_can_be_repeated(db):
    db.execute("SET skill_system.allow_unprotected = on")
    # Dump marking comes last, and PostgreSQL allows it in extension scripts only.
    with db.transaction(force_rollback=True):
        db.execute(
            "CREATE TABLE skill_system.t (tenant_id text PRIMARY KEY); COMMENT ON TABLE skill_system.t IS 'A table.';"
            "ALTER EXTENSION skill_system ADD TABLE skill_system.t; GRANT SELECT ON skill_system.t TO PUBLIC;"
            "CREATE FUNCTION skill_system.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END';"
            "COMMENT ON FUNCTION skill_system.f() IS 'A function.';"
            "CREATE TRIGGER new BEFORE UPDATE ON skill_system.t FOR EACH ROW EXECUTE FUNCTION skill_system.f();"
            "CREATE TRIGGER origin BEFORE UPDATE ON skill_system.t"
            " FOR EACH ROW EXECUTE FUNCTION skill_system.keep_updated_at();"
            "CREATE TRIGGER origin_by_comment BEFORE UPDATE ON skill_system.t FOR EACH ROW EXECUTE FUNCTION skill_system.f();"
            "COMMENT ON TRIGGER origin_by_comment ON skill_system.t IS 'Fires at the origin.'"
        )
        script = (SQL / "lockdown.sql").read_text()
        for _ in range(2):
            with pytest.raises(errors.FeatureNotSupported, match="pg_extension_config_dump"), db.transaction():
                db.execute(script)
        checked, _, marking = script.rpartition("DO $$")
        assert "pg_extension_config_dump" in marking
        for _ in range(2):
            db.execute(checked)
        assert db.execute(
            "SELECT relrowsecurity, has_table_privilege('skill_system_agent', oid, 'SELECT'),"
            " (SELECT array_agg(polname::text ORDER BY polname) FROM pg_policy WHERE polrelid = c.oid),"
            " (SELECT array_agg(tgname || ' ' || tgenabled::text ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid)"
            " FROM pg_class c WHERE oid = 'skill_system.t'::regclass"
        ).fetchone() == (True, False, ["auditor", "tenant"], ["a_bounds O", "new A", "origin O", "origin_by_comment O"])
