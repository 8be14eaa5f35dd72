"""Every function that takes text, JSON or bytes stops at statement_timeout, whatever it is given."""

import time

import psycopg
import pytest

SIZE = 1_000_000
# How an argument is filled that is not the hostile one.
PLAIN = {"text": "x", "text[]": ["a"], "jsonb": "{}", "integer": 1, "bigint": 1, "boolean": True, "bytea": b"a"}
FRONT = "---\nname: x\ndescription: d\n"
TEXTS = {
    "letters": "a" * SIZE,
    "lines": "a\n" * (SIZE // 2),
    "numbers": "[" + "1," * (SIZE // 2) + "1]",
    "depth": "[" * SIZE,
    "front matter": FRONT + "k: v\n" * (SIZE // 5) + "---\n",
    "metadata": FRONT + "metadata:\n" + "".join(f"  k{n}: v\n" for n in range(SIZE // 12)) + "---\n",
    "aliases": FRONT + "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a,*a]\n" for n in range(1000)) + "---\n",
    "mentions": "@a/b $a/b " * (SIZE // 10),
    "links": "[a](b) " * (SIZE // 7),
    "ticks": "`" * SIZE,
    "fences": "```\n" * (SIZE // 4),
    "comments": "<!--" * (SIZE // 4),
    "array": "{" + "a," * (SIZE // 2) + "a}",
    "ranges": ">=1.0.0 " * (SIZE // 8),
    "choices": "^1 || " * (SIZE // 6),
    "words": " ".join(f"w{n}" for n in range(SIZE // 7)),
    "dots": "a." * (SIZE // 2),
}
OBJECTS = '{"name":"a%d","path":"p%d","content":"x"}'
HOSTILE = {
    "text": TEXTS,
    "jsonb": {
        "array": "[" + ",".join(f'"a{n}"' for n in range(SIZE // 8)) + "]",
        "object": "{" + ",".join(f'"k{n}":{n}' for n in range(SIZE // 14)) + "}",
        "objects": "[" + ",".join(OBJECTS % (n, n) for n in range(SIZE // 40)) + "]",
        "spaces": '{"spaces":[' + ",".join(f'{{"id":"a{n}","sources":["b{n}"]}}' for n in range(SIZE // 36)) + "]}",
    },
    "text[]": {"many": [f"a{n}" for n in range(50_000)], "long": ["x" * 100_000] * 10},
    "bytea": {"letters": b"a" * SIZE, "zip": b"PK\x03\x04" * (SIZE // 4)},
}
# They act on the server, or wait for it, whatever they are given.
LEFT_OUT = {"adopt_log", "seal_audit", "maintain", "create_client_schema", "drop_client_schema"}


@pytest.mark.parametrize("hostile_type", HOSTILE)
def test_it_stops_at_statement_timeout(db, hostile_type):
    functions = db.execute(
        "SELECT oid::regproc::text, proname, ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes::oid[]) t)::text[]"
        " FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace AND prokind = 'f'"
        " AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 2"
    ).fetchall()
    slow, calls = [], 0
    for function, name, types in functions:
        for at, _ in enumerate(types):
            if types[at] != hostile_type or name in LEFT_OUT:
                continue
            for label, value in HOSTILE[hostile_type].items():
                arguments = [value if i == at else PLAIN.get(type) for i, type in enumerate(types)]
                casts = ",".join(f"%s::{type}" for type in types)
                calls += 1
                # What the server itself needs for the argument counts too, so the limit is a generous one.
                took = elapsed(db, f"SELECT * FROM {function}({casts})", arguments)
                if took > 2 and (again := elapsed(db, f"SELECT * FROM {function}({casts})", arguments)) > 2:
                    slow.append((name, at, label, round(again, 1)))
    assert calls > 5 and slow == []


FENCED = "E'---\\nname: x\\ndescription: d\\n---\\n' || "
MANIFEST = 'E\'```skill-manifest\\n{"schema_version": "2.0", "id": "x", "effects": []}\\n```\\n\''
# Documents of many megabytes, which the server writes, so that only the function takes time.
LARGE = {
    "fences": f"{FENCED}repeat(E'```\\n', 2000000)",
    "lines": f"{FENCED}repeat(E'x\\n', 2000000)",
    "carriage returns": f"{FENCED}repeat(E'x\\r\\n', 2000000)",
    "manifests": f"{FENCED}repeat({MANIFEST}, 150000)",
    "letters": f"{FENCED}repeat('é', 4000000)",
    "headers": r"E'# Skill: x\n' || repeat(E'# Status\n', 1000000)",
    "open comment": f"{FENCED}repeat(E'<!--\\n', 1500000)",
}
READERS = [
    "skill_system.validate_skill({})",
    "skill_system.register_skill({})",
    "skill_system.skill_store_store('x', {})",
    "skill_system.append_audit({}, '{{}}')",
]


@pytest.mark.parametrize("reader", READERS)
def test_a_large_document_is_given_up_in_time(db, reader):
    late = []
    for label, document in LARGE.items():
        base = elapsed(db, f"SELECT length({document})", [])
        took = min(elapsed(db, f"SELECT * FROM {reader.format(document)}", []) for _ in range(2))
        if took > base + 1:
            late.append((label, round(took - base, 2)))
    assert late == []


def test_large_records_are_given_up_in_time(fresh_database, connect):
    db = connect(dbname=fresh_database())
    for data in (
        "jsonb_build_object('a', repeat('\"', 7900000))",
        "jsonb_build_object('a', repeat(E'\\x01', 2700000))",
        "(SELECT jsonb_build_object('a', jsonb_agg(g)) FROM generate_series(1, 1000000) g)",
        "(SELECT jsonb_object_agg('k' || g, g) FROM generate_series(1, 500000) g)",
    ):
        for _ in range(2):
            db.execute(f"SELECT skill_system.append_audit('x', {data})")
    db.execute("SELECT FROM skill_system.seal_audit()")
    for call in ("audit_export()", "verify_audit()", "audit_checkpoint()"):
        took = min(elapsed(db, f"SELECT * FROM skill_system.{call}", []) for _ in range(2))
        assert took < 1.2, (call, took)


def elapsed(db, statement, arguments):
    db.execute("BEGIN")
    db.execute("SET LOCAL statement_timeout = '200ms'")
    started = time.monotonic()
    try:
        db.execute(statement, arguments)
    except psycopg.Error:
        pass
    took = time.monotonic() - started
    db.execute("ROLLBACK")
    return took
