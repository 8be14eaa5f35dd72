"""SKILL.md: what an agent reads is true, every statement of it run by psql as an agent."""

import json
import os
import re
import subprocess
from pathlib import Path

import psycopg

TEXT = (Path(__file__).resolve().parents[2] / "SKILL.md").read_text()
# What somebody else prepared: the policy, a skill that is approved, a template.
PREPARE = """
SELECT skill_system.install_starter_policies();
SELECT skill_system.register_skill($md$---
name: well-report
description: Writes the monthly report of a well.
---
Do.

```skill-manifest
{"schema_version": "2.0", "id": "well-report", "version": "1.0.0", "effects": ["db.read"],
 "operations": {"write": {"description": "x"}}, "requires": []}
```
$md$);
SELECT skill_system.set_skill_status('well-report', 'approved',
    (SELECT version FROM skill_system.skill_version_list('well-report')));
SELECT skill_system.create_template('rule_37', '[{"label": "Plat"}]', '[0]', rule_domains => '{spacing}');
SELECT skill_system.publish_rule('SWR_37', 'spacing', '2020-01-01', '{"min_ft": 467}', 'manual');
"""


def statements():
    """Indented lines, as an agent copies them; one that ends with "here X" gives what X stands for."""
    for block in re.findall(r"(?:^    .*\n)+", TEXT.split("```skill-manifest")[0], re.M):
        for statement in re.findall(r".*?;(?:[ \t]*--[^\n]*)?\n", block, re.S):
            name = re.search(r"here (\w+)\s*$", statement)
            yield statement.strip(), name and name[1]


def as_agent(database, statement):
    return subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "test_agent", "-d", database, "-c", statement],
        env=os.environ,
        capture_output=True,
        text=True,
    )


def test_every_statement_works_for_an_agent(fresh_database, connect, roles):
    database = fresh_database()
    connect(dbname=database).execute(PREPARE)
    values, count = {}, 0
    for statement, name in statements():
        # Numbers stand as such, ids in quotes.
        for known, value in values.items():
            statement = re.sub(rf"(?<=[(']){known}(?=[',)])", value, statement)
        done = as_agent(database, statement)
        assert (done.returncode, done.stderr) == (0, ""), (statement, done.stderr)
        assert done.stdout.strip(), f"{statement}: no row"
        if name:
            values[name] = done.stdout.strip().split("|")[0]
        count += 1
    assert count >= 18 and values.keys() == {"7", "C"}


def test_what_else_it_names_exists(db):
    known = {
        row[0] for row in db.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace")
    }
    named = set(re.findall(r"`(?:skill_system\.)?(\w+)\(", TEXT))
    assert len(named) >= 5 and named <= known


def test_the_manifest_calls_work(fresh_database, connect, roles):
    database = fresh_database()
    connect(dbname=database).execute(PREPARE)
    manifest = json.loads(re.search(r"```skill-manifest\n(.*?)```", TEXT, re.S)[1])
    values = {
        "policy_name": "dev",
        "effects": '["db.read"]',
        "skill": "well-report",
        "operation": "write",
        "status": "succeeded",
        "duration_ms": "12",
        "event_type": "form.sent",
        "event_data": "{}",
        "actor_id": "me",
    }
    assert len(manifest["operations"]) >= 4
    for operation in manifest["operations"].values():
        done = as_agent(
            database, re.sub(r"\{(\w+)\}", lambda match: values[match[1]], operation["entrypoints"]["agent"])
        )
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_it_is_short_and_valid(db):
    assert len(TEXT.encode()) < 9000
    with psycopg.ClientCursor(db) as cursor:
        assert (
            cursor.execute("SELECT * FROM skill_system.validate_skill(%s, mode => 'strict')", [TEXT]).fetchall() == []
        )
