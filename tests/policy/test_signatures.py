"""Clients that choose a function by its name and the names of its arguments, and clients that send no types."""

import pytest
from psycopg import errors

# The functions of several signatures, and their names with one.
SINGLE = {"check_policy": "check_effects", "enforce_policy": "enforce_effects", "explain_policy": "explain_effects"}


@pytest.fixture(autouse=True, scope="module")
def starter(db, roles):
    db.execute("SELECT skill_system.install_starter_policies()")


def one(connection, statement, *arguments):
    return connection.execute(statement, arguments).fetchone()[0]


def test_every_function_has_a_name_with_one_signature(db):
    several = db.execute(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace"
        " GROUP BY proname HAVING count(*) > 1 ORDER BY 1"
    ).fetchall()
    assert [name for (name,) in several] == sorted(SINGLE)
    for name in SINGLE.values():
        assert db.execute(
            "SELECT proargnames[:pronargs], pronargdefaults FROM pg_proc WHERE oid = %s::regproc",
            [f"skill_system.{name}"],
        ).fetchall() == [(["policy_name", "effects"], 0)]


@pytest.mark.parametrize(("several", "single"), SINGLE.items())
def test_both_names_are_the_same_function(db, several, single):
    described = """SELECT p.prosrc, p.provolatile, p.proparallel, p.proisstrict, p.proconfig, p.proacl::text,
        pg_get_function_result(p.oid) FROM pg_proc p WHERE p.oid = %s::regprocedure"""
    assert (
        db.execute(described, [f"skill_system.{several}(text, jsonb)"]).fetchall()
        == db.execute(described, [f"skill_system.{single}(text, jsonb)"]).fetchall()
    )


def test_parameters_without_types_are_read_as_the_client_means_them(connect):
    """What asyncpg does: it prepares without types and encodes by those that the server reports."""
    agent = connect("test_agent")
    for name in SINGLE.values():
        agent.execute(f"PREPARE {name} AS SELECT * FROM skill_system.{name}($1, $2)")
        assert (
            one(agent, "SELECT parameter_types::text FROM pg_prepared_statements WHERE name = %s", name)
            == "{text,jsonb}"
        )
    assert agent.execute("""EXECUTE check_effects('dev', '["db.read", "fs.read:/srv"]')""").fetchone()[0] is True


def test_a_request_of_postgrest(connect):
    """The statement that PostgREST makes of POST /rpc/check_effects with a body."""
    agent = connect("test_agent")
    call = """WITH pgrst_source AS (SELECT pgrst_call.* FROM (SELECT %s::json AS json_data) pgrst_payload,
        LATERAL (SELECT * FROM json_to_record(pgrst_payload.json_data) AS _(policy_name text, effects jsonb)) pgrst_body,
        LATERAL skill_system.{}(policy_name => pgrst_body.policy_name, effects => pgrst_body.effects) pgrst_call)
        SELECT {} FROM pgrst_source"""
    for body, decision in (
        ('{"policy_name": "dev", "effects": ["db.read", "fs.read"]}', "allow"),
        ('{"policy_name": "dev", "effects": "db.read"}', "allow"),
        ('{"policy_name": "dev", "effects": "net.fetch:example.org"}', "ask"),
        ('{"policy_name": "dev", "effects": "db.raed"}', "deny"),
        ('{"policy_name": "dev", "effects": ""}', "deny"),
        ('{"policy_name": "dev", "effects": ["db.read", null]}', "deny"),
        ('{"policy_name": "dev", "effects": {"db.read": true}}', "deny"),
        ('{"policy_name": "dev", "effects": 1}', "deny"),
        ('{"policy_name": "dev", "effects": null}', "deny"),
        ('{"policy_name": "dev"}', "deny"),
        ('{"policy_name": "de", "effects": ["db.read"]}', "deny"),
    ):
        assert one(agent, call.format("check_effects", "decision"), body) == decision, body
        enforce = call.format("enforce_effects", "decision")
        if decision == "allow":
            assert one(agent, enforce, body) == decision
        else:
            with pytest.raises(errors.InsufficientPrivilege):
                agent.execute(enforce, [body])
    assert (
        one(agent, call.format("explain_effects", "verdict"), '{"policy_name": "locked", "effects": "db.read"}')
        == "deny"
    )


def test_a_policy_given_where_it_was_expected_is_looked_at(connect):
    """load_skill(skill, 'locked') took the name for that of a conversation, and loaded."""
    admin, agent = connect("test_admin"), connect("test_agent")
    admin.execute(
        "SELECT skill_system.define_skill('signature-test', '{\"description\": \"d\"}', effects => '{fs.read}', body => 'b')"
    )
    admin.execute(
        "SELECT skill_system.set_skill_status(skill_name, 'approved', current_version) FROM skill_system.skills"
        " WHERE skill_name = 'signature-test'"
    )
    admin.execute(
        "INSERT INTO skill_system.skill_artifacts (id, skill_id, name, content) SELECT 'signature-test', id, 'n', 'c'"
        " FROM skill_system.skills WHERE skill_name = 'signature-test'"
    )
    for call in ("load_skill('signature-test', {})", "load_artifact('signature-test', {})"):
        assert agent.execute(f"SELECT * FROM skill_system.{call.format(repr('dev'))}").rowcount == 1
        # Also what was meant as a conversation is not taken for permission.
        for name in ("locked", "no such policy", "c-17"):
            with pytest.raises(errors.InsufficientPrivilege):
                agent.execute(f"SELECT * FROM skill_system.{call.format(repr(name))}")
    for call, names in (
        ("skill_catalog(NULL, {})", "skill"),
        ("search_skills('signature-test', {})", "skill_name"),
        ("available_skills_prompt('default', {})", "available_skills_prompt"),
        ("skills_discovery_index('/x', {})", "skills_discovery_index"),
        ("skills_index('default', {})", "skills_index"),
    ):
        for name, shown in (("dev", True), ("locked", False)):
            found = agent.execute(f"SELECT {names} FROM skill_system.{call.format(repr(name))}").fetchall()
            assert any("signature-test" in str(row) for row in found) == (shown and "skills_index" not in call), (
                call,
                name,
            )
    run = one(agent, "SELECT skill_system.start_run('goal', 'locked', 'me')")
    logged = one(agent, "SELECT skill_system.log_run('signature-test', 'o', 'ok', 1, 'locked', 'me')")
    assert agent.execute(
        "SELECT DISTINCT agent_id, coalesce(effective_policy->>'policy', effective_policy->>'name') FROM skill_system.runs "
        "WHERE id IN (%s, %s)",
        [run, logged],
    ).fetchall() == [("me", "locked")]
    for call in ("start_run('goal', 'me')", "log_run('signature-test', 'o', 'ok', 1, 'me')"):
        with pytest.raises(errors.UndefinedObject):
            agent.execute(f"SELECT skill_system.{call}")
