"""Cross-checks against facts gathered from the skill-system-postgres skill; SKILL_VECTORS names the folder (tests/run
sets it where it is)."""

import json
import os
from pathlib import Path

import pytest

STANDARD = ["db.read", "db.write", "proc.exec", "fs.read", "fs.write", "net.fetch", "git.read", "git.write"]


@pytest.fixture(scope="module")
def reading():
    folder = os.environ.get("SKILL_VECTORS")
    if not folder:
        # tests/run has said aloud that the cross-checks are left out.
        pytest.skip("no vectors on this machine")
    return json.loads((Path(folder) / "skill-system.json").read_text())["policy_check_reading_of_skill_md"]


def test_policy_check_as_skill_md_has_it(db, reading):
    assert reading["standard_effects"] == STANDARD
    assert len(reading["cases"]) >= 5
    for number, case in enumerate(reading["cases"]):
        name = f"case {number}"
        if case["profile_exists"]:
            db.execute(
                "INSERT INTO skill_system.policy_profiles (name, allowed_effects) VALUES (%s, %s)",
                [name, case["allowed_effects"]],
            )
        for cast in ("text[]", "jsonb", "text"):
            asked = case["effects"] if cast == "text[]" else json.dumps(case["effects"])
            allowed, blocked, decision = db.execute(
                f"SELECT allowed, blocked_effects, decision FROM skill_system.check_policy(%s, %s::{cast})",
                [name, asked],
            ).fetchone()
            if not case["profile_exists"]:
                # There the agent asks its user; here the answer is no, never yes and never NULL.
                assert (allowed, decision) == (False, "deny"), case
                continue
            assert blocked == case["blocked_effects"], case
            assert allowed is case["allowed"], case


def test_the_standard_effects_are_known(db):
    db.execute("SELECT skill_system.create_policy('standard', allow => %s)", [STANDARD])
    assert (
        db.execute(
            "SELECT rule FROM skill_system.lint_policy('standard') WHERE code IN ('unknown_root', 'unknown_effect')"
        ).fetchall()
        == []
    )
    db.execute("SELECT skill_system.create_policy('strange', allow => '{db.raed,dbb.read}')")
    assert db.execute(
        "SELECT rule, code FROM skill_system.lint_policy('strange') WHERE code LIKE 'unknown%' ORDER BY 1"
    ).fetchall() == [("db.raed", "unknown_effect"), ("dbb.read", "unknown_root")]
    assert [
        row[0] for row in db.execute("SELECT skill_system.effect_problem(e) FROM unnest(%s::text[]) e", [STANDARD])
    ] == [None] * 8


def test_the_columns_of_skill_system_postgres_exist(db, reading):
    catalogue = json.loads((Path(os.environ["SKILL_VECTORS"]) / "skill-system.json").read_text())["v2_fresh"]["columns"]
    wanted = [
        (c["table"], c["column"], c["type"].removeprefix("skill_system."), c["not_null"])
        for c in catalogue
        if c["table"] in ("policy_profiles", "runs", "run_events")
    ]
    assert len(wanted) > 20
    found = set()
    for table, column, kind, not_null in db.execute(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = 'skill_system'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped"
    ):
        found.add((table, column, kind.removeprefix("skill_system."), not_null))
    assert [entry for entry in wanted if entry not in found] == []
