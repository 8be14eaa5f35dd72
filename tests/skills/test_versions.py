"""Versions as a whole: resolving, requirements, pins, channels, differences, changes, and the version that a run
used."""

import json
import subprocess
import threading
import uuid

import psycopg
import pytest
from psycopg import errors

from skills import approve, register


def source(name, semver=None, text="Use it.", requires=None, conflicts=None):
    manifest = {"schema_version": "2.0", "id": name, "capabilities": [], "effects": [], "operations": {}}
    if semver:
        manifest["version"] = semver
    for key, value in (("requires", requires), ("conflicts", conflicts)):
        if value is not None:
            manifest[key] = value
    return (
        f"---\nname: {name}\ndescription: The skill {name}.\n---\n# "
        f"{name}\n\n{text}\n\n```skill-manifest\n{json.dumps(manifest)}\n```\n"
    )


def register_version(db, name, semver=None, approve=True, namespace="default", **more):
    return register(db, source(name, semver, **more), namespace, approve).version


def new_name(prefix="s"):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def resolve(db, skill, requirement=None):
    return db.execute(
        "SELECT version, semver, status FROM skill_system.resolve_skill(%s, %s)", [skill, requirement]
    ).fetchone()


def dependency_problems(db, *skills):
    return db.execute(
        "SELECT problem, skill, other_skill, version_range, detail "
        "FROM skill_system.check_dependencies(VARIADIC %s::text[])",
        [list(skills)],
    ).fetchall()


def served(db, name):
    return db.execute("SELECT current_version FROM skill_system.skills WHERE skill_name = %s", [name]).fetchone()[0]


def history(db, name):
    return db.execute(
        "SELECT action, version, channel, reason FROM skill_system.skill_history WHERE skill_name = %s "
        "ORDER BY revision",
        [name],
    ).fetchall()


def audited(db, name, event):
    return db.execute(
        "SELECT event_data FROM skill_system.audit_logs WHERE event_type = %s "
        "AND event_data->>'skill_name' = %s ORDER BY id",
        [event, name],
    ).fetchall()


@pytest.fixture
def many(db):
    """A skill in the versions 1.2.0, 1.10.0, 2.0.0, 2.1.0-beta.2 (approved) and 3.0.0 (a draft)."""
    name = new_name()
    versions = {semver: register_version(db, name, semver) for semver in ("1.2.0", "1.10.0", "2.0.0", "2.1.0-beta.2")}
    versions["3.0.0"] = register_version(db, name, "3.0.0", approve=False)
    return name, versions


def test_resolving(db, many):
    name, versions = many
    for requirement, semver in [
        ("^1.2", "1.10.0"),
        ("1.2.0", "1.2.0"),
        ("<2", "1.10.0"),
        ("*", "2.0.0"),
        (">=1, <3", "2.0.0"),
        (">=2.1.0-alpha", "2.1.0-beta.2"),
        ("2.1.0-beta.2", "2.1.0-beta.2"),
        (versions["1.2.0"], "1.2.0"),
        (None, "2.1.0-beta.2"),
    ]:
        assert resolve(db, name, requirement) == (versions[semver], semver, "approved"), requirement
        assert resolve(db, f"default/{name}", requirement)[1] == semver
    row = db.execute(
        "SELECT skill_id, version_id, namespace, skill_name FROM skill_system.resolve_skill(%s, '^2')", [name]
    ).fetchone()
    assert row[2:] == ("default", name)
    assert db.execute(
        "SELECT version FROM skill_system.skill_versions WHERE skill_id = %s AND id = %s", row[:2]
    ).fetchone() == (versions["2.0.0"],)


def test_what_does_not_resolve(db, many, connect):
    name, versions = many
    for requirement, says in [
        ("^9", "2.0.0"),
        ("3.0.0", "2.1.0-beta.2"),
        (versions["3.0.0"], "2.0.0"),
        ("0123456789ab", "1.10.0"),
        ("stable", "no channels"),
    ]:
        with pytest.raises(psycopg.Error) as told:
            resolve(db, name, requirement)
        assert told.value.sqlstate == "SK405" and says in told.value.diag.message_detail, requirement
    with pytest.raises(psycopg.Error) as told:
        resolve(db, new_name(), "^1")
    assert told.value.sqlstate == "SK404"
    for requirement in ["", "^", "1.2.3.4", "a b", "x" * 300, "'; DROP TABLE x; --"]:
        with pytest.raises(errors.InvalidParameterValue) as told:
            resolve(db, name, requirement)
        assert told.value.diag.message_hint
    # A version that is disabled is not loaded, not even by its digits, nor is a skill that is switched off or deleted.
    db.execute("SELECT skill_system.set_skill_status(%s, 'disabled', %s)", [name, versions["1.10.0"]])
    assert resolve(db, name, "^1")[1] == "1.2.0"
    with pytest.raises(psycopg.Error, match="is disabled"):
        resolve(db, name, versions["1.10.0"])
    db.execute("UPDATE skill_system.skill_heads SET enabled = false WHERE skill_name = %s", [name])
    with pytest.raises(psycopg.Error, match="switched off") as told:
        resolve(db, name, "^1")
    assert told.value.sqlstate == "SK405"
    skill_id = db.execute("SELECT id FROM skill_system.skills WHERE skill_name = %s", [name]).fetchone()[0]
    db.execute("SELECT skill_system.delete_skill(%s)", [name])
    for reference in (name, str(skill_id)):
        with pytest.raises(psycopg.Error) as told:
            resolve(db, reference, "^1")
        assert told.value.sqlstate == "SK404"
    # Another tenant has no such skill.
    other = connect()
    mine = new_name()
    register_version(db, mine, "1.0.0")
    other.execute("SET skill_system.tenant = 'elsewhere'")
    with pytest.raises(psycopg.Error) as told:
        resolve(other, mine)
    assert told.value.sqlstate == "SK404"


def test_closure(db):
    top, a, b, c = (new_name(x) for x in ("top", "a", "b", "c"))
    for semver in ("1.4.0", "1.9.0", "2.0.0"):
        register_version(db, c, semver, namespace="team:docs")
    register_version(db, a, "1.0.0", requires=[{"skill": f"team:docs/{c}", "version": "^1"}])
    register_version(db, b, "1.0.0", requires=[{"skill": f"team:docs/{c}", "version": "<1.5"}])
    version = register_version(
        db,
        top,
        "1.0.0",
        requires=[a, {"skill": b, "version": "^1"}],
        conflicts=[{"skill": f"team:docs/{c}", "version": "^2"}],
    )
    rows = db.execute(
        "SELECT depth, namespace, skill_name, semver, required_by FROM skill_system.resolve_dependencies(%s)", [top]
    ).fetchall()
    assert rows == [
        (0, "default", top, "1.0.0", None),
        (1, "default", a, "1.0.0", f"default/{top}"),
        (1, "default", b, "1.0.0", f"default/{top}"),
        (2, "team:docs", c, "1.4.0", f"default/{a}"),
    ]
    ids = db.execute(
        "SELECT r.skill_id = v.skill_id, r.version = v.version FROM skill_system.resolve_dependencies(%s) r "
        "LEFT JOIN skill_system.skill_versions v ON v.id = r.version_id",
        [f"{top}@{version}"],
    ).fetchall()
    assert ids == [(True, True)] * 4
    assert dependency_problems(db, top) == []
    kept = db.execute(
        "SELECT kind, namespace, skill_name, version_range FROM skill_system.skill_dependencies d "
        "JOIN skill_system.skill_versions v ON v.id = d.version_id "
        "WHERE v.version = %s ORDER BY kind, skill_name",
        [version],
    ).fetchall()
    assert kept == sorted(
        [("conflicts", "team:docs", c, "^2"), ("requires", "default", a, None), ("requires", "default", b, "^1")],
        key=lambda row: (row[0], row[2]),
    )
    # Asked for together, what excludes each other is found.
    assert [row[:4] for row in dependency_problems(db, top, f"team:docs/{c}@^2")] == [
        ("version", f"default/{a}", f"team:docs/{c}", "^1"),
        ("version", f"default/{b}", f"team:docs/{c}", "<1.5"),
        ("conflict", f"default/{top}", f"team:docs/{c}", "^2"),
    ]


def test_problems_and_the_warning_on_approval(db):
    name, missing, draft = new_name(), new_name("missing"), new_name("draft")
    register_version(db, draft, "1.0.0", approve=False)
    version = register_version(db, name, "1.0.0", approve=False, requires=[missing, {"skill": draft, "version": "^1"}])
    # The draft itself can be asked about before anybody approves it.
    assert [row[:4] for row in dependency_problems(db, f"{name}@{version}")] == [
        ("version", f"default/{name}", f"default/{draft}", "^1"),
        ("missing", f"default/{name}", f"default/{missing}", None),
    ]
    notices = []
    db.add_notice_handler(
        lambda notice: notices.append((notice.severity, notice.message_primary, notice.message_detail))
    )
    approve(db, name)
    assert [notice[0] for notice in notices] == ["WARNING"] and missing in notices[0][2]
    with pytest.raises(psycopg.Error) as told:
        db.execute("SELECT * FROM skill_system.resolve_dependencies(%s)", [name])
    assert told.value.sqlstate == "SK409" and "And 1 more." in told.value.diag.message_detail
    notices.clear()
    approve(db, draft)
    register_version(db, missing)
    assert dependency_problems(db, name) == [] and notices == []
    assert len(db.execute("SELECT * FROM skill_system.resolve_dependencies(%s)", [name]).fetchall()) == 3


def test_cycles(db):
    a, b, c = (new_name(x) for x in "abc")
    register_version(db, c, requires=[{"skill": a}])
    register_version(db, b, requires=[{"skill": c}])
    register_version(db, a, requires=[{"skill": b}])
    assert dependency_problems(db, a) == [
        ("cycle", f"default/{c}", f"default/{a}", None, f"default/{a} -> default/{b} -> default/{c} -> default/{a}.")
    ]
    # Without a skill all enabled ones are looked at, each for itself.
    found = {row[:3] for row in dependency_problems(db)}
    assert ("cycle", f"default/{c}", f"default/{a}") in found
    for name in (a, b, c):
        db.execute("SELECT skill_system.delete_skill(%s)", [name])
    assert not any(name in row[1] for row in dependency_problems(db) for name in (a, b, c))


@pytest.mark.parametrize(
    "requires",
    [
        {"a": "^1"},
        "a",
        [1],
        [{"skill": 7}],
        [{"version": "^1"}],
        [{"skill": "a", "version": "^"}],
        [{"skill": "a", "version": 1}],
        [{"skill": "a", "range": "^1"}],
        ["a", {"skill": "default/a"}],
        [""],
        ["a"] * 101,
    ],
)
def test_malformed_requirements_are_refused(db, requires):
    name = new_name()
    with pytest.raises(errors.InvalidParameterValue) as told:
        register_version(db, name, requires=requires)
    assert "requires" in told.value.diag.message_primary
    assert db.execute("SELECT count(*) FROM skill_system.skill_heads WHERE skill_name = %s", [name]).fetchone() == (0,)


def test_a_chain_too_long_is_refused_and_a_long_one_ends_soon(db):
    prefix = new_name("deep")
    bodies = [source(f"{prefix}-{i}", requires=[f"{prefix}-{i + 1}"]) for i in range(1100)]
    db.execute("SELECT count(skill_system.register_skill(body)) FROM unnest(%s::text[]) body", [bodies])
    # By hand: approving each would follow its chain to the end.
    db.execute(
        "UPDATE skill_system.skill_versions v SET status = 'approved' FROM skill_system.skill_heads h "
        "WHERE h.id = v.skill_id AND h.skill_name LIKE %s",
        [prefix + "%"],
    )
    db.execute(
        "UPDATE skill_system.skill_heads SET status = 'approved', enabled = true WHERE skill_name LIKE %s",
        [prefix + "%"],
    )
    with pytest.raises(errors.ProgramLimitExceeded):
        dependency_problems(db, f"{prefix}-0")
    assert ("limit", f"default/{prefix}-0") in [row[:2] for row in dependency_problems(db)]
    assert [row[0] for row in dependency_problems(db, f"{prefix}-600")] == ["missing"]
    assert db.execute("SELECT count(*) FROM skill_system.check_dependencies(%s)", [f"{prefix}-200"]).fetchone() == (1,)


def test_pin(db):
    name = new_name()
    one, two = register_version(db, name, "1.0.0"), register_version(db, name, "2.0.0")
    state = db.execute(
        "SELECT current_version, version FROM skill_system.pin_skill(%s, '1.0.0', 'audit')", [name]
    ).fetchone()
    assert state == (one, one) and served(db, name) == one
    # What comes later is not served, approved or not.
    three = register_version(db, name, "3.0.0")
    assert served(db, name) == one
    assert resolve(db, name)[0] == one and resolve(db, name, "*")[0] == three
    with pytest.raises(psycopg.Error) as told:
        db.execute("SELECT skill_system.pin_skill(%s, %s)", [name, register_version(db, name, "4.0.0", approve=False)])
    assert told.value.sqlstate == "SK405"
    db.execute("SELECT skill_system.pin_skill(%s)", [name])
    db.execute("SELECT skill_system.unpin_skill(%s)", [name])
    db.execute("SELECT skill_system.unpin_skill(%s)", [name])
    assert served(db, name) == one
    db.execute("SELECT skill_system.set_skill_status(%s, 'approved', %s)", [name, three])
    assert served(db, name) == three
    actions = [row for row in history(db, name) if row[0] in ("pinned", "unpinned")]
    assert actions == [("pinned", one, None, "audit"), ("unpinned", one, None, None)]
    assert len(audited(db, name, "skill.pinned")) == 1 and len(audited(db, name, "skill.unpinned")) == 1
    assert two != three


def test_rollback(db):
    name = new_name()
    one, two = register_version(db, name, "1.0.0", text="first"), register_version(db, name, "2.0.0", text="second")
    draft = register_version(db, name, "2.5.0", approve=False)
    three = register_version(db, name, "3.0.0", text="third")
    assert served(db, name) == three
    # The draft between them is passed over.
    assert db.execute(
        "SELECT current_version FROM skill_system.rollback_skill(%s, reason => 'wrong form')", [name]
    ).fetchone() == (two,)
    assert "second" in db.execute("SELECT body FROM skill_system.skills WHERE skill_name = %s", [name]).fetchone()[0]
    assert db.execute("SELECT current_version FROM skill_system.rollback_skill(%s)", [name]).fetchone() == (one,)
    with pytest.raises(psycopg.Error) as told:
        db.execute("SELECT skill_system.rollback_skill(%s)", [name])
    assert told.value.sqlstate == "SK405" and "3.0.0" in told.value.diag.message_detail
    assert db.execute("SELECT current_version FROM skill_system.rollback_skill(%s, %s)", [name, three]).fetchone() == (
        three,
    )
    with pytest.raises(psycopg.Error, match="is draft"):
        db.execute("SELECT skill_system.rollback_skill(%s, %s)", [name, draft])
    assert [row[1:] for row in history(db, name) if row[0] == "current"] == [
        (two, None, "wrong form"),
        (one, None, None),
        (three, None, None),
    ]
    assert [row[0]["reason"] for row in audited(db, name, "skill.current")] == ["wrong form", None, None]


def test_channels(db, many):
    name, versions = many

    def put(channel, version=None):
        db.execute("SELECT skill_system.set_skill_channel(%s, %s, %s)", [name, channel, version])

    before = served(db, name)
    put("beta", "^2")
    put("nightly")
    assert resolve(db, name, "beta")[1] == "2.0.0" and resolve(db, name, "nightly")[0] == before
    put("stable", "beta")
    put("beta", versions["2.1.0-beta.2"])
    put("beta", versions["2.1.0-beta.2"])
    assert [resolve(db, name, channel)[1] for channel in ("stable", "beta")] == ["2.0.0", "2.1.0-beta.2"]
    assert served(db, name) == before
    with pytest.raises(psycopg.Error) as told:
        put("stable", versions["3.0.0"])
    assert told.value.sqlstate == "SK405"
    for bad in ("x", "1", "Stable", "", "0123456789ab", "a" * 51, None):
        with pytest.raises(errors.InvalidParameterValue):
            put(bad)
    db.execute("SELECT skill_system.set_skill_status(%s, 'disabled', %s)", [name, versions["2.0.0"]])
    with pytest.raises(psycopg.Error, match="is disabled"):
        resolve(db, name, "stable")
    assert db.execute(
        "SELECT skill_system.drop_skill_channel(%s, 'beta'), skill_system.drop_skill_channel(%s, 'beta')", [name, name]
    ).fetchone() == (True, False)
    with pytest.raises(psycopg.Error) as told:
        resolve(db, name, "beta")
    assert told.value.sqlstate == "SK405" and "nightly, stable" in told.value.diag.message_detail
    noted = [(channel, version) for action, version, channel, _ in history(db, name) if action == "channel"]
    assert noted == [
        ("beta", versions["2.0.0"]),
        ("nightly", before),
        ("stable", versions["2.0.0"]),
        ("beta", versions["2.1.0-beta.2"]),
        ("beta", None),
    ]
    assert [row[0]["channel"] for row in audited(db, name, "skill.channel")] == [
        "beta",
        "nightly",
        "stable",
        "beta",
        "beta",
    ]
    listed = db.execute(
        "SELECT semver, status, served, channels FROM skill_system.skill_version_list(%s)", [name]
    ).fetchall()
    assert listed == [
        ("3.0.0", "draft", False, []),
        ("2.1.0-beta.2", "approved", True, ["nightly"]),
        ("2.0.0", "disabled", False, ["stable"]),
        ("1.10.0", "approved", False, []),
        ("1.2.0", "approved", False, []),
    ]


def test_a_diff_is_what_patch_takes(db, tmp_path):
    name = new_name()
    old = {
        "references/a.md": "one\ntwo\n",
        "scripts/gone.sh": "echo\n",
        "assets/x.bin": {"base64": "AAEC"},
        "assets/same.txt": "same",
    }
    new = {
        "references/a.md": "one\n2\nthree",
        "scripts/new.sh": "echo new\n",
        "assets/x.bin": {"base64": "AAED"},
        "assets/same.txt": "same",
    }
    bodies = [source(name, "1.0.0", "First.\r\nLine."), source(name, "1.1.0", "First.\r\nOther line.\nMore.")]
    versions = [
        db.execute(
            "SELECT version FROM skill_system.register_skill(%s, files => %s)", [body, json.dumps(files)]
        ).fetchone()[0]
        for body, files in zip(bodies, (old, new), strict=True)
    ]
    rows = db.execute(
        "SELECT path, change, added, removed, diff FROM skill_system.diff_skill_versions(%s, %s, %s)", [name, *versions]
    ).fetchall()
    assert [row[:4] for row in rows] == [
        ("SKILL.md", "changed", 3, 2),
        ("assets/x.bin", "changed", None, None),
        ("references/a.md", "changed", 2, 1),
        ("scripts/gone.sh", "removed", 0, 1),
        ("scripts/new.sh", "added", 1, 0),
    ]
    assert rows[1][4] is None
    (tmp_path / "SKILL.md").write_bytes(bodies[0].encode())
    for path, content in old.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content.encode() if isinstance(content, str) else b"")
    patch = "".join(row[4] for row in rows if row[4])
    done = subprocess.run(
        ["git", "apply", "-p1", "--whitespace=nowarn", "-"], input=patch.encode(), cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "SKILL.md").read_bytes() == bodies[1].encode()
    assert (tmp_path / "references/a.md").read_text() == "one\n2\nthree" and (
        tmp_path / "scripts/new.sh"
    ).read_text() == "echo new\n"
    assert not (tmp_path / "scripts/gone.sh").exists()
    assert db.execute(
        "SELECT count(*) FROM skill_system.diff_skill_versions(%s, %s, %s)", [name, versions[0], versions[0]]
    ).fetchone() == (0,)
    # By default from what is served to what is newest: what a reviewer looks at.
    assert db.execute("SELECT path FROM skill_system.diff_skill_versions(%s) LIMIT 1", [name]).fetchone() in (
        ("SKILL.md",),
        None,
    )


def test_a_diff_of_large_texts_ends(db):
    name = new_name()

    def lines(seed):
        return "\n".join(str((i * 7919 + seed) % 100003) for i in range(200_000))

    a, b = (register_version(db, name, approve=False, text=lines(seed)) for seed in (1, 50_000))
    db.execute("SET statement_timeout = '60s'")
    change, added = db.execute(
        "SELECT change, added FROM skill_system.diff_skill_versions(%s, %s, %s)", [name, a, b]
    ).fetchone()
    db.execute("RESET statement_timeout")
    assert change == "changed" and added > 0


def changes(db, since=None, namespace=None, max_rows=1000):
    return db.execute(
        "SELECT namespace, revision, action, skill_name, token FROM skill_system.skill_changes(%s, %s, %s)",
        [since, namespace, max_rows],
    ).fetchall()


def test_what_changed_since_a_token(db):
    first, second = f"aa{uuid.uuid4().hex[:6]}", f"bb{uuid.uuid4().hex[:6]}"
    token = db.execute("SELECT skill_system.skills_token()").fetchone()[0]
    assert changes(db, token) == []
    name = new_name()
    register_version(db, name, namespace=first)
    register_version(db, name, namespace=second)
    rows = changes(db, token)
    assert [row[:4] for row in rows] == [
        (first, 1, "registered", name),
        (first, 2, "status", name),
        (second, 1, "registered", name),
        (second, 2, "status", name),
    ]
    assert rows[-1][4] == db.execute("SELECT skill_system.skills_token()").fetchone()[0]
    # Row by row, with the token of each, nothing is missed and nothing comes twice.
    seen, since = [], token
    while row := next(iter(changes(db, since, max_rows=1)), None):
        seen.append(row[:4])
        since = row[4]
    assert seen == [row[:4] for row in rows]
    # One namespace.
    assert [row[:2] for row in changes(db, token, second)] == [(second, 1), (second, 2)]
    mine = db.execute("SELECT skill_system.skills_token(%s)", [second]).fetchone()[0]
    assert json.loads(mine) == {second: 2} and changes(db, mine, second) == []
    # Saying the same again changes nothing.
    register_version(db, name, namespace=second)
    assert db.execute("SELECT skill_system.skills_token(%s)", [second]).fetchone()[0] == mine
    for bad in ("", "7", "[]", '{"a":-1}', "x" * 10, '{"' + first + '": 99}'):
        with pytest.raises(errors.InvalidParameterValue):
            changes(db, bad)
    for bad in (0, 10_001, None):
        with pytest.raises(errors.InvalidParameterValue):
            changes(db, None, None, bad)


def test_an_answer_grows_with_its_changes(db):
    """Namespaces of one change each, of one long history, of long names: tokens never come to more than the rows."""
    start = db.execute("SELECT skill_system.skills_token()").fetchone()[0]
    prefix = uuid.uuid4().hex[:6]
    spaces = [f"n{prefix}:{'x' * 60}:{n + 10}" for n in range(60)]
    for namespace in spaces:
        register_version(db, new_name(), namespace=namespace, approve=False)
    for _ in range(20):
        register_version(db, new_name(), namespace=spaces[30], approve=False)
    rows = changes(db, start)
    assert len(rows) == 80
    tokens = [row[4] for row in rows if row[4]]
    assert rows[-1][4] == db.execute("SELECT skill_system.skills_token()").fetchone()[0]
    assert sum(map(len, tokens)) <= 256 * len(rows) + len(rows[-1][4]) and len(tokens) > 2
    # Each token continues behind its row, and a reader of small pages meets every change once.
    for at, row in enumerate(rows):
        if row[4]:
            assert [later[:4] for later in changes(db, row[4])] == [later[:4] for later in rows[at + 1 :]]
    seen, since = [], start
    while page := changes(db, since, max_rows=7):
        seen += [row[:4] for row in page]
        since = page[-1][4]
    assert seen == [row[:4] for row in rows]
    for namespace in spaces:
        db.execute("SELECT skill_system.drop_skill_namespace(%s)", [namespace])


def test_no_change_is_ever_missed(db, connect):
    """Two sessions, one of them late to commit: the reader never passes over what is not there yet."""
    namespace = f"cc{uuid.uuid4().hex[:6]}"
    slow, quick, reader = connect(), connect(), connect()
    slow.autocommit = False
    slow.execute("SELECT skill_system.register_skill(%s, %s)", [source("slow"), namespace])
    waiting = threading.Thread(
        target=register_version, args=(quick, "quick"), kwargs={"namespace": namespace, "approve": False}
    )
    waiting.start()
    waiting.join(1)
    # The second writer of a namespace waits for the first, so that no higher revision is seen before a lower one.
    assert waiting.is_alive()
    token = reader.execute("SELECT skill_system.skills_token(%s)", [namespace]).fetchone()[0]
    assert token == "{}" and changes(reader, None, namespace) == []
    slow.commit()
    waiting.join(20)
    assert [row[1:4] for row in changes(reader, token, namespace)] == [
        (1, "registered", "slow"),
        (2, "registered", "quick"),
    ]
    # What is rolled back leaves no hole.
    slow.execute("SELECT skill_system.register_skill(%s, %s)", [source("never"), namespace])
    slow.rollback()
    register_version(quick, "later", namespace=namespace, approve=False)
    assert [row[1] for row in changes(reader, None, namespace)] == [1, 2, 3]


def test_a_reader_beside_many_writers_gets_everything_once(db, connect):
    namespaces = [f"dd{uuid.uuid4().hex[:6]}" for _ in range(2)]
    writers, reader = [connect() for _ in range(4)], connect()
    start = reader.execute("SELECT skill_system.skills_token()").fetchone()[0]
    failed, stop, seen = [], threading.Event(), []

    def write(n, connection):
        try:
            for i in range(12):
                with connection.transaction():
                    connection.execute(
                        "SELECT skill_system.register_skill(%s, %s)", [source(f"w{n}-{i}"), namespaces[(n + i) % 2]]
                    )
                    connection.execute("SELECT pg_sleep(0.002)")
        except psycopg.Error as error:
            failed.append(error)

    def read():
        since = start
        while True:
            last = stop.is_set()
            rows = changes(reader, since, max_rows=7)
            seen.extend(row[:4] for row in rows)
            since = rows[-1][4] if rows else since
            if last and not rows:
                return

    threads = [threading.Thread(target=write, args=pair) for pair in enumerate(writers)]
    reading = threading.Thread(target=read)
    for thread in [*threads, reading]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reading.join(30)
    assert failed == []
    mine = [row for row in seen if row[0] in namespaces]
    assert len(mine) == len(set(mine)) == 48
    for namespace in namespaces:
        assert [row[1] for row in mine if row[0] == namespace] == list(range(1, 25))


def linked(db, run):
    return db.execute(
        "SELECT r.skill_version_id, e.skill_version_id, e.payload->>'skill_version' FROM skill_system.runs r "
        "JOIN skill_system.run_events e ON e.run_id = r.id "
        "WHERE r.id = %s",
        [run],
    ).fetchone()


def log_run(db, skill, **more):
    return db.execute(
        "SELECT skill_system.log_run(%s, 'fill', 'ok', payload => %s)", [skill, json.dumps(more)]
    ).fetchone()[0]


def test_a_run_is_linked_to_its_version(db, connect):
    name = new_name()
    assert linked(db, log_run(db, name)) == (None, None, None)
    other = connect()
    one = register_version(db, name, "1.0.0")

    def ids(version):
        return db.execute("SELECT id FROM skill_system.skill_versions WHERE version = %s", [version]).fetchone()[0]

    expected = (ids(one), ids(one), one)
    # By name, with its namespace, by UUID; also in a session that found nothing before.
    skill_id = db.execute("SELECT id FROM skill_system.skills WHERE skill_name = %s", [name]).fetchone()[0]
    for given in (name, f"default/{name}", str(skill_id)):
        assert linked(db, log_run(db, given)) == expected
    assert linked(db, log_run(other, name)) == expected
    two = register_version(other, name, "2.0.0")
    assert linked(db, log_run(db, name))[2] == two and linked(db, log_run(other, name))[2] == two
    # What the caller says it loaded, where that is a version of the skill.
    assert linked(db, log_run(db, name, skill_version=one)) == expected
    assert linked(db, log_run(db, name, skill_version="0123456789ab"))[:2] == (None, None)
    assert linked(db, log_run(db, name, skill_version=7))[:2] == (None, None)
    db.execute("SELECT skill_system.rollback_skill(%s)", [name])
    assert linked(db, log_run(other, name)) == expected
    # In a transaction that is rolled back another version is served for a while.
    with db.transaction(force_rollback=True):
        db.execute("SELECT skill_system.rollback_skill(%s, %s)", [name, two])
        assert linked(db, log_run(db, name))[2] == two
    assert linked(db, log_run(db, name))[2] == one
    record = db.execute(
        "SELECT event_data FROM skill_system.audit_logs WHERE event_type = 'run.logged' ORDER BY id DESC LIMIT 1"
    ).fetchone()[0]
    assert record["skill_version"] == one
    shown = db.execute(
        "SELECT version, semver, version_status, namespace, skill_name, operation "
        "FROM skill_system.run_skill_versions ORDER BY event_id DESC LIMIT 1"
    ).fetchone()
    assert shown == (one, "1.0.0", "approved", "default", name, "fill")
    db.execute("SELECT skill_system.delete_skill(%s)", [name])
    assert linked(db, log_run(db, name)) == (None, None, None)


def test_by_manifest_id_unless_it_is_ambiguous(db):
    name, namespace = new_name(), f"ee{uuid.uuid4().hex[:6]}"
    version = register_version(db, name, namespace=namespace)
    # The manifest's id is the name; the skill is not in the namespace default.
    assert linked(db, log_run(db, name))[2] == version
    second = f"ff{uuid.uuid4().hex[:6]}"
    register_version(db, name, namespace=second)
    assert linked(db, log_run(db, name)) == (None, None, None)
    assert linked(db, log_run(db, f"{namespace}/{name}"))[2] == version
    register_version(db, name, text="mine")
    assert linked(db, log_run(db, name))[2] == served_in(db, "default", name)


def served_in(db, namespace, name):
    return db.execute(
        "SELECT current_version FROM skill_system.skills WHERE namespace = %s AND skill_name = %s", [namespace, name]
    ).fetchone()[0]


def test_steps_are_linked_and_agents_may_log(db, roles, connect):
    name = new_name()
    version = register_version(db, name)
    agent = connect("test_agent")
    run = agent.execute("SELECT skill_system.start_run('two steps')").fetchone()[0]
    agent.execute(
        "SELECT skill_system.log_step(%s, %s, 'read'), skill_system.log_step(%s, 'unknown', 'read')", [run, name, run]
    )
    rows = db.execute(
        "SELECT payload->>'skill_version', skill_version_id IS NOT NULL FROM skill_system.run_events "
        "WHERE run_id = %s ORDER BY id",
        [run],
    ).fetchall()
    assert rows == [(version, True), (None, False)]
    assert linked(db, log_run(agent, name))[2] == version
    assert agent.execute(
        "SELECT count(*) FROM skill_system.run_skill_versions WHERE run_id = %s", [run]
    ).fetchone() == (1,)
    other = connect()
    other.execute("SET skill_system.tenant = 'elsewhere'")
    log_run(other, name)
    assert other.execute(
        "SELECT skill_version_id FROM skill_system.runs WHERE tenant_id = 'elsewhere' ORDER BY id DESC LIMIT 1"
    ).fetchone() == (None,)


def test_who_may_decide_what_is_served(db, roles, connect):
    name = new_name()
    register_version(db, name, "1.0.0")
    calls = [
        "pin_skill(%s)",
        "unpin_skill(%s)",
        "rollback_skill(%s, '1.0.0')",
        "set_skill_channel(%s, 'beta')",
        "drop_skill_channel(%s, 'beta')",
    ]
    for role, may in (("test_agent", False), ("test_auditor", False), ("test_reviewer", True), ("test_admin", True)):
        connection = connect(role)
        for call in calls:
            statement = f"SELECT skill_system.{call}"
            if may:
                connection.execute(statement, [name])
            else:
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(statement, [name])
        assert resolve(connection, name, "^1")[1] == "1.0.0"
        connection.execute("SELECT * FROM skill_system.skill_changes()")
        connection.execute("SELECT * FROM skill_system.check_dependencies(%s)", [name])
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        db.execute("UPDATE skill_system.skill_dependencies SET version_range = '*'")


def test_every_function_takes_digits_semver_and_channel(db):
    name = new_name("forms")
    old = register_version(db, name, "1.2.0")
    newer = register_version(db, name, "2.0.0", text="Newer.")
    db.execute("SELECT skill_system.set_skill_channel(%s, 'stable', %s)", [name, old])
    calls = {
        "export_skill": "SELECT skill_system.export_skill(%s, %s)",
        "export_skill_files": "SELECT content FROM skill_system.export_skill_files(%s, %s)",
        "export_skill_archive": "SELECT skill_system.export_skill_archive(%s, %s)",
        "skill_approval_text": "SELECT skill_system.skill_approval_text(%s, %s)",
        "skill_bundle": "SELECT skill_system.skill_bundle(%s, %s)",
        "diff_skill_versions": "SELECT diff FROM skill_system.diff_skill_versions(%s, %s)",
    }
    for function, call in calls.items():
        by_digits = db.execute(call, [name, old]).fetchall()
        assert by_digits != db.execute(call, [name, newer]).fetchall() or function == "skill_bundle", function
        for given in ("1.2.0", " 1.2.0 ", "stable"):
            assert db.execute(call, [name, given]).fetchall() == by_digits, (function, given)
        for given in ("1.2.1", "canary", "ffffffffffff", "no version!"):
            with pytest.raises(psycopg.Error) as caught:
                db.execute(call, [name, given])
            assert caught.value.sqlstate in ("SK405", "22023"), (function, given)
    for given in (old, "1.2.0", "stable"):
        db.execute("SELECT skill_system.set_skill_embedding(%s, '{1, 0}', %s)", [name, given])
        found = db.execute(
            "SELECT v.version FROM skill_system.skill_embeddings e JOIN skill_system.skill_versions v "
            "ON v.id = e.version_id WHERE v.skill_id = (SELECT id FROM skill_system.skills WHERE skill_name = %s)",
            [name],
        ).fetchall()
        assert found == [(old,)]
    # Of several with one semantic version the approved one, and of these the newest.
    again = register_version(db, name, "1.2.0", text="Again.", approve=False)
    assert "Again." not in db.execute(calls["export_skill"], [name, "1.2.0"]).fetchone()[0]
    # What is approved is named by its content.
    for given in ("1.2.0", "stable"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute("SELECT skill_system.set_skill_status(%s, 'approved', %s)", [name, given])
        assert caught.value.sqlstate == "SK405" and "12 digits" in caught.value.diag.message_hint
    state = db.execute(
        "SELECT version, status FROM skill_system.set_skill_status(%s, 'disabled', '1.2.0')", [name]
    ).fetchone()
    assert state == (old, "disabled")
    assert "Again." in db.execute(calls["export_skill"], [name, "1.2.0"]).fetchone()[0]
    approved = register_version(db, name, "1.2.0", text="More.")
    state = db.execute("SELECT version FROM skill_system.set_skill_status(%s, 'draft', '1.2.0')", [name]).fetchone()
    assert state == (approved,) != (again,)
