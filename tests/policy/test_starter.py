"""The starter policies: what one question allows, no other forbids."""

import pytest

PATHS = ["/srv/app/x", "/home/me/x", "/etc/passwd", "/", "/tmp/../etc/passwd", "C:/Users/me/x", "x", "/usr/bin/ls"]
COMMANDS = [["git", "status"], ["rm", "-rf", "/"], ["/bin/sh", "-c", "true"], ["npm"]]


@pytest.fixture(scope="module", autouse=True)
def starter(db):
    db.execute("SELECT FROM skill_system.install_starter_policies()")


@pytest.mark.parametrize("policy", ["dev", "readonly", "locked"])
def test_questions_agree(policy, db):
    for path in PATHS:
        decisions = db.execute(
            "SELECT (skill_system.check_policy(%(policy)s, array['fs.write:' || %(path)s])).decision, "
            "(skill_system.check_write(%(policy)s, %(path)s)).decision, "
            "(SELECT verdict FROM skill_system.explain_policy(%(policy)s, array['fs.write:' || %(path)s]))",
            {"policy": policy, "path": path},
        ).fetchone()
        assert len(set(decisions)) == 1, (path, decisions)
    for command in COMMANDS:
        decisions = db.execute(
            "SELECT (skill_system.check_policy(%s, array['proc.exec:' || %s])).decision, "
            "(skill_system.check_exec(%s, %s::text[])).decision",
            [policy, command[0], policy, command],
        ).fetchone()
        assert len(set(decisions)) == 1, (command, decisions)
    assert db.execute("SELECT * FROM skill_system.lint_policy(%s) WHERE severity <> 'info'", [policy]).fetchall() == []


def test_an_agent_can_work_under_dev(db):
    decide = "SELECT decision FROM skill_system.check_policy('dev', %s::text[])"
    for effects, decision in [
        (["db.read", "db.write", "fs.read:/etc/hosts", "fs.write", "fs.write:/srv/app/x", "git.write:main"], "allow"),
        (["fs.write:/etc/passwd"], "deny"),
        (["net.fetch:example.org"], "ask"),
        (["proc.exec:git"], "ask"),
    ]:
        assert db.execute(decide, [effects]).fetchone()[0] == decision, effects
