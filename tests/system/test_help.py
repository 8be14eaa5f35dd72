"""help(): where people, agents and their tools start."""

import json
import re
import uuid

import pytest

from sessions import refused

SKILL = (
    "---\nname: pdf-forms\ndescription: Fills in forms.\n---\n\nDo it.\n\n```skill-manifest\n"
    '{"schema_version": "2.0", "id": "pdf-forms-id", "version": "1.0.0", "effects": ["db.read"], '
    '"operations": {"fill": {"description": "x"}}, "requires": []}\n```\n'
)
MARKED = {
    "test_agent": "log_run(",
    "test_reviewer": "review_rule(",
    "test_auditor": "verify_audit(",
    "test_admin": "maintain(",
}


def tasks(connection, topic=None):
    return connection.execute("SELECT task, call FROM skill_system.help(%s)", [topic]).fetchall()


@pytest.mark.parametrize("role", MARKED)
def test_each_role_sees_what_it_may_call(connect, roles, role):
    session = connect(role)
    shown = tasks(session)
    assert session.execute("SELECT * FROM skill_system.help").fetchall() == shown
    text = "\n".join("|".join(row) for row in shown)
    assert MARKED[role] in text and len(text) <= 2000
    others = set(MARKED) - {role}
    may_not = {call for other in others for _, call in tasks(connect(other))} - {call for _, call in shown}
    assert may_not
    for call in may_not:
        # With arguments of the right type, so that it is the right that is missing.
        refused(
            session, "42501", re.sub(r"<\w+_id>", str(uuid.uuid4()), call).replace("public.wells", "skill_system.runs")
        )


def test_every_call_does_what_it_says(connect, fresh_database):
    """In the order of the list, each as it is printed, but for what stands in <>."""
    db = connect(dbname=fresh_database())
    db.execute("CREATE TABLE public.wells (id int PRIMARY KEY)")
    db.execute("SELECT skill_system.create_policy('dev', allow => '{fs.read, db.read, db.write}')")
    db.execute("SELECT skill_system.create_template('rule_37', '[{\"label\": \"Plat\"}]', '[]')")
    known = {"<SKILL.md>": SKILL}
    learn = {
        "register_skill": ("<version>", "SELECT version FROM skill_system.skill_version_list('pdf-forms')"),
        "create_checklist": ("<checklist_id>", "SELECT id::text FROM skill_system.filing_checklists"),
        "propose_rule": (
            "<rule_version_id>",
            "SELECT id::text FROM skill_system.rule_versions WHERE status = 'pending_review'",
        ),
    }
    calls = [call for _, call in tasks(db)]
    # A draft is found and read when it is approved.
    later = [call for call in calls if "search_skills(" in call or "load_skill(" in call]
    seen = {}
    for call in [call for call in calls if call not in later] + later:
        statement = call
        for placeholder, value in known.items():
            statement = statement.replace(placeholder, value.replace("'", "''"))
        assert "<" not in statement.replace(SKILL, "").replace("<>", ""), statement
        seen[call] = db.execute(statement).fetchall()
        for function, (placeholder, query) in learn.items():
            if f".{function}(" in call:
                known[placeholder] = db.execute(query).fetchone()[0]
    assert [call for call in later if not seen[call]] == []


def test_a_topic(connect, roles, db):
    agent = connect("test_agent")
    [(comment, call)] = tasks(agent, "log_run")
    assert call.startswith("skill_system.log_run(skill text, operation text")
    assert (
        comment
        == db.execute("SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE proname = 'log_run'").fetchone()[0]
    )
    for spelling in ("skill_system.log_run", " LOG_RUN() ", "log_run(text, text)"):
        assert tasks(agent, spelling) == [(comment, call)], spelling
    assert len(tasks(agent, "check_policy")) == 3
    [(comment, call)] = tasks(agent, "runs")
    assert call == "SELECT * FROM skill_system.runs;"
    # Words: at most ten, the first line of each, those with the word in the name first.
    found = tasks(agent, "filing rules")
    assert 0 < len(found) <= 10 and all("\n" not in task for task, _ in found)
    assert "skill" in tasks(agent, "skill")[0][1] and len(tasks(agent, "skill")) == 10
    # Nothing of others' rights, nothing for nothing.
    assert tasks(agent, "retire_audit_partition") == [] and tasks(connect("test_admin"), "retire_audit_partition") != []
    for nothing in ("", "  ", "no such word", "'; DROP TABLE x", "%%"):
        assert tasks(agent, nothing) == [], nothing


def test_comments_have_lines(db):
    """What it does, the rest, and the example: each begins a line of \\df+ and \\d+."""
    comments = db.execute(
        "SELECT p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') FROM pg_proc p "
        "WHERE pronamespace = 'skill_system'::regnamespace "
        "UNION ALL SELECT oid::regclass::text, obj_description(oid, 'pg_class') FROM pg_class "
        "WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition"
    ).fetchall()
    assert len(comments) > 150
    assert [name for name, comment in comments if " Example: " in comment or " Examples: " in comment] == []
    assert [name for name, comment in comments if ". " in comment and "\n" not in comment and len(comment) > 140] == []


def test_the_way_in(db):
    schema, *_ = db.execute("SELECT obj_description('skill_system'::regnamespace, 'pg_namespace')").fetchone()
    assert "SELECT * FROM skill_system.help();" in schema
    assert db.execute(
        "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'skill\\_system\\_%' AND shobj_description(oid, 'pg_authid') <> ''"
    ).fetchone() == (4,)


def test_finding_the_way_is_cheap(connect, roles):
    """The job of an agent: what may I do, check, register, load, a run of three steps, a denial, a proposed rule, a filing.
    What it has to read about it, in characters; one in four is a token."""
    agent = connect("test_agent")
    read = tasks(agent)
    for topic in (
        "enforce_policy",
        "register_skill",
        "log_step",
        "propose_rule",
        "create_checklist",
        "update_checklist_item",
    ):
        read += [row for row in tasks(agent, topic) if "jsonb)" not in row[1] and "effects text)" not in row[1]]
    assert len(json.dumps(read)) <= 12_000
