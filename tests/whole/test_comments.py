"""The inventory of comments: the catalogue tells every reader, person or model, what each object is for."""

import pytest

# Called by the server, verify_audit() or seal_audit() only, never by a person: an example would mislead.
NO_EXAMPLE = {"audit_problem", "audit_record_digest", "audit_leaf_hash", "create_keyring"}

OBJECTS = """
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'r' THEN 'table' WHEN 'p' THEN 'table'
    WHEN 'm' THEN 'materialized view' END AS kind, c.relname::text AS name,
    obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT 'column', c.relname || '.' || a.attname, col_description(c.oid, a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'skill_system'::regnamespace
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    AND NOT c.relispartition  -- the columns are those of the parent
UNION ALL
SELECT 'function', p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') FROM pg_proc p
    WHERE p.pronamespace = 'skill_system'::regnamespace
UNION ALL
SELECT 'type', t.typname::text, obj_description(t.oid, 'pg_type') FROM pg_type t LEFT
    JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'skill_system'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
"""


def test_everything_has_a_comment(db):
    found = db.execute(OBJECTS).fetchall()
    kinds = {kind for kind, *_ in found}
    assert {"table", "view", "column", "function", "type"} <= kinds, f"the inventory sees only {kinds}"
    assert [(kind, name) for kind, name, comment in found if not (comment or "").strip()] == []
    too_short = [
        (kind, name, comment)
        for kind, name, comment in found
        if kind in ("table", "view", "function", "type") and len(comment or "") < 40
    ]
    assert too_short == []


def test_comments_of_functions_show_an_example(db):
    found = db.execute(
        "SELECT proname::text, oid::regprocedure::text, obj_description(oid, 'pg_proc') FROM pg_proc "
        "WHERE pronamespace = 'skill_system'::regnamespace AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"
    ).fetchall()
    assert len(found) > 20
    assert [
        signature for name, signature, comment in found if name not in NO_EXAMPLE and "Example" not in (comment or "")
    ] == []
    assert NO_EXAMPLE <= {name for name, *_ in found}, "the list of exceptions names a function that is gone"
    # Each example calls its own function.
    assert [
        signature
        for name, signature, comment in found
        if name not in NO_EXAMPLE and f"skill_system.{name}(" not in comment
    ] == []


def test_settings_are_described(db):
    db.execute("LOAD 'skill_system'")
    found = db.execute(
        "SELECT name, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'skill\\_system.%'"
    ).fetchall()
    assert {
        "skill_system.tenant",
        "skill_system.keyring_file",
        "skill_system.keyring_command",
        "skill_system.run_retention",
        "skill_system.stuck_after",
    } <= {name for name, *_ in found}
    assert [name for name, short, extra in found if not (short or "").strip() or not (extra or "").strip()] == []


def test_partitions_made_later_have_comments_too(db):
    db.execute("SELECT skill_system.create_audit_partition('2040-01-01')")
    assert db.execute("SELECT obj_description('skill_system.audit_logs_2040_01'::regclass, 'pg_class')").fetchone()[0]


@pytest.mark.parametrize("what", ["EXTENSION"])
def test_the_extension_itself_has_one(db, what):
    assert db.execute(
        "SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'skill_system'"
    ).fetchone()[0]
