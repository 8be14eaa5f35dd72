"""sql/ORDER lists every install script once, and lockdown.sql refuses a schema that lacks what it must have."""

import re
from pathlib import Path

import pytest
from psycopg import errors

SQL = Path(__file__).resolve().parents[2] / "sql"


def test_the_order_lists_every_file_once():
    listed = [line for line in (SQL / "ORDER").read_text().splitlines() if line and not line.startswith("#")]
    # Next to the parts lie the upgrade scripts and the install scripts of released versions, which never change.
    files = [str(path.relative_to(SQL)) for path in SQL.rglob("*.sql") if path.parent not in (SQL / "releases", SQL)]
    files += [path.name for path in SQL.glob("*.sql") if not re.fullmatch(r"skill_system--.+--.+\.sql", path.name)]
    assert sorted(listed) == sorted(files)
    assert listed[0] == "system/schema.sql" and listed[-1] == "lockdown.sql"


def test_no_line_is_longer_than_140_characters():
    long = [
        f"{path.relative_to(SQL)}:{number}"
        for path in SQL.rglob("*.sql")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 140
    ]
    assert long == []


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
        (
            "CREATE FUNCTION skill_system.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END';"
            " COMMENT ON FUNCTION skill_system.f() IS 'A function.'",
            "trigger function f is neither in the list of ENABLE ALWAYS nor in that of ORIGIN",
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
            "CREATE TRIGGER no_change BEFORE UPDATE ON skill_system.t"
            " FOR EACH ROW EXECUTE FUNCTION skill_system.refuse_change()"
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
            " (SELECT array_agg(tgenabled::text) FROM pg_trigger WHERE tgrelid = c.oid)"
            " FROM pg_class c WHERE oid = 'skill_system.t'::regclass"
        ).fetchone() == (True, False, ["auditor", "tenant"], ["A"])
