"""Event types that modules reserve: nobody else writes records that read like theirs."""

import re

import pytest
from conftest import ROOT

from sessions import refused

RESERVED = re.findall(
    r'"([a-z_]+\.)"',
    "".join(
        re.findall(
            r"event_types: &\[(.*?)\]",
            "".join(path.read_text() for path in sorted((ROOT / "src").glob("*/mod.rs"))),
            re.DOTALL,
        )
    ),
)
INSERT = "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES (%s, '{}')"
APPEND = "SELECT skill_system.append_audit(%s, '{}')"
DENY = "SELECT skill_system.log_denial(%s, '{}')"
# What a reader takes for a prefix of a module.
SPELLINGS = [
    "{}x",
    "{}",
    " {}x",
    "\t{}x",
    "\u00a0{}x",
    "\u200b{}x",
    "\u202e{}x",
    "\u2060{}x",
]


def test_each_module_names_the_event_types_that_it_writes():
    assert {"run.", "policy.", "skill.", "filing.", "row.", "table.", "rule.", "compliance.", "audit."} <= set(RESERVED)
    # The types as the sources have them: the first literal after a call that appends.
    calls = re.compile(
        r"\b(?:append|append_by|append_for|append_system|append_audit|audit_run|denial::record)\(.{0,80}?"
        r'"([a-z_]+\.)(?:[a-z_]+|\{\w+\})"',
        re.DOTALL,
    )
    written = {prefix for path in (ROOT / "src").rglob("*.rs") for prefix in calls.findall(path.read_text())}
    assert len(written) > 5 and written <= set(RESERVED), written - set(RESERVED)


@pytest.mark.parametrize("prefix", RESERVED)
def test_no_role_writes_a_reserved_type(db, roles, connect, prefix):
    before = db.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone()
    types = [spelling.format(prefix) for spelling in SPELLINGS]
    types += [
        prefix.upper() + "x",
        prefix.title() + "x",
        prefix.replace(".", "\uff0e") + "x",
        prefix.replace(".", "\u2024x"),
        prefix.replace(".", " ."),
        prefix[0] + "\u200d" + prefix[1:],
        chr(ord(prefix[0]) - ord("a") + 0xFF41) + prefix[1:],
    ]
    for role in (None, "test_agent", "test_reviewer", "test_admin"):
        writer = connect(role)
        for event_type in types:
            for statement in (APPEND, INSERT, DENY):
                error = refused(writer, "42501", statement, [event_type])
                assert prefix in error.diag.message_primary and error.diag.message_hint
    assert db.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone() == before


def test_other_types_are_free(db, roles, connect):
    agent = connect("test_agent")
    for event_type in ("runner.x", "auditor.came", "form.sent", "x.audit.y", "policy", "not found", "tool.denied"):
        agent.execute(APPEND, [event_type])
        agent.execute(INSERT, [event_type])
    agent.execute(DENY, ["tool.denied"])


# Letters of other scripts, other dots, and what is not seen.
@pytest.mark.parametrize(
    "event_type",
    [
        "r\u0443n.logged",
        "run\u00b7logged",
        "run\u30fblogged",
        "run\ua4f8logged",
        "\u0455kill.approved",
        "p\u03bflicy.changed",
        "aud\u03b9t.checkpoint",
        "ru\u0274.logged",
        "run\u0323.logged",
        "\u00fc",
    ],
)
def test_only_ascii_is_free(db, roles, connect, event_type):
    for role in (None, "test_agent", "test_admin"):
        for statement in (APPEND, INSERT, DENY):
            error = refused(connect(role), "22023", statement, [event_type])
            assert f"U+{next(ord(c) for c in event_type if c > '~'):04X}" in error.diag.message_detail


@pytest.mark.parametrize(
    "event_type", ["ro\u0057.x", "rovv.x", "po1icy.x", "poIicy.x", "f1l|ng.x", "ski1l.x", "runs.x"]
)
def test_ascii_that_looks_like_a_reserved_type_is_one(db, roles, connect, event_type):
    agent = connect("test_agent")
    for statement in (APPEND, INSERT, DENY):
        refused(agent, "42501", statement, [event_type])


def test_older_records_keep_their_types(db):
    """What was signed with another type is restored as it is, and verified."""
    columns = "id, tenant_id, event_type, event_data, created_at, signature, recorded_at, transaction_id, "
    columns += "session_user_name, current_user_name, key_id"
    with db.transaction(force_rollback=True):
        db.execute(APPEND, ["before"])
        db.execute(
            f"INSERT INTO skill_system.audit_logs ({columns}) SELECT skill_system.uuid_v7(), tenant_id, 'run\u00b7x', event_data, "
            "created_at, signature, recorded_at, transaction_id, session_user_name, current_user_name, key_id "
            "FROM skill_system.audit_logs WHERE event_type = 'before'"
        )


def test_a_failed_write_of_a_module_leaves_the_types_reserved(db, roles, connect):
    """The right to write a reserved type ends with the write, also when that raises."""
    agent = connect("test_agent")
    with agent.transaction(force_rollback=True):
        agent.execute(
            "DO $$ BEGIN PERFORM skill_system.append_audit('x', '{}', 'a', repeat('x', 21)); "
            "EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$"
        )
        agent.execute("SELECT skill_system.log_run('s', 'o', 'ok')")
        refused(agent, "42501", INSERT, ["run.logged"])
