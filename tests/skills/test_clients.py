"""The client API of skills-runtime-sdk: the real client on the extension's tables, its packaged names as views,
bundles, and a cache in Redis."""

import base64
import hashlib
import importlib.resources
import io
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import time
import uuid
import zipfile
from pathlib import Path

import psycopg
import pytest
import redis
import yaml
from psycopg import errors
from psycopg.types.json import Jsonb
from pydantic import ValidationError
from skills_runtime.core.errors import FrameworkError
from skills_runtime.skills.bundles import extract_zip_bundle_to_dir
from skills_runtime.skills.manager import SkillsManager
from skills_runtime.skills.mentions import extract_skill_mentions

from skills import approve

AWKWARD = "---\nname: x\n---\r\nquotes \" and ' and \\ and \\x41 é 日本 \U0001f600\ttab\r\n\nend without newline"


@pytest.fixture(scope="module")
def vectors():
    folder = os.environ.get("SKILL_VECTORS")
    if not folder:
        # tests/run has said aloud that the cross-checks are left out.
        pytest.skip("no vectors on this machine")
    return json.loads((Path(folder) / "skills-sdk.json").read_text())


@pytest.fixture(scope="module")
def agent_schema(db, roles):
    """The client's packaged names."""
    assert db.execute("SELECT skill_system.create_client_schema('skills_runtime')").fetchone() == (
        '"agent".skills_catalog',
    )
    return db


@pytest.fixture
def space():
    """A namespace of this test's own."""
    return f"t{uuid.uuid4().hex[:10]}:unit"


def add(connection, namespace, name, body="hello\n", description="what it does", **more):
    columns = {"namespace": namespace, "skill_name": name, "description": description, "body": body, **more}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    values = [Jsonb(value) if isinstance(value, (dict, list)) else value for value in columns.values()]
    return connection.execute(
        f"INSERT INTO agent.skills_catalog ({names}) VALUES ({marks}) RETURNING id, enabled", values
    ).fetchone()


@pytest.fixture
def client(monkeypatch, tmp_path, database):
    made = []

    def make(*namespaces, schema="skill_system", table="skills", role="test_agent", max_bytes=None, dsn=None):
        monkeypatch.setenv(
            "SKILLS_PG_DSN",
            dsn or f"host={os.environ['PGHOST']} port={os.environ['PGPORT']} user={role} dbname={database}",
        )
        config = {
            "spaces": [
                {"id": f"s{i}", "namespace": namespace, "sources": ["pg"]} for i, namespace in enumerate(namespaces)
            ],
            "sources": [
                {"id": "pg", "type": "pgsql", "options": {"dsn_env": "SKILLS_PG_DSN", "schema": schema, "table": table}}
            ],
            "injection": {"max_bytes": max_bytes},
        }
        made.append(SkillsManager(workspace_root=tmp_path, skills_config=config))
        return made[-1]

    yield make
    for manager in made:
        manager.close()


def detail(error):
    """The client's object in an error of the extension."""
    return json.loads(error.value.diag.message_detail)


# The client on the view


@pytest.mark.parametrize("names", [("skill_system", "skills"), ("agent", "skills_catalog")])
def test_the_client_scans_resolves_and_injects(agent_schema, connect, client, space, names):
    reviewer = connect("test_reviewer")
    made, enabled = add(
        reviewer, space, "pdf_forms", AWKWARD, required_env_vars=["PDF_KEY"], metadata={"k": [1, None]}, scope="repo"
    )
    assert enabled
    assert add(connect("test_agent"), space, "unapproved")[1] is False
    manager = client(space, schema=names[0], table=names[1])
    report = manager.scan().to_jsonable()
    assert report["errors"] == [] and report["warnings"] == []
    (found,) = report["skills"]
    assert (found["skill_name"], found["description"], found["locator"]) == (
        "pdf_forms",
        "what it does",
        f"{names[0]}.{names[1]}#{made}",
    )
    assert (found["required_env_vars"], found["scope"], found["body_size"]) == (
        ["PDF_KEY"],
        "repo",
        len(AWKWARD.encode()),
    )
    assert (
        found["metadata"]["k"] == [1, None]
        and found["metadata"]["etag"] == hashlib.sha256(AWKWARD.encode()).hexdigest()
    )
    ((skill, mention),) = manager.resolve_mentions(f"please $[{space}].pdf_forms now, $[{space}].pdf_forms")
    assert mention.mention_text == f"$[{space}].pdf_forms"
    text = manager.render_injected_skill(skill, source="mention")
    assert AWKWARD in text
    for argument in (mention.mention_text, f"{space}/pdf_forms", str(made)):
        ours = connect("test_agent").execute("SELECT skill_system.inject_skill(%s)", [argument]).fetchone()[0]
        assert ours == text.replace(f"{names[0]}.{names[1]}#", "skill_system.skills#")


def test_the_client_gets_the_types_it_expects(agent_schema, connect, space):
    add(connect("test_reviewer"), space, "typed")
    columns = (
        "id, namespace, skill_name, description, body_size, body_etag, created_at, updated_at, "
        "required_env_vars, metadata, scope, body"
    )
    wanted = [
        "uuid",
        "text",
        "text",
        "text",
        "int4",
        "text",
        "timestamptz",
        "timestamptz",
        "text[]",
        "jsonb",
        "text",
        "text",
    ]
    for relation, changed in (("skill_system.skills", {}), ("agent.skills_catalog", {8: "jsonb"})):
        cursor = connect("test_agent").execute(
            f"SELECT {columns} FROM {relation} WHERE enabled = TRUE AND namespace = %s", [space]
        )
        kinds = [
            psycopg.adapters.types[column.type_code].name
            + ("[]" if column.type_code == psycopg.adapters.types[column.type_code].array_oid else "")
            for column in cursor.description
        ]
        assert kinds == [changed.get(i, kind) for i, kind in enumerate(wanted)]


def test_the_errors_are_those_of_the_client(agent_schema, connect, client, space, database):
    reviewer, agent = connect("test_reviewer"), connect("test_agent")
    made, _ = add(reviewer, space, "five", "hällo")
    manager = client(space, max_bytes=5)
    ((skill, _),) = manager.resolve_mentions(f"$[{space}].five")

    def compare(ours, theirs):
        theirs = {"code": theirs.value.code, "message": theirs.value.message, "details": theirs.value.details}
        assert detail(ours) == theirs

    with pytest.raises(FrameworkError) as theirs:
        manager.render_injected_skill(skill, source="mention")
    with pytest.raises(errors.ProgramLimitExceeded) as ours:
        agent.execute("SELECT skill_system.inject_skill(%s, 5)", [f"$[{space}].five"])
    compare(ours, theirs)
    assert detail(ours)["details"] == {
        "skill_name": "five",
        "locator": f"skill_system.skills#{made}",
        "limit_bytes": 5,
        "actual_bytes": 6,
    }
    # As many bytes as the limit pass.
    assert "hällo" in agent.execute("SELECT skill_system.inject_skill(%s, 6)", [str(made)]).fetchone()[0]
    for limit in (0, -1):
        with pytest.raises(errors.InvalidParameterValue):
            agent.execute("SELECT skill_system.inject_skill(%s, %s)", [str(made), limit])

    unknown = f"$[{space}].nope"
    with pytest.raises(FrameworkError) as theirs:
        manager.resolve_mentions(unknown)
    with pytest.raises(psycopg.Error) as ours:
        agent.execute("SELECT skill_system.inject_skill(%s)", [unknown])
    assert ours.value.sqlstate == "SK404"
    compare(ours, theirs)
    with pytest.raises(FrameworkError) as theirs:
        manager.resolve_mentions("$[zz:nowhere].nope")
    rows = agent.execute(
        "SELECT found, skill_id, code, details FROM skill_system.resolve_mentions(%s)",
        [f"$[zz:nowhere].nope {unknown} $[{space}].five"],
    ).fetchall()
    assert rows == [
        (False, None, theirs.value.code, theirs.value.details),
        (False, None, "SKILL_UNKNOWN", {"mention": unknown}),
        (True, made, None, None),
    ]
    with pytest.raises(errors.InvalidParameterValue) as ours:
        agent.execute("SELECT skill_system.inject_skill(%s)", [f"{unknown} and more"])
    assert detail(ours)["code"] == "SKILL_MENTION_FORMAT_INVALID"

    # The body is gone between scan and injection.
    connect("test_admin").execute("SELECT skill_system.delete_skill(%s)", [str(made)])
    with pytest.raises(FrameworkError) as theirs:
        manager.render_injected_skill(skill, source="mention")
    assert theirs.value.code == "SKILL_BODY_READ_FAILED"

    for broken in (
        client(space, table="no_such_table"),
        client(
            space, dsn=f"host={os.environ['PGHOST']} port={os.environ['PGPORT']} user=nobody_here dbname={database}"
        ),
    ):
        with pytest.raises(FrameworkError) as theirs:
            broken.resolve_mentions(unknown)
        assert theirs.value.code == "SKILL_SCAN_SOURCE_UNAVAILABLE"


def test_a_role_without_rights_is_told_so(agent_schema, client, space, db):
    db.execute("DROP ROLE IF EXISTS test_stranger")
    db.execute("CREATE ROLE test_stranger LOGIN")
    try:
        (error,) = client(space, role="test_stranger").scan().errors
        assert error.code == "SKILL_SCAN_SOURCE_UNAVAILABLE" and "permission denied" in error.details["reason"]
    finally:
        db.execute("DROP ROLE test_stranger")


def test_bad_rows_are_told_as_the_client_tells_them(agent_schema, connect, client, space, db):
    reviewer = connect("test_reviewer")
    for name in ("bad_text", "bad_meta", "good"):
        add(reviewer, space, name)
    # The view lets no such rows in; another client API may.
    db.execute(
        "UPDATE skill_system.skill_heads SET description = '' WHERE namespace = %s AND skill_name = 'bad_text'", [space]
    )
    db.execute(
        "UPDATE skill_system.skill_heads SET metadata = '[]' WHERE namespace = %s AND skill_name = 'bad_meta'", [space]
    )
    report = client(space).scan()
    theirs = {
        error.details["locator"]: (
            error.code,
            {key: value for key, value in error.details.items() if key != "source_id"},
        )
        for error in report.errors
    }
    ours = (
        connect("test_agent")
        .execute("SELECT locator, skill_name, code, details FROM skill_system.scan_skills(%s)", [space])
        .fetchall()
    )
    assert {locator: (code, details) for locator, _, code, details in ours if code} == theirs and len(theirs) == 2
    assert (
        [name for _, name, code, _ in ours if code is None] == ["good"] == [skill.skill_name for skill in report.skills]
    )


def test_a_table_of_skills_runtime_sdk_is_scanned_too(db, agent_schema, connect, client, space):
    """The DDL of skills-runtime-sdk, without its unique index and with weaker columns, as an installation from before
    might have it."""
    db.execute(
        "CREATE TABLE public.old_skills (id uuid, namespace text, skill_name text, description text, body text, "
        "enabled boolean, scope text, "
        "required_env_vars text[], metadata jsonb, body_size integer, body_etag text, "
        "created_at timestamptz DEFAULT now(), updated_at timestamptz)"
    )
    db.execute(
        "GRANT SELECT (id, namespace, skill_name, description, enabled, scope, required_env_vars, metadata, "
        "body_size, body_etag, created_at, updated_at) ON public.old_skills TO test_agent"
    )
    for name, description, on in (
        ("twice", "d", True),
        ("twice", "d", True),
        ("Bad", "d", True),
        ("fine", "d", True),
        ("empty", "", True),
        ("off", "", False),
    ):
        db.execute(
            "INSERT INTO public.old_skills VALUES (%s, %s, %s, %s, 'body', %s)",
            [uuid.uuid4(), space, name, description, on],
        )
    # The body is not among the columns that the role may read: a scan reads none.
    agent = connect("test_agent")
    rows = agent.execute(
        "SELECT skill_name, code, details->'conflicts' FROM skill_system.scan_skills(%s, 'public.old_skills')", [space]
    ).fetchall()
    assert [(name, code) for name, code, _ in rows if code] == [
        ("Bad", "SKILL_SCAN_METADATA_INVALID"),
        ("empty", "SKILL_SCAN_METADATA_INVALID"),
        ("twice", "SKILL_DUPLICATE_NAME"),
        ("twice", "SKILL_DUPLICATE_NAME"),
    ]
    assert [name for name, code, _ in rows if code is None] == ["fine"]
    manager = client(space, schema="public", table="old_skills")
    with pytest.raises(FrameworkError) as theirs:
        manager.scan()
    assert theirs.value.code == "SKILL_DUPLICATE_NAME"
    assert {conflict["locator"] for conflict in theirs.value.details["conflicts"]} == {
        conflict["locator"] for conflict in rows[-1][2]
    }
    # Two spaces of one namespace: the client finds everything twice.
    add(connect("test_reviewer"), space, "once")
    with pytest.raises(FrameworkError) as theirs:
        client(space, space).scan()
    assert theirs.value.code == "SKILL_DUPLICATE_NAME"
    db.execute("REVOKE SELECT (scope) ON public.old_skills FROM test_agent")
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("SELECT * FROM skill_system.scan_skills(%s, 'public.old_skills')", [space])


def test_a_scan_reads_no_body(agent_schema, connect, db, space):
    reviewer = connect("test_reviewer")
    for i in range(20):
        add(
            reviewer,
            space,
            f"large_{i}",
            f"{i} " + "".join(hashlib.sha256(f"{i}.{j}".encode()).hexdigest() for j in range(400)),
        )
    statement = (
        "SELECT id, namespace, skill_name, description, body_size, body_etag, created_at, updated_at, "
        "required_env_vars, metadata, scope "
        "FROM skill_system.skills WHERE enabled = TRUE AND namespace = %s"
    )
    (plan,) = connect("test_agent").execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, [space]).fetchone()
    assert "skill_heads" in json.dumps(plan) and "skill_versions" not in json.dumps(plan)
    # scan_skills() needs no right to the bodies at all.
    db.execute("REVOKE SELECT ON skill_system.skill_versions FROM skill_system_agent")
    try:
        assert (
            len(connect("test_agent").execute("SELECT * FROM skill_system.scan_skills(%s)", [space]).fetchall()) == 20
        )
    finally:
        db.execute("GRANT SELECT ON skill_system.skill_versions TO skill_system_agent")


# The views


def test_what_an_agent_writes_is_a_draft(agent_schema, connect, db, space):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    made, enabled = add(agent, space, "mine", "one", enabled=True)
    assert enabled is False

    def look():
        return reviewer.execute(
            "SELECT body, description, enabled, status FROM skill_system.skills WHERE id = %s", [made]
        ).fetchone()

    agent.execute("UPDATE agent.skills_catalog SET body = 'two', description = 'better' WHERE id = %s", [made])
    assert look() == ("two", "better", False, "draft")
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("UPDATE agent.skills_catalog SET enabled = true WHERE id = %s", [made])
    # What the reviewer has read is named by its version, which the view does not know.
    with pytest.raises(errors.InvalidParameterValue):
        reviewer.execute("UPDATE agent.skills_catalog SET enabled = true WHERE id = %s", [made])
    approve(reviewer, str(made))
    # A new body waits; what is served stays, and so does what is said of it.
    agent.execute("UPDATE agent.skills_catalog SET body = 'three', description = 'evil' WHERE id = %s", [made])
    assert look() == ("two", "better", True, "approved")
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("UPDATE agent.skills_catalog SET description = 'evil' WHERE id = %s", [made])
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("DELETE FROM agent.skills_catalog WHERE id = %s", [made])
    # What was approved before comes back by a reviewer only.
    reviewer.execute("UPDATE agent.skills_catalog SET body = 'four' WHERE id = %s", [made])
    assert look()[0] == "four"
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("UPDATE agent.skills_catalog SET body = 'two', description = 'evil' WHERE id = %s", [made])
    assert look() == ("four", "better", True, "approved")
    reviewer.execute(
        "SELECT skill_system.set_skill_status(%s, 'approved', %s)",
        [str(made), hashlib.sha256(b"three").hexdigest()[:12]],
    )
    assert look() == ("three", "evil", True, "approved")


def test_reviewers_switch_and_describe_and_administrators_delete(agent_schema, connect, db, space):
    reviewer, admin = connect("test_reviewer"), connect("test_admin")
    made, _ = add(reviewer, space, "theirs", "one")

    def versions():
        return db.execute("SELECT count(*) FROM skill_system.skill_versions WHERE skill_id = %s", [made]).fetchone()[0]

    row = reviewer.execute(
        "UPDATE agent.skills_catalog SET description = 'clear', metadata = '{\"a\": 1}', "
        "required_env_vars = '[\"KEY\"]', scope = 'user', "
        "body_size = 99, updated_at = now() WHERE id = %s RETURNING description, metadata, required_env_vars, "
        "scope, body_size",
        [made],
    ).fetchone()
    assert row == ("clear", {"a": 1}, ["KEY"], "user", 3) and versions() == 1
    assert reviewer.execute(
        "UPDATE agent.skills_catalog SET enabled = false WHERE id = %s RETURNING enabled", [made]
    ).fetchone() == (False,)
    # It stays off with its next version, and on again is on.
    reviewer.execute("UPDATE agent.skills_catalog SET body = 'two' WHERE id = %s", [made])
    assert reviewer.execute("SELECT enabled FROM skill_system.skills WHERE id = %s", [made]).fetchone() == (False,)
    assert (
        reviewer.execute(
            "UPDATE agent.skills_catalog SET enabled = true WHERE id = %s RETURNING enabled, body", [made]
        ).fetchone()[0]
        is True
    )
    with pytest.raises(errors.InsufficientPrivilege):
        reviewer.execute("DELETE FROM agent.skills_catalog WHERE id = %s", [made])
    assert admin.execute("DELETE FROM agent.skills_catalog WHERE id = %s RETURNING skill_name", [made]).fetchone() == (
        "theirs",
    )
    assert (
        db.execute("SELECT count(*) FROM skill_system.skills WHERE id = %s", [made]).fetchone() == (0,)
        and versions() == 2
    )
    actions = [
        row[0]
        for row in db.execute(
            "SELECT action FROM skill_system.skill_history WHERE skill_id = %s ORDER BY revision", [made]
        )
    ]
    assert actions[0] == "registered" and actions[-1] == "deleted" and actions.count("changed") >= 3
    audited = db.execute(
        "SELECT count(*) FROM skill_system.audit_logs WHERE event_data->>'skill_id' = %s", [str(made)]
    ).fetchone()[0]
    assert audited == len(actions)
    # The name is free again.
    assert add(reviewer, space, "theirs")[0] != made


SKILL_MD = """---
name: typed
description: Reads wells.
metadata:
  version: 1.2.3
---
# Wells

```skill-manifest
{"schema_version": "2.0", "id": "wells-read", "version": "1.3.0", "capabilities": ["wells"], "effects": ["db.read"],
 "operations": {"read": {"description": "Reads.", "input": {}}}}
```
"""


def test_a_skill_md_says_its_effects_through_the_view_too(agent_schema, connect, db, space):
    reviewer = connect("test_reviewer")
    made, _ = add(reviewer, space, "typed", SKILL_MD)

    def look():
        return db.execute(
            "SELECT effects, manifest_id, semver, description, required_env_vars FROM skill_system.skills "
            "WHERE id = %s",
            [made],
        ).fetchone()

    assert look() == (["db.read"], "wells-read", "1.3.0", "what it does", [])
    reviewer.execute("UPDATE agent.skills_catalog SET required_env_vars = '[\"KEY\"]' WHERE id = %s", [made])
    assert look() == (["db.read"], "wells-read", "1.3.0", "what it does", ["KEY"])
    reviewer.execute(
        "UPDATE agent.skills_catalog SET body = %s WHERE id = %s",
        [SKILL_MD.replace("db.read", "db.write").replace("1.3.0", "2.0.0"), made],
    )
    assert look() == (["db.write"], "wells-read", "2.0.0", "what it does", ["KEY"])
    # Of any other text only a manifest counts.
    reviewer.execute("UPDATE agent.skills_catalog SET body = %s WHERE id = %s", [SKILL_MD.split("---\n")[2], made])
    assert look()[:3] == (["db.read"], "wells-read", "1.3.0")
    reviewer.execute("UPDATE agent.skills_catalog SET body = 'plain' WHERE id = %s", [made])
    assert look() == (None, None, None, "what it does", ["KEY"])


def test_an_agent_does_not_bring_back_what_was_approved_before(agent_schema, connect, db, space):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    name = f"{space}/typed"

    def register(who, source):
        return who.execute(
            "SELECT version, current_version, created FROM skill_system.register_skill(%s, %s)", [source, space]
        ).fetchone()

    first, second = SKILL_MD, SKILL_MD.replace("Reads wells.", "Reads wells better.")
    versions = []
    for source in (first, second):
        versions.append(register(agent, source)[0])
        approve(reviewer, name)

    def look():
        return db.execute(
            "SELECT current_version, status, enabled FROM skill_system.skills WHERE namespace = %s", [space]
        ).fetchone()

    assert register(agent, first) == (versions[0], versions[1], False) and look() == (versions[1], "approved", True)
    reviewer.execute("SELECT skill_system.set_skill_status(%s, 'disabled', %s)", [name, versions[1]])
    register(agent, first)
    assert look() == (versions[1], "disabled", False)
    register(reviewer, first)
    assert look() == (versions[0], "approved", True)

    # Nor what a reviewer says of it.
    def said():
        return db.execute("SELECT description FROM skill_system.skills WHERE namespace = %s", [space]).fetchone()[0]

    original = said()
    reviewer.execute("UPDATE agent.skills_catalog SET description = 'edited' WHERE namespace = %s", [space])
    register(agent, first)
    assert said() == "edited"
    register(reviewer, first)
    assert said() == original


def test_in_signed_mode_nothing_is_approved_without_a_signature(agent_schema, connect, db, database, space):
    db.execute(f'ALTER DATABASE "{database}" SET skill_system.signed_approvals = on')
    try:
        reviewer = connect("test_reviewer")
        made, enabled = add(reviewer, space, "signed")
        assert enabled is False
        with pytest.raises(psycopg.Error) as refused:
            reviewer.execute("UPDATE agent.skills_catalog SET enabled = true WHERE id = %s", [made])
        assert refused.value.sqlstate == "22023"
        with pytest.raises(psycopg.Error) as refused:
            approve(reviewer, str(made))
        assert refused.value.sqlstate == "SK403"
        reviewer.execute("UPDATE agent.skills_catalog SET body = 'new' WHERE id = %s", [made])
        assert reviewer.execute("SELECT enabled, status FROM skill_system.skills WHERE id = %s", [made]).fetchone() == (
            False,
            "draft",
        )
    finally:
        db.execute(f'ALTER DATABASE "{database}" RESET skill_system.signed_approvals')


@pytest.mark.parametrize(
    "change, state",
    [
        ({"skill_name": "Bad"}, "22023"),
        ({"skill_name": "a"}, "22023"),
        ({"skill_name": None}, "22023"),
        ({"description": ""}, "22023"),
        ({"body": None}, "22023"),
        ({"namespace": "Bad"}, "22023"),
        ({"namespace": None}, "22023"),
        ({"metadata": [1]}, "22023"),
        ({"required_env_vars": [1]}, "22023"),
        ({"required_env_vars": {"a": "b"}}, "22023"),
        ({"id": uuid.UUID(int=7)}, "22023"),
        ({"skill_name": "there"}, "23505"),
    ],
)
def test_what_the_client_would_not_read_is_not_let_in(agent_schema, connect, space, change, state):
    agent = connect("test_agent")
    add(agent, space, "there")
    with pytest.raises(psycopg.Error) as refused:
        add(
            agent,
            **{
                "namespace": space,
                "name": "good",
                **{"name" if key == "skill_name" else key: value for key, value in change.items()},
            },
        )
    assert refused.value.sqlstate == state, refused.value
    for column, value in (("skill_name", "other"), ("namespace", f"{space}:x"), ("id", uuid.UUID(int=7))):
        with pytest.raises(errors.InvalidParameterValue):
            agent.execute(f"UPDATE agent.skills_catalog SET {column} = %s WHERE namespace = %s", [value, space])
    with pytest.raises(errors.InsufficientPrivilege):
        add(connect("test_auditor"), space, "auditors")


def test_two_inserts_of_one_name(agent_schema, connect, space):
    first, second = connect("test_agent"), connect("test_agent")
    with first.transaction():
        add(first, space, "race", "one")
        second.execute("SET lock_timeout = '200ms'")
        with pytest.raises(errors.LockNotAvailable):
            add(second, space, "race", "two")
    with pytest.raises(errors.UniqueViolation):
        add(second, space, "race", "two")


def test_other_tenants_see_and_change_nothing(agent_schema, connect, db, database, space):
    made, _ = add(connect("test_reviewer"), space, "ours")
    db.execute(f"ALTER ROLE test_admin IN DATABASE \"{database}\" SET skill_system.tenant = 'other'")
    try:
        other = connect("test_admin")
        assert other.execute("SELECT count(*) FROM agent.skills_catalog WHERE id = %s", [made]).fetchone() == (0,)
        assert other.execute("UPDATE agent.skills_catalog SET body = 'x' WHERE id = %s", [made]).rowcount == 0
        assert add(other, space, "ours")[0] != made
        assert other.execute("SELECT count(*) FROM skill_system.redis_export('k:', %s)", [space]).fetchone()[0] == 5
    finally:
        db.execute(f'ALTER ROLE test_admin IN DATABASE "{database}" RESET skill_system.tenant')


def test_a_client_schema_is_the_callers(agent_schema, connect, db, database):
    agent, admin = connect("test_agent"), connect("test_admin")
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("SELECT skill_system.create_client_schema('skills_runtime', 'theirs')")
    # An administrator of skills needs the right to make schemas here, as for any CREATE SCHEMA.
    with pytest.raises(errors.InsufficientPrivilege):
        admin.execute("SELECT skill_system.create_client_schema('skills_runtime', 'theirs')")
    db.execute(f'GRANT CREATE ON DATABASE "{database}" TO test_admin')
    name = 'th"ei.rs; DROP SCHEMA public'
    for _ in range(2):
        view = admin.execute(
            "SELECT skill_system.create_client_schema('skills_runtime', schema_name => %s)", [name]
        ).fetchone()[0]
    assert view == '"th""ei.rs; DROP SCHEMA public".skills_catalog'
    assert db.execute("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = %s", [name]).fetchone() == (
        "test_admin",
    )
    assert agent.execute(f"SELECT count(*) >= 0 FROM {view}").fetchone() == (True,)
    # Schemas that it did not make, or made for somebody else, are not touched.
    db.execute("CREATE SCHEMA found")
    db.execute("CREATE SCHEMA trap")
    db.execute("COMMENT ON SCHEMA trap IS 'Created by skill_system.create_client_schema() for skills_runtime.'")
    db.execute("CREATE TABLE trap.skills_catalog (id bigint)")
    for schema, who in (("found", db), ("public", db), ("trap", db), ("trap", admin), ("agent", admin), (name, db)):
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            who.execute("SELECT skill_system.create_client_schema('skills_runtime', %s)", [schema])
    for arguments in (
        ("aegis", "x"),
        (None, "x"),
        ("skills_runtime", ""),
        ("skills_runtime", None),
        ("skills_runtime", "ä" * 40),
    ):
        with pytest.raises(errors.InvalidParameterValue):
            db.execute("SELECT skill_system.create_client_schema(%s, %s)", arguments)
    # Taken back by whom it was made for, when nothing else is in it; the skills stay.
    drop = "SELECT skill_system.drop_client_schema('skills_runtime', %s)"
    for schema, who in (("found", db), ("public", db), ("trap", admin), ("agent", admin), (name, db)):
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            who.execute(drop, [schema])
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute(drop, [name])
    with pytest.raises(errors.DependentObjectsStillExist):
        db.execute(drop, ["trap"])
    skills = db.execute("SELECT count(*) FROM skill_system.skills").fetchone()
    assert admin.execute(drop, [name]).fetchone() == (True,)
    assert admin.execute(drop, [name]).fetchone() == (False,)
    assert db.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name]).fetchone() is None
    assert db.execute("SELECT count(*) FROM skill_system.skills").fetchone() == skills
    assert db.execute(
        "SELECT event_data->>'schema' FROM skill_system.audit_logs WHERE event_type = 'skill.client_schema_dropped'"
    ).fetchall() == [(name,)]
    for arguments in (("aegis", "x"), (None, "x"), ("skills_runtime", ""), ("skills_runtime", None)):
        with pytest.raises(errors.InvalidParameterValue):
            db.execute("SELECT skill_system.drop_client_schema(%s, %s)", arguments)
    db.execute(f'REVOKE CREATE ON DATABASE "{database}" FROM test_admin')


def test_the_trigger_works_on_its_own_views_only(agent_schema, db):
    db.execute("CREATE VIEW public.lure AS SELECT 1 AS id, 'ab'::text AS namespace")
    db.execute(
        "CREATE TRIGGER lure INSTEAD OF INSERT ON public.lure FOR EACH ROW "
        "EXECUTE FUNCTION skill_system.write_client_skill()"
    )
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        db.execute("INSERT INTO public.lure VALUES (1, 'ab')")
    with pytest.raises(errors.TriggerProtocolViolated):
        db.execute("SELECT skill_system.write_client_skill()")


def test_rows_of_the_packaged_table_move_over(connect, fresh_database, client, space):
    """The package's own migration, then our view in its place: the same columns, but for the ids, and the same rows for
    the client."""
    database = fresh_database()
    db = connect(dbname=database)
    migration = (
        importlib.resources.files("skills_runtime") / "assets" / "migrations" / "pgsql" / "0001_skills_catalog.up.sql"
    )
    db.execute(migration.read_text())
    shape = (
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'agent.skills_catalog'::regclass AND attnum > 0 ORDER BY attnum"
    )
    packaged = db.execute(shape).fetchall()
    for name, on in (("one", True), ("two", True), ("off", False)):
        db.execute(
            "INSERT INTO agent.skills_catalog (namespace, skill_name, description, body, enabled, "
            "required_env_vars, metadata, scope) VALUES (%s, %s, 'd', %s, %s, '[\"A\"]', '{\"k\": 1}', "
            "'repo')",
            [space, name, AWKWARD + name, on],
        )
    dsn = f"host={os.environ['PGHOST']} port={os.environ['PGPORT']} user={os.environ['PGUSER']} dbname={database}"

    def strip(skill):
        return {
            **skill.to_metadata_dict(),
            "locator": None,
            "metadata": skill.metadata["k"],
            "body": skill.body_loader(),
            "body_size": None,
        }

    before = [strip(skill) for skill in client(space, schema="agent", table="skills_catalog", dsn=dsn).scan().skills]
    db.execute("ALTER SCHEMA agent RENAME TO before")
    db.execute("SELECT skill_system.create_client_schema('skills_runtime')")
    assert db.execute(shape).fetchall() == [("id", "uuid"), *packaged[1:]]
    columns = (
        "namespace, skill_name, description, body, enabled, body_size, body_etag, created_at, updated_at, "
        "required_env_vars, metadata, scope"
    )
    db.execute(
        f"INSERT INTO agent.skills_catalog ({columns}) SELECT {columns} FROM before.skills_catalog "
        "WHERE skill_name <> 'two'"
    )
    with db.cursor() as cursor:
        with cursor.copy(
            "COPY agent.skills_catalog (namespace, skill_name, description, body, required_env_vars, "
            "metadata, scope) FROM STDIN"
        ) as copy:
            copy.write_row([space, "two", "d", AWKWARD + "two", '["A"]', '{"k": 1}', "repo"])
    assert [
        strip(skill) for skill in client(space, schema="agent", table="skills_catalog", dsn=dsn).scan().skills
    ] == before and len(before) == 2
    # It comes back with a dump, and works there.
    other = fresh_database(extension=False)
    bin_dir = subprocess.run(
        [os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    dump = subprocess.run([f"{bin_dir}/pg_dump", "-Fc", "-d", database], capture_output=True)
    assert dump.returncode == 0, dump.stderr
    done = subprocess.run(
        [f"{bin_dir}/pg_restore", "--exit-on-error", "-d", other], input=dump.stdout, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert [
        strip(skill)
        for skill in client(space, schema="agent", table="skills_catalog", dsn=dsn.replace(database, other))
        .scan()
        .skills
    ] == before
    db = connect(dbname=other)
    assert db.execute(
        "UPDATE agent.skills_catalog SET body = 'new' WHERE skill_name = 'one' RETURNING body, enabled"
    ).fetchone() == ("new", True)


# Vectors of the client


def test_vectors_mentions(agent_schema, db, vectors):
    for case in vectors["mentions"]:
        found = db.execute(
            "SELECT namespace, skill_name, mention FROM skill_system.resolve_mentions(%s)", [case["text"]]
        ).fetchall()
        assert found == [
            (mention["namespace"], mention["skill_name"], mention["mention_text"]) for mention in case["mentions"]
        ], case["text"]
    assert len(vectors["mentions"]) > 50


def test_mentions_of_any_text_are_those_of_the_client(db, agent_schema):
    random.seed(4)
    pieces = [
        "$[",
        "[",
        "]",
        "].",
        ".",
        ":",
        "$",
        "ab",
        "a",
        "x9",
        "_",
        "-",
        "A",
        "\u00e9",
        " ",
        "\n",
        "cd:ef",
        "$[ab].xy",
        "$[ab:cd].x_y",
        "a" * 63,
        "\u0131",
        "\u212a",
    ]
    found = 0
    for _ in range(1500):
        text = "".join(random.choices(pieces, k=random.randint(1, 25)))
        theirs = [
            (mention.mention_text, mention.namespace, mention.skill_name) for mention in extract_skill_mentions(text)
        ]
        assert (
            db.execute(
                "SELECT mention, namespace, skill_name FROM skill_system.resolve_mentions(%s)", [text]
            ).fetchall()
            == theirs
        ), text
        found += len(theirs)
    assert found > 200


def test_vectors_names(agent_schema, db, vectors):
    """The one difference: the client's patterns let a line feed at the end through; no name here has one."""
    for text, good in vectors["namespace"]:
        assert (
            db.execute(
                "SELECT code FROM skill_system.preflight_skills(%s)",
                [Jsonb({"spaces": [{"id": "s", "namespace": text}]})],
            ).fetchall()
            == []
        ) is (good and not text.endswith("\n")), text
    db.execute(
        "CREATE TEMP TABLE names (id int, namespace text, skill_name text, description text, body_size int, "
        "body_etag text, created_at timestamptz, updated_at timestamptz, "
        "required_env_vars text[], metadata jsonb, scope text, enabled boolean)"
    )
    for i, (text, _) in enumerate(vectors["skill_name_slug"]):
        db.execute(
            "INSERT INTO names VALUES (%s, 'ab', %s, 'd', NULL, NULL, now(), NULL, NULL, NULL, NULL, true)", [i, text]
        )
    found = dict(
        db.execute(
            "SELECT split_part(locator, '#', 2)::int, code FROM skill_system.scan_skills('ab', 'names')"
        ).fetchall()
    )
    for i, (text, good) in enumerate(vectors["skill_name_slug"]):
        assert (found[i] is None) is (good and not text.endswith("\n")), text


def test_vectors_rows(db, vectors):
    db.execute(
        "CREATE TABLE public.skills (id text, namespace text, skill_name jsonb, description jsonb, "
        "body_size jsonb, body_etag jsonb, created_at jsonb, updated_at jsonb, "
        "required_env_vars jsonb, metadata jsonb, scope jsonb, enabled boolean DEFAULT true)"
    )
    try:
        for case in vectors["pgsql_rows"]:
            db.execute("TRUNCATE public.skills")
            # A null is SQL's, as the driver of the client gives it.
            values = [
                value if key in ("id", "namespace") or value is None else Jsonb(value)
                for key, value in case["row"].items()
            ]
            db.execute(
                f"INSERT INTO public.skills ({', '.join(case['row'])}) VALUES ({', '.join(['%s'] * len(values))})",
                values,
            )
            (ours,) = db.execute(
                "SELECT locator, skill_name, description, body_size, required_env_vars, metadata, scope, "
                "created_at, body_etag, code, details "
                "FROM skill_system.scan_skills('ab:cd', 'public.skills')"
            ).fetchall()
            if case["report"]["errors"]:
                (error,) = case["report"]["errors"]
                details = {key: value for key, value in error["details"].items() if key != "source_id"}
                assert ours[-2:] == (error["code"], details), case["case"]
                continue
            (skill,) = case["report"]["skills"]
            assert ours[:5] == tuple(
                skill[key] for key in ("locator", "skill_name", "description", "body_size", "required_env_vars")
            ), case["case"]
            assert ours[6] == skill["scope"] and ours[8:] == (skill["metadata"]["etag"], None, None)
            # What the client adds to the metadata stands in columns here.
            assert ours[5] == {
                key: value
                for key, value in skill["metadata"].items()
                if key not in ("created_at", "etag", "row_id", "updated_at")
            }
            same = db.execute(
                "SELECT %s::timestamptz = %s::timestamptz AND %s LIKE '%%Z'",
                [ours[7], skill["metadata"]["created_at"], ours[7]],
            ).fetchone()
            assert same == (True,), case["case"]
    finally:
        db.execute("DROP TABLE public.skills")


def test_vectors_preflight(db, vectors):
    for case in vectors["preflight"]:
        for wrap in (lambda config: config, lambda config: {"config_version": 1, "skills": config}):
            for function, argument in (
                ("preflight_skills", Jsonb(wrap(case["config"]))),
                ("preflight_skills_yaml", yaml.safe_dump(wrap(case["config"]))),
            ):
                found = db.execute(
                    f"SELECT code, message, details FROM skill_system.{function}(%s)", [argument]
                ).fetchall()
                assert [
                    {"code": code, "message": message, "details": details} for code, message, details in found
                ] == case["issues"], (case["case"], function)
    level = "SELECT level FROM skill_system.preflight_skills(%s)"
    assert db.execute(level, [Jsonb({"versioning": {"enabled": True}})]).fetchall() == [("warning",)]
    assert db.execute(level, [Jsonb({"spaces": 1})]).fetchall() == [("error",)]


def test_vectors_bundles(db, vectors):
    for case in vectors["zip_bundles"]:
        data, limits = base64.b64decode(case["zip_base64"]), case["limits"]
        arguments = [
            data,
            limits.get("max_bytes"),
            limits.get("max_extracted_bytes"),
            limits.get("max_files"),
            limits.get("max_single_file_bytes"),
        ]
        call = "SELECT path FROM skill_system.check_skill_bundle(%s, %s, %s, %s, %s)"
        if "ok" in case["result"]:
            assert [row[0] for row in db.execute(call, arguments)] == case["result"]["ok"], case["case"]
            continue
        with pytest.raises(psycopg.Error) as refused:
            db.execute(call, arguments)
        assert detail(refused) == case["result"], case["case"]


def test_vectors_injected_text(agent_schema, connect, vectors, space):
    made, _ = add(connect("test_reviewer"), space, "good_one", "hello\n")
    ours = connect("test_agent").execute("SELECT skill_system.inject_skill(%s)", [str(made)]).fetchone()[0]
    assert ours == vectors["injected_text"].replace(
        "public.skills#11111111-1111-1111-1111-111111111111", f"skill_system.skills#{made}"
    )
    exact = vectors["errors"]["body_exact_limit"]["ok"]
    add(connect("test_reviewer"), space, "exact", "hello")
    ours = connect("test_agent").execute("SELECT skill_system.inject_skill(%s, 5)", [f"{space}/exact"]).fetchone()[0]
    assert ours.splitlines()[3:] == exact.splitlines()[3:]


# Preflight against the client itself


SCALARS = [
    "a",
    "no",
    "Off",
    "yEs",
    "~",
    "null",
    "",
    "12",
    "0o17",
    "017",
    "08",
    "0x1F",
    "0b11",
    "1_000",
    "12:34",
    "1:2:3",
    "1.5",
    "1e3",
    "1.0e+3",
    ".5",
    "-.inf",
    ".nan",
    "2026-01-02",
    "2026-1-2",
    "2026-01-02T03:04:05Z",
    "2026-01-02 03:04:05",
    "'no'",
    '"12"',
    "[]",
    "{}",
    "+1",
    "-0",
    "0.",
    "1,000",
    "a b",
    "- x",
    "true",
]


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_are_typed_as_the_client_types_them(db, scalar):
    text = f"sources:\n- id: x\n  type: filesystem\n  options:\n    root: {scalar}\n"
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError:
        assert [row[0] for row in db.execute("SELECT code FROM skill_system.preflight_skills_yaml(%s)", [text])] == [
            "CLI_CONFIG_LOAD_FAILED"
        ]
        return
    theirs = [
        (issue.code, issue.details)
        for issue in SkillsManager(workspace_root=Path("."), skills_config=loaded).preflight()
    ]
    assert (
        db.execute("SELECT code, details FROM skill_system.preflight_skills_yaml(%s)", [text]).fetchall() == theirs
    ), loaded


@pytest.mark.parametrize(
    "config",
    [
        {"spaces": {}},
        {"spaces": [1]},
        {"spaces": [{"namespace": "ab"}]},
        {"spaces": [{"id": 1, "namespace": "ab"}]},
        {"spaces": [{"id": "s", "namespace": "A"}]},
        {"spaces": [{"id": "s", "namespace": "ab", "sources": [1]}]},
        {"spaces": [{"id": "s", "namespace": "ab", "sources": "x"}]},
        {"spaces": [{"id": "s", "namespace": "ab", "enabled": "maybe"}]},
        {"spaces": [{"id": "s", "namespace": "ab", "account": "a"}]},
        {"sources": [{"id": "x"}]},
        {"sources": [{"id": "x", "type": "redis", "options": []}]},
        {"sources": None},
        {"scan": {"ttl_sec": 0}},
        {"scan": {"ttl_sec": "5"}},
        {"scan": {"refresh_policy": "never"}},
        {"scan": {"ignore_dot_entries": 1}},
        {"scan": {"depth": 1}},
        {"injection": {"max_bytes": 0}},
        {"bundles": {"max_bytes": None}},
        {"bundles": {"max_files": 0}},
        {"actions": {"enabled": "maybe"}},
        {"references": {"default_max_bytes": 0}},
        {"versioning": {"enabled": "yes"}},
        {"versioning": {"strategy": 1}},
        {"versioning": {"x": 1}},
        {"env_var_missing_policy": "panic"},
        {"strictness": {"unknown_mention": None}},
        {"unheard": 1},
    ],
)
def test_what_the_schema_of_the_client_refuses_is_refused(db, config):
    with pytest.raises(ValidationError):
        SkillsManager(workspace_root=Path("."), skills_config=config)
    assert (
        db.execute(
            "SELECT count(*) FROM skill_system.preflight_skills(%s) WHERE level = 'error'", [Jsonb(config)]
        ).fetchone()[0]
        >= 1
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"spaces": [{"id": "s", "namespace": "ab", "enabled": "yes"}]},
        {"spaces": [{"id": "s", "namespace": "ab", "enabled": 0, "sources": []}]},
        {"injection": {"max_bytes": None}},
        {"bundles": {"max_bytes": 5, "max_files": None, "cache_dir": "x"}},
        {"actions": {"enabled": "on"}},
        {"scan": {"refresh_policy": "ttl", "ttl_sec": 1, "max_depth": 0}},
        {"sources": [{"id": "x", "type": "redis", "options": {"dsn_env": "A_1", "key_prefix": "k", "more": [1]}}]},
        {"env_var_missing_policy": "skip_skill"},
        {"strictness": {"duplicate_name": "x"}},
        {"references": {"enabled": True, "allow_assets": False}},
        {"versioning": {"enabled": False, "strategy": ""}},
    ],
)
def test_what_the_client_takes_is_taken(db, config):
    assert SkillsManager(workspace_root=Path("."), skills_config=config).preflight() == []
    assert db.execute("SELECT code, path FROM skill_system.preflight_skills(%s)", [Jsonb(config)]).fetchall() == []


# Bundles


def zipped(files, **more):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6))
            info.external_attr = more.get("mode", 0o100755) << 16
            info.compress_type = more.get("method", zipfile.ZIP_DEFLATED)
            archive.writestr(info, content)
    return out.getvalue()


FILES = {
    "actions/run.sh": b"#!/bin/sh\necho hi\n",
    "references/deep/er/\u00e9.md": "# Réf\r\n".encode() * 1000,
    "references/blob.bin": bytes(range(256)) * 20,
}


def test_a_bundle_makes_a_version_and_comes_back(agent_schema, connect, db, space, tmp_path):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    made, _ = add(reviewer, space, "bundled", "body")
    assert agent.execute("SELECT skill_system.skill_bundle(%s)", [str(made)]).fetchone() == (None,)
    first = db.execute("SELECT current_version FROM skill_system.skills WHERE id = %s", [made]).fetchone()[0]
    version, status, current, created = agent.execute(
        "SELECT version, status, current_version, created FROM skill_system.register_skill_bundle(%s, %s)",
        [str(made), zipped(FILES)],
    ).fetchone()
    assert (status, current, created) == ("draft", first, True) and version != first
    # The same files packed another way are the same version.
    again = agent.execute(
        "SELECT version, created FROM skill_system.register_skill_bundle(%s, %s)",
        [str(made), zipped(dict(reversed(FILES.items())), method=zipfile.ZIP_STORED)],
    ).fetchone()
    assert again == (version, False)
    stored = {
        path: (bytes(content), size, sha)
        for path, content, size, sha in db.execute(
            "SELECT path, content, size, sha256 FROM skill_system.skill_files f "
            "JOIN skill_system.skill_versions v ON v.id = f.version_id WHERE v.skill_id = %s",
            [made],
        )
    }
    assert stored == {
        path: (content, len(content), hashlib.sha256(content).hexdigest()) for path, content in FILES.items()
    }
    out = agent.execute("SELECT skill_system.skill_bundle(%s, %s)", [str(made), version]).fetchone()[0]
    assert out == agent.execute("SELECT skill_system.skill_bundle(%s, %s)", [str(made), version]).fetchone()[0]
    with zipfile.ZipFile(io.BytesIO(out)) as archive:
        assert archive.testzip() is None and {name: archive.read(name) for name in archive.namelist()} == FILES
    # The client unpacks it.
    extract_zip_bundle_to_dir(
        bundle_bytes=out, dest_dir=tmp_path, expected_sha256=hashlib.sha256(out).hexdigest(), max_bytes=1 << 20
    )
    assert {path: (tmp_path / path).read_bytes() for path in FILES} == FILES
    # And it goes in again as the same version.
    assert agent.execute(
        "SELECT created FROM skill_system.register_skill_bundle(%s, %s)", [str(made), out]
    ).fetchone() == (False,)
    # A new body keeps the files of what is served.
    reviewer.execute("SELECT skill_system.set_skill_status(%s, 'approved', %s)", [str(made), version])
    reviewer.execute("UPDATE agent.skills_catalog SET body = 'new body' WHERE id = %s", [made])
    assert agent.execute("SELECT skill_system.skill_bundle(%s)", [str(made)]).fetchone()[0] == out
    # An agent cannot bring back what was approved before.
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("SELECT skill_system.register_skill_bundle(%s, %s, %s)", [str(made), zipped({}), first])
    with pytest.raises(psycopg.Error) as refused:
        agent.execute("SELECT skill_system.register_skill_bundle('no-such-skill', %s)", [out])
    assert refused.value.sqlstate == "SK404"


def hostile():
    """Untrusted input; the extension refuses each, and wherever the client refuses it too, for the same
    reason."""
    yield "traversal", zipped({"actions/../../etc/passwd": b"x"})
    yield "absolute", zipped({"/etc/passwd": b"x"})
    yield "backslash", zipped({"actions\\..\\x": b"x"})
    yield "drive", zipped({"C:/x": b"x"})
    yield "elsewhere", zipped({"SKILL.md": b"x"})
    yield "link", zipped({"actions/x": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    yield "device", zipped({"actions/x": b""}, mode=stat.S_IFCHR | 0o666)
    yield "method", zipped({"actions/x": b"x" * 100}, method=zipfile.ZIP_LZMA)
    yield "bomb in one", zipped({"actions/x": bytes((8 << 20) + 1)})
    yield "bomb in many", zipped({f"actions/{i}": bytes(6 << 20) for i in range(3)})
    yield "many", zipped({f"actions/{i}": b"" for i in range(4097)})
    yield "one name in two cases", zipped({"actions/x": b"1", "actions/X": b"2"})
    yield "a stream of another file", zipped({"references/a.md:hidden": b"x"})
    yield "large", bytes((1 << 20) + 1)
    with pytest.warns(UserWarning):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("actions/x", "1")
            archive.writestr("actions/x", "2")
    yield "twice", out.getvalue()
    # A declared size that is not the size: both directories say 10.
    bomb = bytearray(zipped({"actions/x": bytes(4 << 20)}))
    size = (4 << 20).to_bytes(4, "little")
    at = -1
    while (at := bomb.find(size, at + 1)) >= 0:
        bomb[at : at + 4] = (10).to_bytes(4, "little")
    yield "lie about the size", bytes(bomb)
    # The name in the local header is another one.
    yield "two names", zipped({"actions/x": b"x"}).replace(b"actions/x", b"actions/y", 1)
    good = zipped({"actions/x": b"x"})
    yield "truncated", good[:-5]
    yield "nothing", b""


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_bundles(agent_schema, connect, db, space, tmp_path):
    agent = connect("test_agent")
    made, _ = add(agent, space, "victim")
    count = "SELECT count(*) FROM skill_system.skill_versions WHERE skill_id = %s"
    refused_by_both = 0
    for name, data in hostile():
        with pytest.raises(psycopg.Error) as refused:
            agent.execute("SELECT skill_system.register_skill_bundle(%s, %s)", [str(made), data])
        assert refused.value.sqlstate in ("22023", "54000"), name
        ours = detail(refused)
        target = tmp_path / uuid.uuid4().hex
        target.mkdir()
        try:
            extract_zip_bundle_to_dir(
                bundle_bytes=data, dest_dir=target, expected_sha256=hashlib.sha256(data).hexdigest(), max_bytes=1 << 20
            )
        except FrameworkError as theirs:
            assert ours["code"] == theirs.code, name
            refused_by_both += 1
        except Exception:
            pass
        shutil.rmtree(target)
    assert refused_by_both >= 10
    assert db.execute(count, [made]).fetchone() == (1,)


def test_a_damaged_bundle_that_is_read_is_read_as_the_client_reads_it(db, tmp_path):
    random.seed(5)
    good = zipped({"actions/run.sh": b"echo " * 40, "references/a.md": b"text", "references/b/c.md": b"x" * 500})
    read = 0
    for number in range(1500):
        data = bytearray(good)
        for _ in range(random.randint(1, 3)):
            data[random.randrange(len(data))] = random.choice((0, 1, 8, 46, 47, 255, random.randrange(256)))
        data = bytes(data)
        try:
            ours = dict(db.execute("SELECT path, sha256 FROM skill_system.check_skill_bundle(%s)", [data]).fetchall())
        except (errors.InvalidParameterValue, errors.ProgramLimitExceeded):
            continue
        target = tmp_path / str(number)
        target.mkdir()
        extract_zip_bundle_to_dir(
            bundle_bytes=data, dest_dir=target, expected_sha256=hashlib.sha256(data).hexdigest(), max_bytes=1 << 20
        )
        theirs = {
            path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in target.rglob("*")
            if path.is_file()
        }
        assert ours == theirs
        shutil.rmtree(target)
        read += 1
    # Times and attributes can be damaged without harm.
    assert 100 < read < 1400


# Redis


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A Redis server of this module's own, on a Unix socket."""
    directory = tmp_path_factory.mktemp("redis")
    path = directory / "s"
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", directory],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(200):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
            break
        except OSError:
            time.sleep(0.05)
    else:
        server.kill()
        raise AssertionError("redis-server does not answer")
    yield path
    server.terminate()
    server.wait(10)


def fill_cache(cache, database, statement, role="test_agent", **environment):
    """As the documentation says it: psql | redis-cli --pipe."""
    bin_dir = subprocess.run(
        [os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    psql = subprocess.run(
        [f"{bin_dir}/psql", "-XAtc", statement, "-U", role, "-d", database],
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert psql.returncode == 0, psql.stderr
    assert psql.stdout.isascii()
    done = subprocess.run(["redis-cli", "-s", cache, "--pipe"], input=psql.stdout, capture_output=True)
    assert done.returncode == 0 and b"errors: 0" in done.stdout, done.stdout + done.stderr
    return psql


def cached(monkeypatch, tmp_path, cache, prefix, *namespaces):
    monkeypatch.setenv("SKILLS_REDIS_DSN", f"unix://{cache}")
    return SkillsManager(
        workspace_root=tmp_path,
        skills_config={
            "spaces": [
                {"id": f"s{i}", "namespace": namespace, "sources": ["r"]} for i, namespace in enumerate(namespaces)
            ],
            "sources": [{"id": "r", "type": "redis", "options": {"dsn_env": "SKILLS_REDIS_DSN", "key_prefix": prefix}}],
        },
    )


def test_the_client_reads_the_cache_that_we_fill(
    agent_schema, connect, cache, database, monkeypatch, tmp_path, space, db
):
    reviewer = connect("test_reviewer")
    bodies = {
        "awkward": AWKWARD,
        "large": "日本 \\ \" ' \r\n" * 30_000,
        "empty": "",
        "all_ascii": "".join(map(chr, range(1, 128))),
        "resp": "*1\r\n$4\r\nPING\r\nFLUSHALL\r\n",
    }
    for name, body in bodies.items():
        add(
            reviewer,
            space,
            name,
            body,
            description=f'say "{name}" \\ é',
            metadata={"k": 'v " \\ 日本\n'},
            required_env_vars=["A", "B_1"],
            scope="user",
        )
    agent = connect("test_agent")
    noise = os.urandom(300_000)
    version = agent.execute(
        "SELECT version FROM skill_system.register_skill_bundle(%s, %s)",
        [f"{space}/large", zipped({**FILES, "references/noise": noise})],
    ).fetchone()[0]
    reviewer.execute("SELECT skill_system.set_skill_status(%s, 'approved', %s)", [f"{space}/large", version])
    # Neither the encoding of the client nor its other settings change what arrives.
    fill_cache(
        cache,
        database,
        f"SELECT skill_system.redis_export('skills:', '{space}')",
        PGCLIENTENCODING="LATIN1",
        PGOPTIONS="-c TimeZone=Asia/Kathmandu -c DateStyle=German -c bytea_output=escape",
    )
    manager = cached(monkeypatch, tmp_path, cache, "skills:", space)
    report = manager.scan()
    assert report.errors == [] and {skill.skill_name for skill in report.skills} == set(bodies)
    from_tables = {
        row[0]: row
        for row in agent.execute(
            "SELECT skill_name, description, body_size, required_env_vars, scope, metadata, body_etag "
            "FROM skill_system.skills WHERE namespace = %s",
            [space],
        )
    }
    for skill in report.skills:
        assert skill.body_loader() == bodies[skill.skill_name]
        own = {key: value for key, value in skill.metadata.items() if key == "k"}
        assert (
            skill.skill_name,
            skill.description,
            skill.body_size,
            skill.required_env_vars,
            skill.scope,
            own,
            skill.metadata["etag"],
        ) == from_tables[skill.skill_name]
        assert skill.metadata["created_at"].endswith("Z")
    (bundled,) = [skill for skill in report.skills if skill.skill_name == "large"]
    root, sha = manager.get_bundle_root_for_tool(skill=bundled, purpose="exec")
    assert {path: (root / path).read_bytes() for path in FILES} == FILES and (
        root / "references/noise"
    ).read_bytes() == noise
    assert (
        sha
        == hashlib.sha256(
            agent.execute("SELECT skill_system.skill_bundle(%s)", [f"{space}/large"]).fetchone()[0]
        ).hexdigest()
    )
    with pytest.raises(FrameworkError) as refused:
        manager.get_bundle_root_for_tool(skill=report.skills[0], purpose="exec")
    assert refused.value.code == "SKILL_BUNDLE_FINGERPRINT_MISSING"
    ((found, _),) = manager.resolve_mentions(f"$[{space}].awkward")
    assert AWKWARD in manager.render_injected_skill(found, source="mention")


def test_what_is_not_enabled_any_more_leaves_the_cache(
    agent_schema, connect, cache, database, monkeypatch, tmp_path, space
):
    reviewer, admin = connect("test_reviewer"), connect("test_admin")
    ids = {name: add(reviewer, space, name)[0] for name in ("stays", "off", "gone", "unreadable")}
    export = f"SELECT skill_system.redis_export('c:', '{space}')"
    fill_cache(cache, database, export)

    def names():
        return {skill.skill_name for skill in cached(monkeypatch, tmp_path, cache, "c:", space).scan().skills}

    assert names() == set(ids)
    reviewer.execute("UPDATE agent.skills_catalog SET enabled = false WHERE id = %s", [ids["off"]])
    admin.execute("DELETE FROM agent.skills_catalog WHERE id = %s", [ids["gone"]])
    add(connect("test_agent"), space, "gone")
    reviewer.execute(
        "UPDATE agent.skills_catalog SET description = %s WHERE id = %s", ["x" * 70_000, ids["unreadable"]]
    )
    done = fill_cache(cache, database, export)
    assert b'"%s/unreadable" is not in the cache' % space.encode() in done.stderr
    assert names() == {"stays"}
    store = redis.Redis(unix_socket_path=str(cache))
    assert sorted(store.keys(f"c:*:{space}:*")) == [f"c:body:{space}:stays".encode(), f"c:meta:{space}:stays".encode()]


def test_namespaces_that_the_client_would_mix_up(agent_schema, connect, cache, fresh_database, monkeypatch, tmp_path):
    """Its search for the keys of one namespace finds those of the namespaces below it."""
    database = fresh_database()
    db = connect(dbname=database)
    db.execute("SELECT skill_system.create_client_schema('skills_runtime')")
    add(db, "alice", "outer")
    add(db, "alicent", "other")
    fill_cache(cache, database, "SELECT skill_system.redis_export('m:')", role=os.environ["PGUSER"])
    add(db, "alice:inner", "inner")
    with pytest.raises(errors.InvalidParameterValue, match="below"):
        db.execute("SELECT skill_system.redis_export('m:')")
    for namespace in ("alice", "alice:inner"):
        fill_cache(cache, database, f"SELECT skill_system.redis_export('m:', '{namespace}')", role=os.environ["PGUSER"])
        fill_cache(
            cache,
            database,
            f"SELECT skill_system.redis_export('{namespace}/', '{namespace}')",
            role=os.environ["PGUSER"],
        )
    mixed = cached(monkeypatch, tmp_path, cache, "m:", "alice").scan()
    assert {skill.skill_name for skill in mixed.skills} == {"outer", "inner"}
    apart = cached(monkeypatch, tmp_path, cache, "alice/", "alice").scan()
    assert {skill.skill_name for skill in apart.skills} == {"outer"}


@pytest.mark.parametrize("prefix", ["", "a*", "a?b", "[a]", "a\\", "a\nFLUSHALL", "x" * 201, None])
def test_prefixes_that_cannot_be_used(db, agent_schema, prefix):
    with pytest.raises(errors.InvalidParameterValue):
        db.execute("SELECT skill_system.redis_export(%s)", [prefix])
