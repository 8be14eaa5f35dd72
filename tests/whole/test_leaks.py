"""Memory and open files of a session stay as they are, however often it calls, within one transaction too.

LEAK_CALLS is the number of calls of each function."""

import os

import pytest

import skills
from cluster import as_server
from functions import DEFAULTS, prepare

CALLS = int(os.environ.get("LEAK_CALLS", "1000"))
SLACK = 512 * 1024
# What the server itself keeps until the end of a transaction, in bytes, of each change of the same row.
KEPT = 300

CHECKLIST = DEFAULTS["uuid"]
SKILL = r"E'---\nname: leak\ndescription: d\n---\n\n# x\n'"
READS = {
    "check_policy": "skill_system.check_policy('dev', '{db.read,fs.write:/a/../b}'::text[])",
    "check_policy of another policy": "skill_system.check_policy('none' || n, '[\"db.read\"]'::jsonb)",
    "check_exec": "skill_system.check_exec('dev', '{git,status}')",
    "check_write": "skill_system.check_write('dev', '/srv/' || n)",
    "explain_policy": "skill_system.explain_policy('dev', '{db.read,db.write}')",
    "lint_policy": "skill_system.lint_policy('dev')",
    "effect_problem": "skill_system.effect_problem('DB.read' || n)",
    "uuid_v7": "skill_system.uuid_v7()",
    "validate_skill": f"skill_system.validate_skill({SKILL})",
    "search_skills": "skill_system.search_skills('ok and ' || n)",
    "skill_catalog": "skill_system.skill_catalog()",
    "skills_index": "skill_system.skills_index()",
    "export_skill": "skill_system.export_skill('ok')",
    "export_skill_archive": "skill_system.export_skill_archive('ok')",
    "resolve_skill": "skill_system.resolve_skill('ok')",
    "resolve_mentions": "skill_system.resolve_mentions('use $[default].ok')",
    "check_dependencies": "skill_system.check_dependencies()",
    "run_otlp": "skill_system.run_otlp(1)",
    "run_page": "skill_system.run_page(1)",
    "validate_entity": "skill_system.validate_entity('ok', '{\"a\": \"x\"}')",
    "missing_items": f"skill_system.missing_items('{CHECKLIST}')",
    "audit_inclusion_proof": "skill_system.audit_inclusion_proof((SELECT record_id FROM skill_system.audit_leaves(0, 1)))",
    "audit_leaves": "skill_system.audit_leaves(0, 10)",
    "audit_tile": "skill_system.audit_tile(0, 0)",
    "stuck_after": "skill_system.stuck_after()",
}
WRITES = {
    "append_audit": "skill_system.append_audit('test', '{\"a\": 1}')",
    "log_run": "skill_system.log_run('ok', 'op', 'ok', 5, policy_name => 'dev')",
    "log_event": "skill_system.log_event(1, 'note', '{\"a\": 1}')",
    "start_run": "skill_system.start_run('goal', policy_name => 'dev')",
    "load_skill": "skill_system.load_skill('ok', conversation_id => 'c' || n)",
    "update_checklist_item": f"skill_system.update_checklist_item('{CHECKLIST}', 0, 'in_progress', note => n::text)",
}
# Each is refused, by an error that is caught.
ERRORS = {
    "enforce_policy": "skill_system.effective_policy('none')",
    "log_run": "skill_system.log_run('ok', 'op', 'wrong')",
    "export_skill": "skill_system.export_skill('none')",
    "validate_entity": "skill_system.validate_entity('none', '{}')",
    "append_audit": "skill_system.append_audit(NULL, '{}')",
}
LOOP = """DO $$ DECLARE n int; BEGIN FOR n IN 1 .. {calls} LOOP {body} END LOOP; END $$"""
CAUGHT = "BEGIN PERFORM * FROM {call}; EXCEPTION WHEN OTHERS THEN IF sqlstate LIKE 'XX%' THEN RAISE; END IF; END;"


def used(connection):
    """Bytes of the memory contexts and of the process, and the number of its open files."""
    contexts, pid = connection.execute(
        "SELECT sum(total_bytes)::bigint, pg_backend_pid() FROM pg_backend_memory_contexts"
    ).fetchone()
    status = as_server("cat", f"/proc/{pid}/status")
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    return contexts, resident * 1024, len(as_server("ls", f"/proc/{pid}/fd").split())


@pytest.fixture(scope="module")
def filled(db):
    prepare(db)
    skills.fill_tables(db, "x")
    db.execute("SELECT * FROM skill_system.seal_audit()")
    db.execute("SELECT skill_system.audit_checkpoint()")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["read", "write", "error"])
def test_nothing_grows(filled, connect, kind):
    calls = {"read": READS, "write": WRITES, "error": ERRORS}[kind]
    body = CAUGHT if kind == "error" else "PERFORM * FROM {call};"
    grown = {}
    for name, call in calls.items():
        connection = connect()
        connection.execute("BEGIN")
        connection.execute(LOOP.format(calls=100, body=body.format(call=call)))
        before = used(connection)
        connection.execute(LOOP.format(calls=CALLS, body=body.format(call=call)))
        after = used(connection)
        connection.execute("ROLLBACK")
        contexts, resident, files = (now - then for now, then in zip(after, before, strict=True))
        grown[name] = (contexts, resident, files)
        connection.close()
    limit = SLACK + (KEPT * CALLS if kind == "write" else 0)
    assert {name: found for name, found in grown.items() if max(found[:2]) > limit or found[2] > 3} == {}
