"""Who decides what is served, by which entrance, and what an approval stands for."""

import base64
import json
import uuid

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import errors
from psycopg.types.json import Jsonb

from skills import approve, register

SKILL = "---\nname: {name}\ndescription: {description}\n---\n{body}\n"
MANIFEST = (
    "\n```skill-manifest\n"
    '{{"schema_version": "2.0", "id": "{id}", "version": "1.0.0", "effects": ["db.read"], "operations": {{}}}}\n```\n'
)


def one(connection, statement, *arguments):
    row = connection.execute(statement, arguments).fetchone()
    return row and row[0]


def sqlstate(connection, statement, *arguments):
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(statement, arguments)
    return refused.value.sqlstate


def skill_md(name, body="Do it.", description="Does. Use when asked."):
    return SKILL.format(name=name, description=description, body=body)


@pytest.fixture
def space():
    return f"ns-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def people(db, connect, roles):
    return {role: connect(f"test_{role}") for role in ("agent", "reviewer", "admin")}


@pytest.fixture
def view(db):
    db.execute("DROP SCHEMA IF EXISTS decided CASCADE")
    db.execute("SELECT skill_system.create_client_schema('skills_runtime', 'decided')")
    yield "decided.skills_catalog"
    db.execute("DROP SCHEMA decided CASCADE")


def served(db, space):
    return db.execute(
        "SELECT skill_name, status, enabled, body, description, metadata, domain_tags, tier2_definition "
        "FROM skill_system.skills WHERE namespace = %s ORDER BY 1",
        [space],
    ).fetchall()


# --- One rule for all entrances ---


def make(people, view, space, name, entrance):
    """A skill of an entrance, approved."""
    skill = f"{space}/{name}"
    if entrance == "register_skill":
        register(people["agent"], skill_md(name), namespace=space)
    elif entrance == "define_skill":
        people["admin"].execute(
            'SELECT skill_system.define_skill(%s, \'{"description": "Stops the pumps"}\', \'{"steps": ["stop"]}\')',
            [skill],
        )
    elif entrance == "view":
        people["agent"].execute(
            f"INSERT INTO {view} (namespace, skill_name, description, body) VALUES (%s, %s, 'Stops.', 'stop')",
            [space, name],
        )
    else:
        people["agent"].execute("SELECT skill_system.skill_store_store(%s, 'stop', NULL, %s)", [name, space])
    approve(people["reviewer"], skill)
    return skill


@pytest.mark.parametrize("entrance", ["register_skill", "define_skill", "view", "skill_store"])
@pytest.mark.parametrize("decision", ["approved", "switched off", "disabled"])
def test_an_agent_changes_nothing_that_was_decided(db, people, view, space, entrance, decision):
    skill = make(people, view, space, "kill-switch", entrance)
    if decision == "disabled":
        people["reviewer"].execute("SELECT skill_system.set_skill_status(%s, 'disabled')", [skill])
    elif decision == "switched off":
        people["reviewer"].execute(f"UPDATE {view} SET enabled = false WHERE namespace = %s", [space])
    before, agent = served(db, space), people["agent"]
    body = before[0][3]
    for statement, arguments in [
        ("SELECT skill_system.skill_store_update_status('kill-switch', 'Disabled', %s)", [space]),
        ("SELECT skill_system.skill_store_update_status('kill-switch', 'Draft', %s)", [space]),
        ("SELECT skill_system.skill_store_update_status('kill-switch', 'Approved', %s)", [space]),
        ("SELECT skill_system.skill_store_store('kill-switch', 'other', NULL, %s)", [space]),
        ("SELECT skill_system.skill_store_store('kill-switch', 'other', '{\"status\": \"Disabled\"}', %s)", [space]),
        ("SELECT skill_system.skill_store_store('kill-switch', %s, '{\"description\": \"evil\"}', %s)", [body, space]),
        ("SELECT skill_system.skill_store_store('kill-switch', %s, '{\"status\": \"Disabled\"}', %s)", [body, space]),
        ("SELECT skill_system.skill_store_delete('kill-switch', %s)", [space]),
        ("SELECT skill_system.register_skill(%s, %s)", [skill_md("kill-switch", "evil"), space]),
        ("SELECT skill_system.set_skill_status(%s, 'draft')", [skill]),
        ("SELECT skill_system.define_skill(%s, domain_tags => '{evil}')", [skill]),
        ("SELECT skill_system.pin_skill(%s)", [skill]),
        (f"UPDATE {view} SET body = 'other' WHERE namespace = %s", [space]),
        (f"UPDATE {view} SET description = 'evil' WHERE namespace = %s", [space]),
        (f"UPDATE {view} SET metadata = '{{\"evil\": 1}}', scope = 'evil' WHERE namespace = %s", [space]),
        (f"UPDATE {view} SET enabled = NOT enabled WHERE namespace = %s", [space]),
        (f"DELETE FROM {view} WHERE namespace = %s", [space]),
    ]:
        try:
            agent.execute(statement, arguments)
        except psycopg.Error as refused:
            assert refused.sqlstate in ("42501", "SK403", "SK409", "22023"), (statement, refused)
        assert served(db, space) == before, statement


def test_the_table_itself_refuses(db, people, space):
    """Also where somebody was given rights on it, or writes by a function of somebody else's."""
    skill = make(people, None, space, "one", "register_skill")
    db.execute("GRANT INSERT, UPDATE, DELETE ON skill_system.skill_heads, skill_system.skill_versions TO test_agent")
    try:
        agent = people["agent"]
        for statement in (
            "UPDATE skill_system.skill_heads SET enabled = false WHERE namespace = %s",
            "UPDATE skill_system.skill_heads SET description = 'evil' WHERE namespace = %s",
            "DELETE FROM skill_system.skill_heads WHERE namespace = %s",
            "UPDATE skill_system.skill_versions SET status = 'draft' WHERE skill_id = "
            "(SELECT id FROM skill_system.skills WHERE namespace = %s)",
        ):
            assert sqlstate(agent, statement, space) == "42501", statement
        register(agent, skill_md("one", "two"), namespace=space)
        assert (
            sqlstate(
                agent,
                "UPDATE skill_system.skill_versions SET status = 'approved' WHERE status = 'draft' AND skill_id = "
                "(SELECT id FROM skill_system.skills WHERE namespace = %s)",
                space,
            )
            == "42501"
        )
    finally:
        db.execute(
            "REVOKE INSERT, UPDATE, DELETE ON skill_system.skill_heads, skill_system.skill_versions FROM test_agent"
        )
    assert served(db, space)[0][1:3] == ("approved", True), skill


def test_who_wrote_a_function_decides_for_who_may_call_it(db, people, space):
    skill = make(people, None, space, "one", "register_skill")
    db.execute(
        "CREATE FUNCTION public.stop(skill text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog "
        "AS $$ SELECT skill_system.set_skill_status(skill, 'disabled') $$"
    )
    try:
        db.execute("ALTER FUNCTION public.stop(text) OWNER TO test_reviewer")
        db.execute("GRANT EXECUTE ON FUNCTION public.stop(text) TO test_agent")
        people["agent"].execute("SELECT public.stop(%s)", [skill])
        assert served(db, space)[0][1] == "disabled"
    finally:
        db.execute("DROP FUNCTION public.stop(text)")


# --- What was read is what is approved ---


def test_an_approval_names_the_version(db, people, view, space):
    agent, reviewer = people["agent"], people["reviewer"]
    skill, approve_it = f"{space}/one", "SELECT skill_system.set_skill_status(%s, 'approved', %s)"
    read = register(agent, skill_md("one", "harmless"), namespace=space).version
    register(agent, skill_md("one", "EVIL"), namespace=space)
    assert sqlstate(reviewer, approve_it, skill, None) == "22023"
    assert sqlstate(reviewer, "SELECT skill_system.set_skill_status(%s, 'approved')", skill) == "22023"
    reviewer.execute(approve_it, [skill, read])
    assert "harmless" in served(db, space)[0][3]
    # To disable without a version takes what is served, whatever has come since.
    register(agent, skill_md("one", "EVIL 2"), namespace=space)
    assert one(reviewer, "SELECT version FROM skill_system.set_skill_status(%s, 'disabled')", skill) == read
    assert served(db, space)[0][1:3] == ("disabled", False)


def test_nor_does_the_metadata_of_a_version_change(db, people, view, space):
    """Which no version names: the same text with another description, tags, variables."""
    agent, reviewer = people["agent"], people["reviewer"]
    agent.execute(
        f"INSERT INTO {view} (namespace, skill_name, description, body) VALUES (%s, 'one', 'Does.', 'harmless')",
        [space],
    )
    agent.execute("SELECT skill_system.skill_store_store('two', 'harmless', NULL, %s)", [space])
    register(agent, skill_md("three"), namespace=space)
    before = served(db, space)
    for change in ("description = 'evil'", "metadata = '{\"a\": 1}'", "scope = 'all'", "required_env_vars = '[\"A\"]'"):
        for name in ("one", "two", "three"):
            assert sqlstate(
                agent, f"UPDATE {view} SET {change} WHERE namespace = %s AND skill_name = %s", space, name
            ) in ("42501", "22023"), change
    for metadata in (
        {"description": "evil"},
        {"metadata_bag": {"tags": ["root"]}},
        {"author": "somebody"},
        {"metadata_bag": {"a": 1}},
    ):
        store = "SELECT skill_system.skill_store_store('two', 'harmless', %s, %s)"
        assert sqlstate(agent, store, Jsonb(metadata), space) == "42501", metadata
    assert served(db, space) == before
    # With another text it is another version, and a reviewer may say more of any.
    agent.execute(f"UPDATE {view} SET body = 'more', description = 'More.' WHERE skill_name = 'one'")
    reviewer.execute(f"UPDATE {view} SET description = 'Even more.' WHERE skill_name = 'one'")
    assert served(db, space)[0][3:5] == ("more", "Even more.")


def test_a_reviewers_new_body_does_not_approve_what_is_beside_it(db, people, view, space):
    agent, reviewer = people["agent"], people["reviewer"]
    register(agent, skill_md("one"), namespace=space, files=Jsonb({"scripts/run.sh": "evil"}))
    reviewer.execute(f"UPDATE {view} SET body = 'mine' WHERE namespace = %s", [space])
    assert served(db, space)[0][1:3] == ("draft", False)
    assert sqlstate(reviewer, f"UPDATE {view} SET body = 'my', enabled = true WHERE namespace = %s", space) == "22023"


# --- What a signature stands for ---


@pytest.fixture
def key(db, database):
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    db.execute("SELECT skill_system.add_skill_approver(%s, 'alice')", [public])
    db.execute(f'ALTER DATABASE "{database}" SET skill_system.signed_approvals = on')
    yield key
    db.execute(f'ALTER DATABASE "{database}" RESET skill_system.signed_approvals')


def sign(key, text):
    return "v1:" + base64.urlsafe_b64encode(key.sign(text.encode())).decode().rstrip("=")


def text_of(connection, skill, version=None):
    return one(connection, "SELECT skill_system.skill_approval_text(%s, %s)", skill, version)


APPROVE = (
    "SELECT status FROM skill_system.set_skill_status(%s, 'approved', "
    "(SELECT version FROM skill_system.skill_version_list(%s) LIMIT 1), %s)"
)


def test_a_signature_holds_once_and_for_one_skill(db, connect, roles, key, space):
    agent, reviewer, admin = (connect(f"test_{role}") for role in ("agent", "reviewer", "admin"))
    skill = f"{space}/pump"
    register(agent, skill_md("pump"), namespace=space)
    text = text_of(agent, skill)
    said = json.loads(text)
    assert set(said) == {
        *("approve", "log_id", "tenant", "namespace", "skill_name", "digest", "metadata_digest", "review_id"),
    }
    assert (said["tenant"], said["namespace"], said["skill_name"]) == ("default", space, "pump")
    signature = sign(key, text)
    assert one(reviewer, APPROVE, skill, skill, signature) == "approved"
    # Again while it holds it changes nothing.
    assert one(reviewer, APPROVE, skill, skill, signature) == "approved"
    for status in ("disabled", "draft"):
        reviewer.execute("SELECT skill_system.set_skill_status(%s, %s)", [skill, status])
        assert sqlstate(reviewer, APPROVE, skill, skill, signature) == "SK403"
    assert one(reviewer, APPROVE, skill, skill, sign(key, text_of(agent, skill))) == "approved"
    # Elsewhere, under another name, and after everything was removed.
    register(agent, skill_md("pump"), namespace=f"{space}:other")
    assert sqlstate(reviewer, APPROVE, f"{space}:other/pump", f"{space}:other/pump", signature) == "SK403"
    for removal in (
        "SELECT skill_system.delete_skill(%s)",
        "SELECT skill_system.skill_store_delete(split_part(%s, '/', 2), '" + space + "')",
    ):
        admin.execute(removal, [skill])
        register(agent, skill_md("pump"), namespace=space)
        assert sqlstate(reviewer, APPROVE, skill, skill, signature) == "SK403"
    admin.execute("SELECT skill_system.drop_skill_namespace(%s)", [space])
    register(agent, skill_md("pump"), namespace=space)
    assert sqlstate(reviewer, APPROVE, skill, skill, signature) == "SK403"


def test_a_signature_stands_for_all_that_is_served(db, connect, roles, key, view, space):
    reviewer, admin = connect("test_reviewer"), connect("test_admin")
    skill = f"{space}/pump"
    register(db, skill_md("pump"), namespace=space)
    for change in (
        f"UPDATE {view} SET description = 'evil' WHERE namespace = '{space}'",
        f"UPDATE {view} SET scope = 'evil' WHERE namespace = '{space}'",
        f"SELECT skill_system.define_skill('{skill}', domain_tags => '{{production,root}}')",
        f"SELECT skill_system.define_skill('{skill}', tier2_definition => '{{\"steps\": []}}')",
    ):
        signature = sign(key, text_of(db, skill))
        admin.execute(change)
        assert sqlstate(reviewer, APPROVE, skill, skill, signature) == "SK403", change
    assert one(reviewer, APPROVE, skill, skill, sign(key, text_of(db, skill))) == "approved"
    before = served(db, space)
    # Once it is approved, it takes another signature to change any of it.
    for change in (
        f"UPDATE {view} SET description = 'worse' WHERE namespace = '{space}'",
        f"SELECT skill_system.define_skill('{skill}', domain_tags => '{{worse}}')",
        f"SELECT skill_system.define_skill('{skill}', tier1_manifest => '{{\"description\": \"worse\"}}')",
    ):
        assert sqlstate(admin, change) == "SK403", change
    assert served(db, space) == before


def test_a_signature_in_a_body_counts_where_that_was_switched_on(db, connect, roles, key, space):
    reviewer, admin = connect("test_reviewer"), connect("test_admin")
    body = '# Skill: hello\nt:\n    emit(text="hi")\ndefault: t\n'
    token = base64.urlsafe_b64encode(key.sign(body.encode())).decode().rstrip("=")
    signed = f"# Status: Approved v3:{token}\n{body}"
    store = "SELECT skill_system.skill_store_store(%s, %s, NULL, %s)->>'status'"
    assert one(reviewer, store, "hello", signed, space) == "Draft"
    for who in ("agent", "reviewer"):
        accept = "SELECT skill_system.accept_store_signatures(%s, true)"
        assert sqlstate(connect(f"test_{who}"), accept, space) == "42501"
    assert one(admin, "SELECT skill_system.accept_store_signatures(%s, true)", space) is True
    assert one(admin, "SELECT skill_system.accept_store_signatures(%s, true)", space) is False
    assert one(reviewer, store, "hello", signed, space) == "Approved"
    assert one(reviewer, store, "hello", signed, f"{space}:other") == "Draft"
    assert one(admin, "SELECT skill_system.accept_store_signatures(%s, false)", space) is True
    assert one(reviewer, store, "deploy", signed, space) == "Draft"
    assert db.execute(
        "SELECT event_data->>'accept' FROM skill_system.audit_logs WHERE event_type = 'skill.store_signatures' "
        "AND event_data->>'namespace' = %s ORDER BY id",
        [space],
    ).fetchall() == [("true",), ("false",)]
    # Elsewhere the approval is signed as for every other skill.
    skill = f"{space}/deploy"
    assert one(reviewer, APPROVE, skill, skill, sign(key, text_of(db, skill))) == "approved"


# --- Links from runs to versions ---


def linked(db, agent, skill):
    run = one(agent, "SELECT skill_system.log_run(%s, 'go', 'ok', 1)", skill)
    return one(
        db,
        "SELECT namespace || '/' || skill_name || ' ' || version_status FROM skill_system.run_skill_versions "
        "WHERE run_id = %s",
        run,
    )


@pytest.mark.parametrize("decision", ["approved", "disabled"])
def test_drafts_do_not_touch_the_link_of_runs(db, people, space, decision):
    agent, reviewer = people["agent"], people["reviewer"]
    manifest_id = f"id-{space}"
    register(agent, skill_md("real", MANIFEST.format(id=manifest_id)), namespace=space)
    assert linked(db, agent, manifest_id) == f"{space}/real draft"
    approve(reviewer, f"{space}/real")
    if decision == "disabled":
        reviewer.execute("SELECT skill_system.set_skill_status(%s, 'disabled')", [f"{space}/real"])
    right = f"{space}/real {decision}"
    assert linked(db, agent, manifest_id) == right
    # With the same id, once and twice, and with that name in the namespace of names without one.
    for name in ("one", "two"):
        register(agent, skill_md(name, MANIFEST.format(id=manifest_id)), namespace=f"{space}:evil")
        assert linked(db, agent, manifest_id) == right
    register(agent, skill_md(manifest_id, MANIFEST.format(id=f"other-{space}")))
    assert linked(db, agent, manifest_id) == right
    # By its full name and by its UUID it is the skill itself.
    assert linked(db, agent, f"default/{manifest_id}") == f"default/{manifest_id} draft"
    # What a reviewer approves under that name takes it, and two with that id make none the right one.
    if decision == "approved":
        approve(reviewer, f"{space}:evil/one")
        assert linked(db, agent, manifest_id) is None
        approve(reviewer, f"default/{manifest_id}")
        assert linked(db, agent, manifest_id) == f"default/{manifest_id} approved"


# --- Metadata that is accepted can be read ---


@pytest.mark.parametrize("depth", [8, 60, 62, 63, 64, 65, 126, 127])
def test_what_is_accepted_can_be_read_again(db, people, view, space, depth):
    agent, reviewer = people["agent"], people["reviewer"]
    deep = '{"a":' * depth + "1" + "}" * depth
    entrances = {
        "view": f"INSERT INTO {view} (namespace, skill_name, description, body, metadata) "
        "VALUES (%s, 'view', 'Does.', 'x', %s)",
        "store": "SELECT skill_system.skill_store_store('store', 'x', jsonb_build_object('metadata_bag', %s::jsonb), "
        "namespace => %s)",
        "define": "SELECT skill_system.define_skill(%s, %s, body => 'x')",
    }
    accepted = []
    for name, statement in entrances.items():
        who, arguments = agent, [space, deep]
        if name == "store":
            arguments.reverse()
        if name == "define":
            who, arguments = people["admin"], [f"{space}/define", deep]
        try:
            who.execute(statement, arguments)
            accepted.append(name)
        except psycopg.Error as refused:
            assert refused.sqlstate in ("54000", "22023"), (name, refused)
    assert set(accepted) == (set(entrances) if depth <= 60 else set()) or 60 < depth <= 64
    for name in accepted:
        approve(reviewer, f"{space}/{name}")
        state = "SELECT status, metadata::text, tier1_manifest::text FROM skill_system.skills WHERE namespace = %s "
        status, metadata, tier1 = db.execute(state + "AND skill_name = %s", [space, name]).fetchone()
        assert status == "approved" and (tier1 if name == "define" else metadata).count("{") == depth
        agent.execute("SELECT skill_system.skill_store_load(%s, NULL, %s)", [name, space])
        agent.execute("SELECT skill_system.load_skill(%s)", [f"{space}/{name}"])
        if name == "view":
            agent.execute(f"UPDATE {view} SET body = 'y' WHERE namespace = %s AND skill_name = 'view'", [space])
            approve(reviewer, f"{space}/view")
            assert db.execute(state + "AND skill_name = %s", [space, name]).fetchone()[1].count("{") == depth
    agent.execute("SELECT * FROM skill_system.scan_skills(%s)", [space])
    assert len(agent.execute("SELECT * FROM skill_system.redis_export('x:', %s)", [space]).fetchall()) >= len(accepted)


# --- Namespaces ---


def test_namespaces_are_removed_by_administrators(db, people, space):
    agent, reviewer, admin = people["agent"], people["reviewer"], people["admin"]
    drop = "SELECT skill_system.drop_skill_namespace(%s, 'not needed')"
    register(agent, skill_md("one"), namespace=space)
    token = one(db, "SELECT skill_system.skills_token(%s)", space)
    for who in (agent, reviewer):
        assert sqlstate(who, drop, space) == "42501"
    approve(reviewer, f"{space}/one")
    assert sqlstate(admin, drop, space) == "55000"
    admin.execute("SELECT skill_system.delete_skill(%s)", [f"{space}/one"])
    assert one(admin, drop, space) is True and one(admin, drop, space) is False
    count = "SELECT count(*) FROM skill_system.{} WHERE namespace = %s"
    assert one(db, count.format("skill_namespaces") + " AND dropped_at IS NULL", space) == 0
    assert one(db, count.format("skill_heads"), space) == 0
    changes = "SELECT action FROM skill_system.skill_changes(%s, %s)"
    seen = [row[0] for row in db.execute(changes, [token, space])]
    assert seen == ["status", "deleted", "deleted"], "a reader learns of it"
    # One that comes later under this name goes on with the numbers, so that the history has no two of one.
    register(agent, skill_md("two"), namespace=space)
    assert db.execute(
        "SELECT revision, action FROM skill_system.skill_history WHERE namespace = %s ORDER BY 1", [space]
    ).fetchall() == [(1, "registered"), (2, "status"), (3, "deleted"), (4, "deleted"), (5, "registered")]
    assert len(db.execute(changes, [token, space]).fetchall()) == 4
    # It counts again, and can be removed again.
    assert one(db, count.format("skill_namespaces") + " AND dropped_at IS NULL", space) == 1
    assert one(admin, drop, space) is True


def test_two_who_create_and_remove_a_namespace(db, people, space, connect):
    first, second = people["admin"], connect("test_agent")
    register(second, skill_md("one"), namespace=space)
    with first.transaction():
        first.execute("SELECT skill_system.drop_skill_namespace(%s)", [space])
        second.execute("SET lock_timeout = '1s'")
        with pytest.raises(errors.LockNotAvailable):
            register(second, skill_md("two"), namespace=space)
    assert register(second, skill_md("two"), namespace=space).created
