"""What other systems read, judged by what they are: skills-ref, FastMCP, the index builder of
skill-system-postgres."""

import asyncio
import hashlib
import html
import io
import json
import os
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
from fastmcp import Client, FastMCP
from fastmcp.server.extensions import MethodBinding, ServerExtension
from fastmcp.skills.client import SkillsClientExtension
from fastmcp.skills.models import GetSkillParams, GetSkillResult, ListSkillsParams, ListSkillsResult
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from psycopg import errors
from psycopg.types.json import Jsonb
from skills_ref.prompt import to_prompt

from skills import register

PLAIN = "---\nname: {}\ndescription: {}\n---\n\n# Text\n"


def offer(db, source, namespace, files=None, mode="strict"):
    return register(db, source, namespace, approve=True, files=files and Jsonb(files), mode=mode).skill_name


def with_manifest(name, description="Does one thing.", **members):
    return (
        PLAIN.format(name, description)
        + "\n```skill-manifest\n"
        + json.dumps({"schema_version": "2.0", "id": name, "effects": [], **members})
        + "\n```\n"
    )


def one(db, sql, arguments=()):
    return db.execute(f"SELECT skill_system.{sql}", arguments).fetchone()[0]


@pytest.fixture(scope="module")
def shop(db):
    """Skills of every kind in the namespace team:shop."""
    db.execute("SELECT skill_system.create_policy('readers', allow => '{db.read}')")
    offer(
        db,
        with_manifest("reads", 'Reads <b>prices</b> & says "so"; it\'s all.', effects=["db.read"], version="1.0.0"),
        "team:shop",
    )
    offer(
        db,
        with_manifest("writes", effects=["db.read", "db.write"], version="2.0.0"),
        "team:shop",
        {"references/a b.md": "a\n", "assets/ü.bin": {"base64": "AAEC/w=="}},
    )
    offer(db, PLAIN.format("plain", "Says nothing of its effects."), "team:shop")
    offer(
        db,
        PLAIN.format("by-hand", "Is started by a person.").replace(
            "---\n\n#", "disable-model-invocation: true\n---\n\n#"
        ),
        "team:shop",
        mode="lenient",
    )
    offer(
        db,
        PLAIN.format("nested", "Metadata that clients refuse.").replace(
            "---\n\n#", "metadata:\n  a:\n    b: c\n---\n\n#"
        ),
        "team:shop",
        mode="lenient",
    )
    offer(db, PLAIN.format("Wild_Name", "A name that clients refuse."), "team:shop", mode="lenient")
    db.execute("SELECT skill_system.register_skill(%s, 'team:shop')", [PLAIN.format("draft", "Not yet.")])
    offer(db, PLAIN.format("gone", "Not any more."), "team:shop")
    db.execute("SELECT skill_system.set_skill_status('team:shop/gone', 'disabled')")
    return "team:shop"


def names_in(block):
    return re.findall(r"<name>\n(.*)\n</name>", block)


def test_prompt_is_what_the_reference_library_prints(db, shop, tmp_path):
    block = one(db, "available_skills_prompt(%s)", [shop])
    assert names_in(block) == ["Wild_Name", "nested", "plain", "reads", "writes"]
    directories = []
    for name in names_in(block):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "SKILL.md").write_text(one(db, "export_skill(%s)", [f"{shop}/{name}"]))
        directories.append(directory)
    theirs = to_prompt(directories)
    for directory in directories:
        theirs = theirs.replace(str(directory / "SKILL.md"), f"skill://team%3Ashop/{directory.name}/SKILL.md")
    assert block == theirs
    assert html.unescape(block).count('Reads <b>prices</b> & says "so"; it\'s all.') == 1


def test_prompt_with_a_policy(db, shop):
    assert names_in(one(db, "available_skills_prompt(%s, 'readers')", [shop])) == ["reads"]
    assert one(db, "available_skills_prompt(%s, 'no such policy')", [shop]) == ""
    assert one(db, "available_skills_prompt('nothing-here')") == ""
    # The filter and check_skill() say the same of every skill.
    for (name,) in db.execute(
        "SELECT skill_name FROM skill_system.skills WHERE namespace = %s AND enabled AND skill_name <> 'by-hand'",
        [shop],
    ).fetchall():
        allowed = db.execute(
            "SELECT allowed FROM skill_system.check_skill('readers', %s)", [f"{shop}/{name}"]
        ).fetchone()[0]
        assert allowed == (name in names_in(one(db, "available_skills_prompt(%s, 'readers')", [shop])))


def test_discovery_index(db, shop):
    """The format has no published schema; the rules of its text (RFC of the format, 0.2.0) are checked one by one."""
    index = one(db, "skills_discovery_index('https://example.com/.well-known/agent-skills/', namespace => %s)", [shop])
    assert (
        set(index) == {"$schema", "skills"}
        and index["$schema"] == "https://schemas.agentskills.io/discovery/0.2.0/schema.json"
    )
    assert [entry["name"] for entry in index["skills"]] == ["by-hand", "nested", "plain", "reads", "writes"]
    for entry in index["skills"]:
        assert set(entry) == {"name", "type", "description", "url", "digest"}
        assert (
            re.fullmatch(r"(?!-)(?!.*--)[a-z0-9-]{1,64}(?<!-)", entry["name"])
            and 1 <= len(entry["description"]) <= 1024
        )
        reference = f"{shop}/{entry['name']}"
        if entry["name"] == "writes":
            content = one(db, "export_skill_archive(%s)", [reference])
            assert (entry["type"], entry["url"]) == (
                "archive",
                "https://example.com/.well-known/agent-skills/writes.zip",
            )
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                assert sorted(archive.namelist()) == sorted(["SKILL.md", "references/a b.md", "assets/ü.bin"])
                assert archive.read("SKILL.md").decode() == one(db, "export_skill(%s)", [reference])
        else:
            content = one(db, "export_skill(%s)", [reference]).encode()
            assert (entry["type"], entry["url"]) == (
                "skill-md",
                f"https://example.com/.well-known/agent-skills/{entry['name']}/SKILL.md",
            )
        assert entry["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert [entry["name"] for entry in one(db, "skills_discovery_index('/x', 'readers', %s)", [shop])["skills"]] == [
        "reads"
    ]
    assert one(db, "skills_discovery_index('/x', namespace => 'nothing-here')")["skills"] == []
    for bad in (None, "", "a b", "a\nb", "x" * 2001):
        with pytest.raises(errors.InvalidParameterValue):
            one(db, "skills_discovery_index(%s)", [bad])


class Served(ServerExtension):
    """skills/list and skills/get answered by the database; FastMCP reads each answer with its own types."""

    identifier = "io.modelcontextprotocol/skills"

    def __init__(self, db, namespace, page_size, policy=None):
        self.db, self.namespace, self.page_size, self.policy = db, namespace, page_size, policy

    def methods(self):
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        return (
            MethodBinding(
                method="skills/list", params_type=ListSkillsParams, handler=self.list, protocol_versions=versions
            ),
            MethodBinding(
                method="skills/get", params_type=GetSkillParams, handler=self.get, protocol_versions=versions
            ),
        )

    async def list(self, context, params):
        return ListSkillsResult.model_validate(
            one(
                self.db, "mcp_skills_list(%s, %s, %s, %s)", [params.cursor, self.page_size, self.namespace, self.policy]
            )
        )

    async def get(self, context, params):
        try:
            return GetSkillResult.model_validate(one(self.db, "mcp_skills_get(%s, %s)", [params.uri, self.policy]))
        except psycopg.Error as error:
            assert error.sqlstate == "SK404"
            raise MCPError(code=-32602, message=str(error)) from error


def client_of(extension):
    server = FastMCP("skills")
    server.add_extension(extension)
    return Client(server, extensions=[SkillsClientExtension()])


def test_mcp_with_a_real_client(db, shop):
    async def talk():
        async with client_of(Served(db, shop, 2)) as client:
            skills = await client.list_skills()
            assert [skill.frontmatter.name for skill in skills] == ["by-hand", "plain", "reads", "writes"]
            first = await client.list_skills_mcp()
            assert (
                len(first.skills) == 2
                and first.next_cursor
                and first.ttl_ms == 60_000
                and first.cache_scope == "private"
            )
            for skill in skills:
                name = skill.frontmatter.name
                assert await client.get_skill(skill.uri) == skill
                assert skill.uri == f"skill://team%3Ashop/{name}/SKILL.md"
                rows = db.execute(
                    "SELECT path, content FROM skill_system.export_skill_files(%s)", [f"{shop}/{name}"]
                ).fetchall()
                served = {resource.uri: (resource.digest, resource.size) for resource in skill.resources}
                wanted = {
                    f"skill://team%3Ashop/{name}/{path}": (
                        "sha256:" + hashlib.sha256(content).hexdigest(),
                        len(content),
                    )
                    for path, content in rows
                }
                assert {
                    f"skill://team%3Ashop/{name}/" + unquote(uri.split("/", 4)[4]): about
                    for uri, about in served.items()
                } == wanted
            for unknown in (
                "skill://team%3Ashop/draft/SKILL.md",
                "skill://team%3Ashop/gone/SKILL.md",
                "skill://team%3Ashop/nested/SKILL.md",
                "skill://default/reads/SKILL.md",
                "skill://team%3Ashop/reads",
                "http://x/SKILL.md",
            ):
                with pytest.raises(MCPError):
                    await client.get_skill(unknown)
        async with client_of(Served(db, shop, 1, "readers")) as client:
            assert [skill.frontmatter.name for skill in await client.list_skills()] == ["reads"]
            with pytest.raises(MCPError):
                await client.get_skill("skill://team%3Ashop/writes/SKILL.md")

    asyncio.run(talk())


def test_mcp_pages(db):
    for i in range(23):
        offer(db, with_manifest(f"page-{i:02}", effects=["db.read"] if i % 3 else ["proc.exec"]), "pages")
    for size in (1, 2, 7, 22, 23, 24, 500):
        for policy, wanted in ((None, range(23)), ("readers", [i for i in range(23) if i % 3])):
            cursor, seen, pages = None, [], 0
            while True:
                page = one(db, "mcp_skills_list(%s, %s, 'pages', %s)", [cursor, size, policy])
                ListSkillsResult.model_validate(page)
                seen += [entry["frontmatter"]["name"] for entry in page["skills"]]
                pages += 1
                cursor = page.get("nextCursor")
                if cursor is None:
                    break
                assert len(page["skills"]) == size
            assert seen == [f"page-{i:02}" for i in wanted] and pages == -(-len(list(wanted)) // size)
    for cursor, size in [("x", 1), ("", 1), ("YWJj", 1), (None, 0), (None, 501), (None, None), (None, -1)]:
        with pytest.raises(errors.InvalidParameterValue):
            one(db, "mcp_skills_list(%s, %s, 'pages')", [cursor, size])


def test_skills_index_of_skill_system_postgres(db):
    """The skills behind the index that the builder of skill-system-postgres printed, written again from it, give
    that index."""
    folder = os.environ.get("SKILL_VECTORS")
    if not folder:
        # tests/run has said aloud that the cross-checks are left out.
        pytest.skip("no vectors on this machine")
    theirs = json.loads((Path(folder) / "skill-system.json").read_text())["skills_index_from_build_index"]
    assert len(theirs["skills"]) >= 8
    for name, skill in theirs["skills"].items():
        operations = {
            operation: {
                "description": about["description"],
                "input": {parameter: {"type": "string"} for parameter in about["input_params"]},
            }
            for operation, about in skill["operations"].items()
        }
        offer(
            db,
            with_manifest(
                name,
                version=skill["version"],
                capabilities=skill["capabilities"],
                effects=skill["effects"],
                operations=operations,
            ),
            "seed-0",
        )
    ours = one(db, "skills_index('seed-0')")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ours.pop("generated_at"))
    theirs.pop("generated_at", None)
    assert ours == theirs


def test_skills_index(db, shop):
    index = one(db, "skills_index(%s)", [shop])
    assert sorted(index["skills"]) == ["reads", "writes"]
    assert sorted(one(db, "skills_index(%s, 'readers')", [shop])["skills"]) == ["reads"]
    offer(
        db,
        PLAIN.format("no-version", "Has none.")
        + (
            '\n```skill-manifest\n{"schema_version": "2.0", "id": "nv", "effects": [], "capabilities": ["c"], '
            '"operations": {"z": {"input": {"zz": {"type": "json"}, "a": {"type": "json"}}}}}\n```\n'
        ),
        "indexed",
    )
    assert one(db, "skills_index('indexed')")["skills"] == {
        "nv": {
            "dir": "no-version",
            "version": "0.0.0",
            "capabilities": ["c"],
            "effects": [],
            "operations": {"z": {"description": "", "input_params": ["zz", "a"]}},
        }
    }
