"""SKILL.md: the corpus, the bytes, the files, what a manifest declares. See tests/corpus/skills/expectations.json."""

import base64
import hashlib
import io
import json
import os
import uuid
import zipfile
from pathlib import Path

import psycopg
import pytest
from conftest import ROOT
from psycopg import errors
from psycopg.types.json import Jsonb
from skills_ref.errors import ParseError
from skills_ref.parser import parse_frontmatter
from skills_ref.validator import validate_metadata

from skills import approve as approve_newest
from skills import register

CORPUS = ROOT / "tests" / "corpus" / "skills"
EXPECTED = json.loads((CORPUS / "expectations.json").read_text())
NAMES = sorted(path.stem for path in CORPUS.glob("*.md"))
PLAIN = "---\nname: {}\ndescription: Does one thing. Use in tests.\n---\n\n# Text\n"


# skills-ref ends the front matter at any three hyphens, so it reads only "Keeps" of this description.
READ_DIFFERENTLY = {"good-hyphens-in-text"}


def source_of(name):
    return (CORPUS / f"{name}.md").read_bytes().decode()


def validation_findings(db, source, mode="strict"):
    return [
        " ".join(str(part) for part in row if part is not None)
        for row in db.execute(
            "SELECT severity, code, field, line FROM skill_system.validate_skill(%s, %s)", [source, mode]
        )
    ]


def approve(db, skill, version=None):
    if version is None:
        return approve_newest(db, skill)
    return db.execute("SELECT skill_system.set_skill_status(%s, 'approved', %s)", [skill, version])


def manifest(**members):
    return "\n```skill-manifest\n" + json.dumps({"schema_version": "2.0", "effects": [], **members}) + "\n```\n"


def test_the_corpus_is_whole():
    assert NAMES == sorted(EXPECTED) and len(NAMES) >= 40
    seen = {
        finding.split()[1]
        for wanted in EXPECTED.values()
        for mode in ("strict", "lenient")
        for finding in wanted.get(mode, wanted["strict"])
    }
    # Each kind of finding has its file; two take a file too large for the corpus, one an argument; they have separate tests.
    code = ROOT / "crates" / "core" / "src"
    written = {
        word
        for path in ("skills/document.rs", "skills/frontmatter.rs", "skills/manifest.rs", "unicode.rs")
        for word in quoted_codes(code / path)
    }
    assert written - seen == {"front_matter_large", "manifest_large", "name_differs"}, written - seen
    assert seen <= written


def quoted_codes(path):
    import re

    text = path.read_text().split("#[cfg(test)]")[0]
    prefixes = (
        "yaml_|name_|field_|front_matter_|manifest_|metadata_|description_|"
        "compatibility_|allowed_|discovery_|unknown_|version_|body_|env_var_|byte_|line_ends|duplicate_|control_|bidi_|invisible_|mcp_"
    )
    return set(re.findall(rf'"((?:{prefixes})[a-z_]*)"', text)) - {"env_var", "allowed_tools"}


@pytest.mark.parametrize("name", NAMES)
def test_corpus(db, name):
    source, wanted = source_of(name), EXPECTED[name]
    for mode in ("strict", "lenient"):
        found = validation_findings(db, source, mode)
        assert found == wanted.get(mode, wanted["strict"]), mode
        namespace = f"corpus-{mode}:{name}"[:64].rstrip("-")
        if any(finding.startswith("error ") for finding in found):
            with pytest.raises(errors.InvalidParameterValue) as raised:
                register(db, source, namespace=namespace, mode=mode)
            detail = raised.value.diag.message_detail
            assert all(f"({finding.split()[1]})" in detail for finding in found if finding.startswith("error ")), detail
            continue
        state = register(db, source, namespace=namespace, mode=mode)
        if "name" in wanted:
            assert state[2] == wanted["name"]
        reference = f"{namespace}/{state[2]}"
        # Byte for byte, whatever the line ends and the tricks.
        assert db.execute("SELECT skill_system.export_skill(%s)", [reference]).fetchone()[0].encode() == source.encode()
        assert (state[4], state[7], state[9]) == ("draft", hashlib.sha256(source.encode()).hexdigest(), True)
        for column, value in wanted.get("head", {}).items():
            assert (
                db.execute(f"SELECT to_jsonb({column}) FROM skill_system.skills WHERE id = %s", [state[0]]).fetchone()[
                    0
                ]
                == value
            ), column
        assert register(db, source, namespace=namespace, mode=mode)[9] is False


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_validator_agrees_or_a_reason_is_given(name):
    """skills-ref of PyPI says valid or not; where it differs from strict mode, expectations.json has the reason."""
    try:
        metadata, _ = parse_frontmatter((CORPUS / f"{name}.md").read_text(encoding="utf-8"))
        theirs = not validate_metadata(metadata)
    except ParseError:
        theirs = False
    ours = not any(finding.startswith("error ") for finding in EXPECTED[name]["strict"])
    assert ("differs" in EXPECTED[name]) == (theirs != ours), (ours, theirs)


def test_the_reference_reader_reads_the_same_values(db):
    compared = 0
    for name in NAMES:
        wanted = EXPECTED[name]
        if (
            name in READ_DIFFERENTLY
            or "differs" in wanted
            or any(finding.startswith("error ") for finding in wanted["strict"])
        ):
            continue
        metadata, _ = parse_frontmatter((CORPUS / f"{name}.md").read_text(encoding="utf-8"))
        skill = register(db, source_of(name), namespace="compared")
        ours = db.execute("SELECT frontmatter FROM skill_system.skill_versions WHERE id = %s", [skill[6]]).fetchone()[0]
        assert ours == metadata, name
        compared += 1
    assert compared > 40


def test_scalars_stay_text(db):
    skill = register(db, source_of("yaml-numbers"), namespace="text")
    assert db.execute("SELECT metadata FROM skill_system.skills WHERE id = %s", [skill[0]]).fetchone()[0] == {
        "version": "1.10",
        "mode": "0755",
        "octal": "0o17",
        "exponent": "1e3",
        "hex": "0x1F",
        "day": "2026-01-01",
        "sexagesimal": "12:30:45",
    }


def test_a_manifest_fills_the_columns(db):
    skill = register(db, source_of("good-manifest"), namespace="manifests")
    row = db.execute(
        "SELECT s.effects, s.manifest_id, s.semver, "
        "v.manifest->'operations'->'count'->'input'->'shelf'->>'type' FROM skill_system.skills s "
        "JOIN skill_system.skill_versions v ON v.id = s.current_version_id WHERE s.id = %s",
        [skill[0]],
    ).fetchone()
    assert row == (["db.read", "db.write:public.stock", "fs.write:/srv/reports/**"], "stock-count", "1.4.2", "string")
    # The lenient take the skill and nothing of a broken manifest.
    skill = register(db, source_of("manifest-duplicate-effects"), namespace="manifests", mode="lenient")
    assert db.execute(
        "SELECT v.manifest, v.about->>'manifest_id', v.about->'effects' FROM skill_system.skill_versions v "
        "WHERE v.id = %s",
        [skill[6]],
    ).fetchone() == (None, None, None)


def test_huge_texts(db):
    large = "---\nname: large\ndescription: d\nlicense: " + "x" * 65_536 + "\n---\n"
    assert validation_findings(db, large) == ["error front_matter_large 1"]
    just = (
        "---\nname: large\ndescription: d\nmetadata:\n"
        + "".join(f"  k{i:04}: {'v' * 40}\n" for i in range(1200))
        + "---\n\n# Body\n"
    )
    assert len(just) > 55_000 and validation_findings(db, just) == []
    assert validation_findings(db, PLAIN.format("large") + manifest(id="large", note="n" * 262_144)) == [
        "error manifest_large manifest 8"
    ]
    body = PLAIN.format("large") + "word " * 800_000
    assert register(db, body)[9] is True
    assert (
        db.execute("SELECT md5(skill_system.export_skill('large'))").fetchone()[0]
        == hashlib.md5(body.encode()).hexdigest()
    )
    for call in ("SELECT skill_system.register_skill(%s)", "SELECT skill_system.validate_skill(%s)"):
        with pytest.raises(errors.ProgramLimitExceeded):
            db.execute(call, [PLAIN.format("large") + "x" * (16 << 20)])


@pytest.mark.parametrize(
    "yaml",
    [
        "[" * 60_000,
        "{a: " * 15_000,
        "a: &a [\n" * 8_000,
        "- " * 30_000,
        "? " * 30_000,
        "a:\n" * 20_000,
        "'" * 60_000,
        "a: |\n" + " \n" * 30_000,
        "!!a " * 15_000,
        "#" * 60_000,
        "\n".join(" " * i + "a:" for i in range(340)),
    ],
)
def test_hostile_yaml_ends_soon(db, yaml):
    began = processor_seconds(db)
    assert any(finding.startswith("error ") for finding in validation_findings(db, f"---\nname: a\n{yaml}\n---\n"))
    assert processor_seconds(db) - began < 2


def processor_seconds(connection):
    """What the session's process has used: the machine may be busy."""
    fields = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_arguments(db):
    for source, arguments in [
        (None, {}),
        (PLAIN.format("x1"), {"mode": "loose"}),
        (PLAIN.format("x1"), {"mode": None}),
        (PLAIN.format("x1"), {"namespace": "No"}),
        (PLAIN.format("x1"), {"namespace": "a/b"}),
    ]:
        with pytest.raises(errors.InvalidParameterValue):
            register(db, source, **arguments)
    assert db.execute("SELECT count(*) FROM skill_system.skills WHERE skill_name = 'x1'").fetchone() == (0,)
    register(db, PLAIN.format("there"))
    for call in ("export_skill", "export_skill_files", "export_skill_archive"):
        for skill, version, state in [("no-such", None, "SK404"), ("there", "0" * 12, "SK405")]:
            with pytest.raises(psycopg.Error) as raised:
                db.execute(f"SELECT * FROM skill_system.{call}(%s, %s)", [skill, version])
            assert raised.value.sqlstate == state


FILES = {
    "references/terms.md": "# Terms\n",
    "scripts/run.sh": "#!/bin/sh\necho done\n",
    "assets/logo.png": {"base64": base64.encodebytes(bytes(range(256)) * 3).decode()},
    "assets/日本/ü.txt": "ü",
    "empty": "",
}


def bytes_of(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def test_files_are_kept_with_their_digests(db):
    source = PLAIN.format("with-files")
    skill = register(db, source, files=Jsonb(FILES))
    wanted = {"SKILL.md": source.encode(), **{path: bytes_of(value) for path, value in FILES.items()}}
    rows = db.execute(
        "SELECT path, content, size, sha256 FROM skill_system.export_skill_files('with-files')"
    ).fetchall()
    assert rows[0][0] == "SKILL.md"
    assert {path: bytes(content) for path, content, *_ in rows} == wanted
    assert all(
        (size, sha256) == (len(content), hashlib.sha256(content).hexdigest()) for _, content, size, sha256 in rows
    )
    # Another file is another version, the same files are the same.
    assert register(db, source, files=Jsonb(FILES))[9] is False
    assert register(db, source)[3] != skill[3]
    assert register(db, source, files=Jsonb({**FILES, "empty": "no"}))[3] not in (skill[3], register(db, source)[3])
    first = db.execute("SELECT skill_system.export_skill_archive('with-files', %s)", [skill[3]]).fetchone()[0]
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert (
            archive.testzip() is None and {info.filename: archive.read(info) for info in archive.infolist()} == wanted
        )
    assert db.execute("SELECT skill_system.export_skill_archive('with-files', %s)", [skill[3]]).fetchone()[0] == first
    agent_file = (
        "interface:\n  display_name: x\ndependencies:\n  tools:\n    - type: env_var\n      value: PRICE_KEY\n  "
        "  - type: env_var\n      value: not one\n    - type: mcp\n      value: other\n"
    )
    skill = register(db, PLAIN.format("with-agent-file"), files=Jsonb({"agents/openai.yaml": agent_file}))
    assert db.execute("SELECT required_env_vars FROM skill_system.skills WHERE id = %s", [skill[0]]).fetchone()[0] == [
        "PRICE_KEY"
    ]


HOSTILE = [
    {"": "x"},
    {"/etc/passwd": "x"},
    {"../x": "x"},
    {"a/../../x": "x"},
    {"a/./x": "x"},
    {"a//x": "x"},
    {"a/": "x"},
    {"..\\x": "x"},
    {"a\\b": "x"},
    {"C:/x": "x"},
    {"x:stream": "x"},
    {"．．/x": "x"},
    {"a\u2044b/..": "x"},
    {"a\nb": "x"},
    {"a\u0001": "x"},
    {"a\u202eb": "x"},
    {"a\u200bb": "x"},
    {"con": "x"},
    {"NUL.txt": "x"},
    {"a.": "x"},
    {"a ": "x"},
    {"SKILL.md": "x"},
    {"skill.MD": "x"},
    {"a" * 256: "x"},
    {"a/" * 251 + "b": "x"},
    {"README.md": "x", "readme.md": "y"},
    {"é": "x", "e\u0301": "y"},
    {"ﬁ": "x", "fi": "y"},
    {"a": "x", "a/b": "y"},
    {"A/b": "x", "a": "y"},
    {"ß/x": "x", "SS/x": "y"},
    {"a": 1},
    {"a": None},
    {"a": ["x"]},
    {"a": {}},
    {"a": {"base64": 1}},
    {"a": {"base64": "***"}},
    {"a": {"base64": "QQ==", "mode": 1}},
    {"a": {"base64": "QQ"}},
    [],
    "x",
    1,
    None,
    {f"f{i}": "" for i in range(513)},
]


@pytest.mark.parametrize(
    "files", HOSTILE, ids=lambda files: str(files)[:40].encode("ascii", "backslashreplace").decode()
)
def test_hostile_files(db, files):
    before = db.execute("SELECT count(*) FROM skill_system.skill_versions").fetchone()
    with pytest.raises(errors.InvalidParameterValue):
        register(db, PLAIN.format("hostile"), files=Jsonb(files))
    assert db.execute("SELECT count(*) FROM skill_system.skill_versions").fetchone() == before


def test_too_many_files(db):
    with pytest.raises(errors.ProgramLimitExceeded):
        register(db, PLAIN.format("too-many"), files=Jsonb({f"f{i}": "" for i in range(512)}))
    with pytest.raises(errors.ProgramLimitExceeded):
        register(db, PLAIN.format("too-much"), files=Jsonb({"a": "x" * (9 << 20), "b": "x" * (8 << 20)}))
    assert register(db, PLAIN.format("just-so"), files=Jsonb({f"f{i}": "" for i in range(511)}))[9] is True


def test_a_new_version_waits_until_it_is_approved(db):
    first = register(db, PLAIN.format("waiting"))
    approve(db, "waiting")
    second = register(db, PLAIN.format("waiting") + "More.\n")
    assert (second[4], second[5]) == ("draft", first[3]) and second[3] != first[3]
    assert db.execute("SELECT skill_system.export_skill('waiting')").fetchone()[0] == PLAIN.format("waiting")
    assert db.execute("SELECT skill_system.export_skill('waiting', %s)", [second[3]]).fetchone()[0].endswith("More.\n")
    assert [
        row[0]
        for row in db.execute(
            "SELECT event_type FROM skill_system.audit_logs WHERE event_data->>'skill_name' = 'waiting' "
            "ORDER BY created_at"
        )
    ] == ["skill.registered", "skill.status", "skill.registered"]


def check(db, policy, skill, operation=None):
    return db.execute(
        "SELECT allowed, decision, blocked_effects, reason FROM skill_system.check_skill(%s, %s, %s)",
        [policy, skill, operation],
    ).fetchone()


def test_check_skill(db):
    db.execute(
        "SELECT skill_system.create_policy('stock', allow => '{db.read,\"db.write:public.*\",fs.write:/srv/**}')"
    )
    db.execute("SELECT skill_system.create_policy('reader', allow => '{db.read}', ask => '{fs.write:/srv/**}')")
    skill = register(db, source_of("good-manifest"), namespace="checked")
    name = "checked/stock-count"
    assert (
        check(db, "stock", name)[:3]
        == (False, "deny", ["db.read", "db.write:public.stock", "fs.write:/srv/reports/**"])
        and "draft" in check(db, "stock", name)[3]
    )
    approve(db, name)
    assert (
        check(db, "stock", name)
        == check(db, "stock", name, "count")
        == check(db, "stock", str(skill[0]))
        == (True, "allow", [], 'allowed by policy "stock"')
    )
    # The same words as check_policy().
    asked = db.execute(
        "SELECT allowed, decision, blocked_effects, reason "
        "FROM skill_system.check_policy('reader', "
        "'{db.read,db.write:public.stock,fs.write:/srv/reports/**}'::text[])"
    ).fetchone()
    assert check(db, "reader", name, "report") == asked and asked[:3] == (
        False,
        "deny",
        ["db.write:public.stock", "fs.write:/srv/reports/**"],
    )
    for policy, reference, operation, word in [
        ("stock", name, "nope", "no operation"),
        ("stock", name, "", "no operation"),
        ("nope", name, None, "does not exist"),
        (None, name, None, "NULL"),
        ("stock", "checked/nope", None, "does not exist"),
        ("stock", None, None, "NULL"),
        ("stock", "", None, "does not exist"),
    ]:
        allowed, decision, _, reason = check(db, policy, reference, operation)
        assert (allowed, decision) == (False, "deny") and word in reason, reason
    # A manifest that says none exist, and no manifest at all.
    register(
        db, source_of("manifest-empty-effects").replace("name: stock-count", "name: no-effects"), namespace="checked"
    )
    approve(db, "checked/no-effects")
    assert check(db, "stock", "checked/no-effects")[:2] == (True, "allow")
    register(db, PLAIN.format("no-manifest"), namespace="checked")
    approve(db, "checked/no-manifest")
    allowed, decision, _, reason = check(db, "stock", "checked/no-manifest")
    assert (allowed, decision) == (False, "deny") and "declares nothing" in reason
    assert check(db, "stock", "checked/no-manifest", "count")[0] is False
    # What waits does not count, what is served does.
    register(db, source_of("good-manifest").replace('"db.read"', '"proc.exec"'), namespace="checked")
    assert check(db, "stock", name)[0] is True
    db.execute("SELECT skill_system.set_skill_status(%s, 'disabled', %s)", [name, skill[3]])
    assert check(db, "stock", name)[:2] == (False, "deny")
    db.execute("SELECT skill_system.delete_skill(%s)", [name])
    assert check(db, "stock", name)[0] is False and "deleted" in check(db, "stock", str(skill[0]))[3]
    # A lenient manifest that was left out declares nothing.
    register(db, source_of("manifest-no-effects"), namespace="lenient", mode="lenient")
    approve(db, "lenient/stock-count")
    assert check(db, "stock", "lenient/stock-count")[0] is False


def test_roles(db, roles, connect):
    agent, auditor = connect("test_agent"), connect("test_auditor")
    assert register(agent, PLAIN.format("by-an-agent"))[4] == "draft"
    with pytest.raises(errors.InsufficientPrivilege):
        register(auditor, PLAIN.format("by-an-auditor"))
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("SELECT skill_system.set_skill_status('by-an-agent', 'approved')")
    for role in (agent, auditor):
        assert role.execute("SELECT skill_system.export_skill('by-an-agent')").fetchone()[0] == PLAIN.format(
            "by-an-agent"
        )
        assert check(role, "stock", "by-an-agent")[0] is False
    db.execute("CREATE ROLE test_nobody LOGIN")
    try:
        nobody = connect("test_nobody")
        for call in (
            "register_skill('x')",
            "validate_skill('x')",
            "export_skill('x')",
            "check_skill('x', 'y')",
            "skills_index()",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                nobody.execute(f"SELECT skill_system.{call}")
        nobody.close()
    finally:
        db.execute("DROP ROLE test_nobody")


def test_tenants_see_their_own(db, roles, connect):
    db.execute("LOAD 'skill_system'; ALTER ROLE test_agent SET skill_system.tenant = 'acme'")
    try:
        agent = connect("test_agent")
        assert agent.execute("SELECT count(*) FROM skill_system.skills").fetchone() == (0,)
        register(agent, PLAIN.format("waiting").replace("one thing", "another thing"))
        assert "another" in agent.execute("SELECT skill_system.export_skill('waiting')").fetchone()[0]
        with pytest.raises(psycopg.Error) as raised:
            agent.execute("SELECT skill_system.export_skill('by-an-agent')")
        assert raised.value.sqlstate == "SK404"
    finally:
        db.execute("ALTER ROLE test_agent RESET skill_system.tenant")
    assert "one thing" in db.execute("SELECT skill_system.export_skill('waiting')").fetchone()[0]


# --- What files of other authors look like ---


def taken(db, source, columns, **arguments):
    namespace = f"taken-{uuid.uuid4().hex[:12]}"
    register(db, source, namespace=namespace, mode="lenient", **arguments)
    return db.execute(
        f"SELECT to_jsonb({columns}) FROM skill_system.skills WHERE namespace = %s", [namespace]
    ).fetchone()[0]


def fields(*lines):
    return "---\n" + "\n".join(lines) + "\n---\nBody\n"


@pytest.mark.parametrize(
    "line, number",
    [
        ("description: Looks at pull request #12 and at C# code. Use for reviews.", 3),
        ("description: Looks at it # and more", 3),
        ("description: Fixes\n  issue #3", 4),
        ("description: D.\nmetadata:\n  owner: us #them", 5),
    ],
)
def test_a_value_that_a_comment_ends_is_named(db, line, number):
    found = validation_findings(db, fields("name: k1", line))
    assert [finding for finding in found if "yaml_comment" in finding][0].endswith(f" {number}"), found
    assert not any(
        "yaml_comment" in finding for finding in validation_findings(db, fields("name: k1", "description: C# code#1"))
    )


def test_no_comment_where_there_is_none(db):
    for line in ("description: 'a #b'", "description: >-\n  a #b\n  c", "# all of it\ndescription: C#, F#1"):
        assert validation_findings(db, fields("name: k1", line)) == []


@pytest.mark.parametrize(
    "lines, semver",
    [
        (["version: 1.2.3"], "1.2.3"),
        (["version: '2.0.0-rc.1'"], "2.0.0-rc.1"),
        (["version: 1.2.3", "metadata:", "  version: 3.0.0"], "3.0.0"),
        (["version: '1.2'"], None),
    ],
)
def test_a_version_beside_the_name_counts(db, lines, semver):
    source = fields("name: k2", "description: D. Use when needed.", *lines)
    assert taken(db, source, "semver") == semver
    noted = [finding for finding in validation_findings(db, source, "lenient") if "version_no_semver" in finding]
    assert noted == ([] if semver else ["note version_no_semver version"])


@pytest.mark.parametrize(
    "line, field, value",
    [
        (
            "description: Reviews a plan before work\n  starts. Scope: large plans only.",
            "description",
            "Reviews a plan before work starts. Scope: large plans only.",
        ),
        ("argument-hint: [action] - for example list", "argument-hint", "[action] - for example list"),
        ('description: "Quick" checks: run them', "description", '"Quick" checks: run them'),
        ("argument-hint: <a> or {b} c", "argument-hint", "<a> or {b} c"),
        ("description: - first\n  - second", "description", "- first - second"),
        ("description: For #1\n  and #2: both", "description", "For #1 and #2: both"),
        ("hint: {a} | {b: c}", "hint", "{a} | {b: c}"),
    ],
)
def test_a_value_that_is_no_yaml_is_read_as_text(db, line, field, value):
    lines = ["name: k3"] + ([] if field == "description" else ["description: D."]) + [line]
    source = fields(*lines)
    found = validation_findings(db, source, "lenient")
    number = 2 + lines.index(line)
    if any("yaml_quoted" in finding for finding in found):
        assert f"warning yaml_quoted {number}" in found
        message = db.execute(
            "SELECT message FROM skill_system.validate_skill(%s) WHERE code = 'yaml_syntax'", [source]
        ).fetchone()[0]
        assert message.endswith("; put the value in quotes")
    namespace = f"quoted-{uuid.uuid4().hex[:12]}"
    register(db, source, namespace=namespace, mode="lenient")
    assert db.execute(
        "SELECT v.frontmatter->>%s FROM skill_system.skill_versions v JOIN skill_system.skills s "
        "ON s.current_version_id = v.id WHERE s.namespace = %s",
        [field, namespace],
    ).fetchone() == (value,)


def test_a_name_from_the_directory(db):
    source = fields("description: D. Use when needed.")
    assert taken(db, source, "skill_name", name="k4") == "k4"
    call = "SELECT code FROM skill_system.validate_skill(%s, %s, %s) WHERE severity = 'error'"
    for text, mode, name, code in [
        (source, "lenient", None, "field_missing"),
        (source, "strict", "k4", "field_missing"),
        (source, "lenient", "", "field_missing"),
        (source, "lenient", "../x", "name_unsafe"),
        (fields("name: k5", "description: D."), "lenient", "k4", "name_differs"),
    ]:
        assert (code,) in db.execute(call, [text, mode, name]).fetchall(), (mode, name)
    assert taken(db, fields("name: k4", "description: D."), "skill_name", name="k4") == "k4"


@pytest.mark.parametrize(
    "tags, wanted",
    [
        ('"machine learning, code review"', ["machine learning", "code review"]),
        ("machine learning", ["machine", "learning"]),
        ("a, b,, c ", ["a", "b", "c"]),
        ('\'["a b","c"]\'', ["a b", "c"]),
        ("'[not json, x]'", ["not json", "x"]),
        ("\"['a b', c d]\"", ["a b", "c d"]),
        ("'[a b]'", ["a b"]),
        ("'[a] b'", ["[a]", "b"]),
        ("[a b, c]", ["a b", "c"]),
    ],
)
def test_tags_with_blanks(db, tags, wanted):
    assert taken(db, fields("name: k5", "description: D.", "metadata:", f"  tags: {tags}"), "domain_tags") == wanted


def test_flags_of_countries_that_are_written_with_unseen_letters(db):
    flag = "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbsct") + "\U000e007f"
    assert validation_findings(db, fields("name: k6", f"description: Speaks Scots {flag}{flag}. Use when asked.")) == []
    for other in (flag.replace("\U000e007f", ""), flag[1:], flag.replace("\U000e0067", "\U000e0068")):
        found = validation_findings(db, fields("name: k6", f"description: Speaks {other}"))
        assert "error invisible_character description 3" in found, other


@pytest.mark.parametrize(
    "path",
    ["a*.md", "what?.md", 'a".md', "<a>", "a|b", ".git/config", "x/.git/hooks/y", ".GIT", "git~1/x", "CONIN$.txt"],
)
def test_paths_that_are_no_file_everywhere(db, path):
    with pytest.raises(errors.InvalidParameterValue):
        taken(db, fields("name: k7", "description: D."), "skill_name", files=Jsonb({path: "x"}))


def test_what_the_discovery_index_leaves_out_is_noted(db):
    for lines in (["name: K8"], ["name: k_8"], ["name: k8 x"], ["name: k\u00fc"]):
        assert "note discovery_index" in validation_findings(db, fields(*lines, "description: D."), "lenient"), lines
    assert "note discovery_index" in validation_findings(
        db, fields("name: k8", "description: " + "x" * 1025), "lenient"
    )
    assert validation_findings(db, fields("name: k8", "description: D.")) == []
