"""The extension as a whole: health(), maintain() and version_info() report what the modules register."""

import psycopg
import pytest

CHECKS = {
    "versions",
    "keyring",
    "roles",
    "audit_protection",
    "utility_guard",
    "audit_partitions",
    "audit_seal",
    "sealer",
    "row_security",
    "dump_marking",
    "stuck_runs",
    "skills_integrity",
    "objects",
    "privileges",
    "prepared_transactions",
    "checkpoints",
}
TASKS = ["audit_partitions", "run_retention", "audit_seal", "audit_sweep"]


def test_health_has_one_row_for_each_check(db):
    rows = db.execute('SELECT "check", status, detail FROM skill_system.health()').fetchall()
    assert sorted(check for check, _, _ in rows) == sorted(CHECKS)
    assert all(status in ("ok", "warning", "error") and detail for _, status, detail in rows)


def test_health_finds_a_table_without_row_security(db):
    with db.transaction(force_rollback=True):
        db.execute("ALTER TABLE skill_system.runs DISABLE ROW LEVEL SECURITY")
        sql = "SELECT status, detail FROM skill_system.health() WHERE \"check\" = 'row_security'"
        assert db.execute(sql).fetchone() == ("error", "row security of runs is off")


def test_maintain_runs_every_task_in_order(db):
    assert [task for task, _, _ in db.execute("SELECT * FROM skill_system.maintain()")] == TASKS


@pytest.mark.parametrize("max_rows", [None, 0, -1, 1_000_001])
def test_maintain_refuses_a_batch_out_of_range(db, max_rows):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_rows must be between 1 and 1000000"):
        db.execute("SELECT * FROM skill_system.maintain(%s)", [max_rows])


def test_library_and_catalogue_have_one_version(db):
    library, catalogue, advice = db.execute(
        "SELECT library, catalogue, advice FROM skill_system.version_info()"
    ).fetchone()
    assert (library, advice) == (catalogue, "nothing to do")


@pytest.mark.parametrize(
    "broken",
    [
        "ALTER TABLE skill_system.filing_checklists SET SCHEMA public",
        "ALTER EXTENSION skill_system DROP TABLE skill_system.agent_definitions; DROP TABLE skill_system.agent_definitions",
        "ALTER TABLE skill_system.audit_kept RENAME TO mine",
        "ALTER EXTENSION skill_system DROP VIEW skill_system.stuck_runs; DROP VIEW skill_system.stuck_runs",
        "ALTER FUNCTION skill_system.uuid_v7() RENAME TO mine",
        "ALTER TABLE skill_system.run_events DROP COLUMN level",
        "DROP TRIGGER a_bounds ON skill_system.runs",
    ],
)
def test_advice_names_missing_objects(broken, db, roles, connect):
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL skill_system.allow_unprotected = on")
        db.execute(broken)
        for role in ("test_agent", "test_auditor"):
            db.execute(f"SET LOCAL ROLE {role}")
            [advice] = db.execute("SELECT advice FROM skill_system.version_info()").fetchone()
            assert "health()" in advice, advice
            db.execute("RESET ROLE")
    for role in ("test_agent", None):
        assert connect(role).execute("SELECT advice FROM skill_system.version_info()").fetchone() == ("nothing to do",)
