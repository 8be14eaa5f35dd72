"""Registering skills, and at least one row in every table of the skills for tests that look at all tables."""

import json

from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb


def register(connection, source, namespace="default", approve=False, **arguments):
    """Registers a SKILL.md, and approves the version where that is wanted. Returns the row of register_skill()."""
    names = "".join(f", {name} => %s" for name in arguments)
    row = (
        connection.cursor(row_factory=namedtuple_row)
        .execute(
            f"SELECT r.* FROM skill_system.register_skill(%s, %s{names}) r", [source, namespace, *arguments.values()]
        )
        .fetchone()
    )
    if approve:
        connection.execute(
            "SELECT skill_system.set_skill_status(%s, 'approved', %s)",
            [f"{row.namespace}/{row.skill_name}", row.version],
        )
    return row


def approve(connection, skill, **arguments):
    """Approves the newest version of a skill. Returns the row of set_skill_status()."""
    names = "".join(f", {name} => %s" for name in arguments)
    return (
        connection.cursor(row_factory=namedtuple_row)
        .execute(
            "SELECT r.* FROM skill_system.set_skill_status(%s, 'approved', "
            f"(SELECT version FROM skill_system.skill_version_list(%s) LIMIT 1){names}) r",
            [skill, skill, *arguments.values()],
        )
        .fetchone()
    )


def fill_tables(admin, word):
    """`admin` has the rights of skill_system_admin; `word` is in every text."""
    manifest = {
        "schema_version": "2.0",
        "id": "a",
        "version": "1.0.0",
        "effects": [],
        "operations": {},
        "requires": ["b"],
    }
    source = f"---\nname: a\ndescription: {word}\n---\n\n```skill-manifest\n{json.dumps(manifest)}\n```\n"
    admin.execute("SELECT skill_system.register_skill(%s, files => %s)", [source, Jsonb({"references/a.md": word})])
    admin.execute(
        "SELECT skill_system.set_skill_status('a', 'approved', (SELECT version FROM skill_system.skill_version_list('a') LIMIT 1))"
    )
    admin.execute("SELECT skill_system.register_skill(%s)", [source.replace("1.0.0", "1.1.0")])
    admin.execute("SELECT skill_system.set_skill_channel('a', 'stable')")
    admin.execute("SELECT skill_system.set_skill_embedding('a', '{1,0}')")
    admin.execute(
        "SELECT "
        "skill_system.add_skill_approver('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', "
        "%s)",
        [word],
    )
    admin.execute("INSERT INTO skill_system.agents (id, name, config) VALUES ('one', %s, '{}')", [word])
    admin.execute("INSERT INTO skill_system.agent_definitions (agent_key, root_skill_key) VALUES (%s, 'a')", [word])
    admin.execute(
        "INSERT INTO skill_system.skill_artifacts (id, skill_id, name, content) SELECT 'one', id, 'one', %s "
        "FROM skill_system.skills WHERE skill_name = 'a' AND tenant_id = skill_system.current_tenant()",
        [word],
    )
    admin.execute(
        "INSERT INTO skill_system.skill_personas (skill_id, persona_key, display_name, prompt_text) "
        "SELECT id, 'one', 'One', %s FROM skill_system.skills WHERE skill_name = 'a' "
        "AND tenant_id = skill_system.current_tenant()",
        [word],
    )
    admin.execute(
        "INSERT INTO skill_system.skill_code_blocks (skill_id, block_key, description, code) "
        "SELECT id, 'one', %s, 'x' FROM skill_system.skills WHERE skill_name = 'a' "
        "AND tenant_id = skill_system.current_tenant()",
        [word],
    )
    admin.execute("SELECT skill_system.load_skill('a', conversation_id => %s)", [word])
