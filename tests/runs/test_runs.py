"""Runs with real clients: the router and files of the skill-system-postgres skill, OpenTelemetry's own
parser, several sessions."""

import base64
import json
import os
import threading
from pathlib import Path

import psycopg
import pytest
from google.protobuf import json_format
from opentelemetry.proto.trace.v1 import trace_pb2
from psycopg.errors import LockNotAvailable

from cluster import without_months
from sessions import refused

# The two files and the migration of github arthur0824hao/skills (skill-system-postgres), without their comments.
ENUM = """
CREATE SCHEMA IF NOT EXISTS skill_system;
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
                 WHERE n.nspname = 'skill_system' AND t.typname = 'run_status') THEN
    CREATE TYPE skill_system.run_status AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled');
  END IF;
END $$;
CREATE TABLE IF NOT EXISTS skill_system.policy_profiles (
  id BIGSERIAL PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  allowed_effects TEXT[] NOT NULL DEFAULT ARRAY[]::TEXT[],
  allowed_exec TEXT[] NOT NULL DEFAULT ARRAY[]::TEXT[],
  allowed_write_roots TEXT[] NOT NULL DEFAULT ARRAY[]::TEXT[],
  metadata JSONB NOT NULL DEFAULT '{}'::jsonb,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
"""
EVENTS = """
CREATE TABLE IF NOT EXISTS skill_system.run_events (
  id BIGSERIAL PRIMARY KEY,
  run_id BIGINT NOT NULL REFERENCES skill_system.runs(id) ON DELETE CASCADE,
  ts TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  level TEXT NOT NULL DEFAULT 'info',
  event_type TEXT NOT NULL,
  payload JSONB NOT NULL DEFAULT '{}'::jsonb
);
"""
V1 = (
    ENUM
    + """
CREATE TABLE IF NOT EXISTS skill_system.task_specs (
  id BIGSERIAL PRIMARY KEY,
  goal TEXT NOT NULL,
  workspace JSONB NOT NULL DEFAULT '{}'::jsonb,
  inputs JSONB NOT NULL DEFAULT '{}'::jsonb,
  verification JSONB NOT NULL DEFAULT '{}'::jsonb,
  pinned_pipeline JSONB NOT NULL DEFAULT '[]'::jsonb,
  budgets JSONB NOT NULL DEFAULT '{}'::jsonb,
  policy_profile_id BIGINT NULL REFERENCES skill_system.policy_profiles(id) ON DELETE SET NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE TABLE IF NOT EXISTS skill_system.runs (
  id BIGSERIAL PRIMARY KEY,
  task_spec_id BIGINT NOT NULL REFERENCES skill_system.task_specs(id) ON DELETE CASCADE,
  status skill_system.run_status NOT NULL DEFAULT 'queued',
  started_at TIMESTAMPTZ NULL,
  ended_at TIMESTAMPTZ NULL,
  effective_policy JSONB NOT NULL DEFAULT '{}'::jsonb,
  metrics JSONB NOT NULL DEFAULT '{}'::jsonb,
  error TEXT NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
"""
    + EVENTS
    + """
CREATE TABLE IF NOT EXISTS skill_system.artifacts (
  id BIGSERIAL PRIMARY KEY,
  run_id BIGINT NOT NULL REFERENCES skill_system.runs(id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  path TEXT NOT NULL,
  metadata JSONB NOT NULL DEFAULT '{}'::jsonb,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX IF NOT EXISTS idx_task_specs_policy_profile_id ON skill_system.task_specs(policy_profile_id);
CREATE INDEX IF NOT EXISTS idx_runs_task_spec_id ON skill_system.runs(task_spec_id);
CREATE INDEX IF NOT EXISTS idx_run_events_run_id ON skill_system.run_events(run_id);
CREATE INDEX IF NOT EXISTS idx_artifacts_run_id ON skill_system.artifacts(run_id);
"""
)
V2 = (
    ENUM
    + """
CREATE TABLE IF NOT EXISTS skill_system.runs (
  id BIGSERIAL PRIMARY KEY,
  goal TEXT,
  agent_id TEXT,
  policy_profile_id BIGINT REFERENCES skill_system.policy_profiles(id) ON DELETE SET NULL,
  task_spec_id BIGINT,
  status skill_system.run_status NOT NULL DEFAULT 'queued',
  started_at TIMESTAMPTZ NULL,
  ended_at TIMESTAMPTZ NULL,
  effective_policy JSONB NOT NULL DEFAULT '{}'::jsonb,
  metrics JSONB NOT NULL DEFAULT '{}'::jsonb,
  error TEXT NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
"""
    + EVENTS
    + """
CREATE INDEX IF NOT EXISTS idx_runs_agent_id ON skill_system.runs(agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_runs_status ON skill_system.runs(status);
CREATE INDEX IF NOT EXISTS idx_run_events_run_id ON skill_system.run_events(run_id);
"""
)
MIGRATE = """
ALTER TABLE skill_system.runs ALTER COLUMN task_spec_id DROP NOT NULL;
ALTER TABLE skill_system.runs DROP CONSTRAINT IF EXISTS runs_task_spec_id_fkey;
DO $$ BEGIN
  ALTER TABLE skill_system.runs ADD COLUMN goal TEXT;
EXCEPTION WHEN duplicate_column THEN NULL;
END $$;
DO $$ BEGIN
  ALTER TABLE skill_system.runs ADD COLUMN agent_id TEXT;
EXCEPTION WHEN duplicate_column THEN NULL;
END $$;
DO $$ BEGIN
  ALTER TABLE skill_system.runs ADD COLUMN policy_profile_id BIGINT REFERENCES skill_system.policy_profiles(id)
      ON DELETE SET NULL;
EXCEPTION WHEN duplicate_column THEN NULL;
END $$;
CREATE INDEX IF NOT EXISTS idx_runs_agent_id ON skill_system.runs(agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_runs_status ON skill_system.runs(status);
"""
CATALOGUES = {
    "v1": [V1],
    "v2_fresh": [V2],
    "v1_then_migrate_v2": [V1, MIGRATE],
    "v1_then_migrate_v2_twice_then_v2_init": [V1, MIGRATE, MIGRATE, V2],
}
COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid
    AND d.adnum = a.attnum
WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum"""


def one(connection, statement, *parameters):
    row = connection.execute(statement, parameters).fetchone()
    return row[0] if row and len(row) == 1 else row


def test_router_statements_work_unchanged_for_an_agent(db, roles, connect):
    db.execute("SELECT skill_system.install_starter_policies()")
    agent = connect("test_agent")
    assert "db.read" in one(agent, "SELECT allowed_effects FROM skill_system.policy_profiles WHERE name = 'dev'")
    run = one(
        agent,
        "INSERT INTO skill_system.runs(task_spec_id, status, started_at, effective_policy)\n"
        "VALUES (NULL, 'running', NOW(), '{}'::jsonb) RETURNING id;",
    )
    for status, duration in (("ok", 40), ("error", 2)):
        agent.execute(
            "INSERT INTO skill_system.run_events(run_id, level, event_type, payload)\n"
            f"VALUES ({run}, 'info', 'step_completed',\n  jsonb_build_object('skill', 'router', 'operation', 'op',"
            f" 'status', '{status}', 'duration_ms', {duration}));"
        )
    done = agent.execute(
        "UPDATE skill_system.runs SET status='succeeded', ended_at=NOW(),\n"
        f"  metrics=jsonb_build_object('steps', 2, 'duration_ms', 42) WHERE id={run};"
    )
    assert done.rowcount == 1
    assert one(db, "SELECT status::text, metrics, tenant_id FROM skill_system.runs WHERE id = %s", run) == (
        "succeeded",
        {"steps": 2, "duration_ms": 42},
        "default",
    )
    # Those steps count like any others.
    assert one(
        db, "SELECT count, succeeded, failed, p50_duration_ms FROM skill_system.run_stats WHERE skill = 'router'"
    ) == (2, 1, 1, 21.0)
    # And the end is an end for plain SQL too.
    refused(agent, "55000", "UPDATE skill_system.runs SET status = 'running' WHERE id = %s", [run])
    for statement in (
        "UPDATE skill_system.run_events SET payload = '{}'",
        "DELETE FROM skill_system.run_events",
        "DELETE FROM skill_system.runs",
        "TRUNCATE skill_system.run_events",
        "UPDATE skill_system.runs SET tenant_id = 'x'",
        "UPDATE skill_system.runs SET id = 1",
        "INSERT INTO skill_system.runs (id) VALUES (1)",
        "INSERT INTO skill_system.runs (tenant_id) VALUES ('x')",
        "SELECT setval('skill_system.runs_id_seq', 1)",
        "SELECT * FROM skill_system.maintain()",
        "SELECT * FROM skill_system.import_legacy('x')",
    ):
        refused(agent, "42501", statement)


def test_columns_of_skill_system_postgres_come_first_with_types_and_defaults(db):
    ours = [tuple(row) for row in db.execute(COLUMNS)]
    for table, seed in {
        "runs": [
            "id bigint",
            "goal text",
            "agent_id text",
            "policy_profile_id bigint",
            "task_spec_id bigint",
            "status skill_system.run_status",
            "started_at timestamp with time zone",
            "ended_at timestamp with time zone",
            "effective_policy jsonb",
            "metrics jsonb",
            "error text",
            "created_at timestamp with time zone",
        ],
        "run_events": [
            "id bigint",
            "run_id bigint",
            "ts timestamp with time zone",
            "level text",
            "event_type text",
            "payload jsonb",
        ],
    }.items():
        assert [f"{column} {kind}" for name, column, kind, *_ in ours if name == table][: len(seed)] == seed
    folder = os.environ.get("SKILL_VECTORS")
    if folder:
        vectors = json.loads(Path(folder, "skill-system.json").read_text())
        mine = {(name, column): rest for name, column, *rest in ours}
        for wanted in vectors["v2_fresh"]["columns"]:
            assert mine[wanted["table"], wanted["column"]] == [wanted["type"], wanted["not_null"], wanted["default"]], (
                wanted
            )
    indexes = {row[0] for row in db.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'skill_system'")}
    assert {"idx_runs_agent_id", "idx_runs_status", "idx_run_events_run_id"} <= indexes


def test_files_of_skill_system_postgres_run_over_the_extension_and_change_nothing(db):
    everything = """
        SELECT c.relname, c.relkind::text, c.relrowsecurity,
            array_agg(row(a.attname, a.atttypid, a.attnotnull, a.attnum) ORDER BY a.attnum)::text,
               (SELECT array_agg(pg_get_constraintdef(k.oid) ORDER BY k.conname)::text FROM pg_constraint k
                   WHERE k.conrelid = c.oid),
               (SELECT array_agg(pg_get_indexdef(i.indexrelid) ORDER BY i.indexrelid)::text FROM pg_index i
                   WHERE i.indrelid = c.oid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'skill_system'::regnamespace GROUP BY c.oid ORDER BY 1"""
    before = db.execute(everything).fetchall()
    members = "SELECT count(*) FROM pg_depend WHERE deptype = 'e'"
    count = one(db, members)
    for script in (V2, MIGRATE, V2):
        db.execute(script)
    assert db.execute(everything).fetchall() == before
    assert one(db, members) == count


def fill_legacy(connection, catalogue):
    """A legacy database with something in every table."""
    connection.execute("""
        INSERT INTO skill_system.policy_profiles (id, name, allowed_effects, allowed_exec, allowed_write_roots,
            metadata, created_at) VALUES
            (3, 'dev', '{db.read,DB.WRITE,"fs read",net.fetch}', '{git,"rm  -rf"}', '{/srv/app,relative/dir}',
                '{"owner": "me", "n": 12345678901234567890}', '2025-01-01'),
            (8, 'empty', '{}', '{}', '{}', '[1]', '2025-01-02'),
            (9, ' blank ', '{}', '{}', '{}', '{}', '2025-01-03');
        SELECT setval('skill_system.policy_profiles_id_seq', 20);""")
    if catalogue == "v2_fresh":
        connection.execute("""
            INSERT INTO skill_system.runs (id, goal, agent_id, policy_profile_id, status, created_at, metrics) VALUES
                (5, 'g5', 'coder', 3, 'succeeded', '2025-02-01', '{"steps": 2}'),
                    (6, NULL, NULL, 9, 'running', '2025-02-02', '{}');""")
    else:
        connection.execute("""
            INSERT INTO skill_system.task_specs (id, goal, policy_profile_id, budgets)
                VALUES (1, 'the spec', 3, '{"tokens": 5}'), (2, 'idle', NULL, '{}');
            INSERT INTO skill_system.runs (id, task_spec_id, status, created_at, metrics, error) VALUES
                (5, 1, 'succeeded', '2025-02-01', '{"steps": 2}', NULL),
                    (6, 1, 'failed', '2025-02-02', '{}', 'policy_blocked:proc.exec');
            INSERT INTO skill_system.artifacts (id, run_id, kind, path)
                VALUES (4, 5, 'file', '/a'), (7, 6, 'file', '/b');""")
        if catalogue != "v1":
            connection.execute("""
                INSERT INTO skill_system.runs (id, goal, agent_id, policy_profile_id, status, created_at)
                    VALUES (7, 'own goal', 'coder', 8, 'queued', '2025-02-03')""")
    connection.execute("""
        INSERT INTO skill_system.run_events (id, run_id, ts, level, event_type, payload) VALUES
            (11, 5, '2025-02-01 10:00Z', 'info', 'step_started', '{}'),
                (12, 5, '2025-02-01 10:01Z', 'error', 'step_failed', '{"exit_code": 1}'),
            (13, 6, '2025-02-02 10:00Z', 'info', 'step_completed', '{"skill": "s"}');
        SELECT setval('skill_system.runs_id_seq', 100), setval('skill_system.run_events_id_seq', 13);""")


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_import_legacy(catalogue, fresh_database, connect):
    old = connect(dbname=fresh_database(extension=False))
    for script in CATALOGUES[catalogue]:
        old.execute(script)
    folder = os.environ.get("SKILL_VECTORS")
    if folder:
        vectors = json.loads(Path(folder, "skill-system.json").read_text())[catalogue]["columns"]
        assert sorted(old.execute(COLUMNS).fetchall(), key=str) == sorted(
            [(c["table"], c["column"], c["type"], c["not_null"], c["default"]) for c in vectors], key=str
        )
    fill_legacy(old, catalogue)
    old.execute('ALTER SCHEMA skill_system RENAME TO "Old ""Skills"')
    old.execute("CREATE EXTENSION skill_system")
    call = """SELECT * FROM skill_system.import_legacy('Old "Skills')"""
    rows = {name: (imported, skipped, detail) for name, imported, skipped, detail in old.execute(call)}
    runs = 3 if catalogue.startswith("v1_") else 2
    assert rows["policy_profiles"][:2] == (2, 1)
    assert "4 rule(s) refused" in rows["policy_profiles"][2] and "blank" in rows["policy_profiles"][2]
    assert rows["runs"] == (runs, 0, "") and rows["run_events"] == (3, 0, "")
    if catalogue == "v2_fresh":
        assert set(rows) == {"policy_profiles", "runs", "run_events"}
    else:
        assert rows["task_specs"][:2] == (2, 1) and "1 never ran" in rows["task_specs"][2]
        assert rows["artifacts"][:2] == (2, 0)

    assert one(
        old,
        "SELECT name, allowed_effects, allowed_exec, allowed_write_roots, metadata->>'n', created_at = '2025-01-01' "
        "FROM skill_system.policy_profiles WHERE id = 3",
    ) == ("dev", ["db.read", "net.fetch"], ["git"], ["/srv/app"], "12345678901234567890", True)
    refused_rules = one(old, "SELECT metadata->'import_refused' FROM skill_system.policy_profiles WHERE id = 3")
    assert [(r["column"], r["rule"]) for r in refused_rules] == [
        ("allowed_effects", "DB.WRITE"),
        ("allowed_effects", "fs read"),
        ("allowed_exec", "rm  -rf"),
        ("allowed_write_roots", "relative/dir"),
    ]
    assert all(r["why"] for r in refused_rules)
    assert one(old, "SELECT metadata FROM skill_system.policy_profiles WHERE id = 8") == {"legacy": [1]}
    assert one(old, "SELECT decision FROM skill_system.check_policy('dev', '{db.read,net.fetch}')") == "allow"

    got = old.execute(
        "SELECT id, goal, agent_id, policy_profile_id, task_spec_id, status::text, error "
        "FROM skill_system.runs ORDER BY id"
    ).fetchall()
    if catalogue == "v2_fresh":
        assert got == [(5, "g5", "coder", 3, None, "succeeded", None), (6, None, None, None, None, "running", None)]
    else:
        assert got[:2] == [
            (5, "the spec", None, 3, 1, "succeeded", None),
            (6, "the spec", None, 3, 1, "failed", "policy_blocked:proc.exec"),
        ]
        assert got[2:] == ([] if catalogue == "v1" else [(7, "own goal", "coder", 8, None, "queued", None)])
        spec = one(old, "SELECT payload FROM skill_system.run_events WHERE run_id = 5 AND event_type = 'task_spec'")
        assert spec["goal"] == "the spec" and spec["budgets"] == {"tokens": 5}
        assert old.execute(
            "SELECT run_id, payload->>'path' FROM skill_system.run_events WHERE event_type = 'artifact' ORDER BY id"
        ).fetchall() == [(5, "/a"), (6, "/b")]
    assert old.execute(
        "SELECT id, run_id, level, event_type FROM skill_system.run_events WHERE id <= 13 ORDER BY id"
    ).fetchall() == [
        (11, 5, "info", "step_started"),
        (12, 5, "error", "step_failed"),
        (13, 6, "info", "step_completed"),
    ]

    # Again: nothing twice, and one record only.
    assert all(imported == 0 for _, imported, *_ in old.execute(call))
    assert one(old, "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'legacy.imported'") == 1
    # New rows come after every id that was ever given out.
    assert one(old, "SELECT skill_system.log_run('s', 'op', 'ok')") == 101
    assert one(old, "SELECT skill_system.create_policy('new')") == 21
    assert old.execute("SELECT * FROM skill_system.verify_audit()").fetchall() == []


def test_import_legacy_refuses_what_it_cannot_keep(fresh_database, connect):
    old = connect(dbname=fresh_database(extension=False))
    old.execute(V2)
    fill_legacy(old, "v2_fresh")
    old.execute("ALTER SCHEMA skill_system RENAME TO legacy")
    old.execute("CREATE EXTENSION skill_system")
    assert (
        "policy_profiles" in refused(old, "42704", "SELECT skill_system.import_legacy('nowhere')").diag.message_primary
    )
    refused(old, "42704", "SELECT skill_system.import_legacy('public; DROP TABLE legacy.runs')")
    refused(old, "22023", "SELECT skill_system.import_legacy('skill_system')")
    refused(old, "22023", "SELECT skill_system.import_legacy(NULL)")
    for _ in range(5):
        old.execute("SELECT skill_system.log_run('s', 'op', 'ok')")
    assert (
        refused(old, "55000", "SELECT skill_system.import_legacy('legacy')").diag.message_primary
        == "id 5 of runs is taken by another row"
    )
    assert one(old, "SELECT count(*) FROM skill_system.policy_profiles") == 0


def spans_of(export):
    """The export as OpenTelemetry's own messages; OTLP/JSON differs from proto JSON only in hex ids."""

    def to_base64(node):
        if isinstance(node, dict):
            return {
                k: base64.b64encode(bytes.fromhex(v)).decode()
                if k in ("traceId", "spanId", "parentSpanId")
                else to_base64(v)
                for k, v in node.items()
            }
        return [to_base64(item) for item in node] if isinstance(node, list) else node

    data = json_format.ParseDict(to_base64(export), trace_pb2.TracesData())
    assert len(data.resource_spans) == 1 and len(data.resource_spans[0].scope_spans) == 1
    return data.resource_spans[0].resource, list(data.resource_spans[0].scope_spans[0].spans)


def test_otlp_is_read_by_opentelemetry(db, roles, connect):
    db.execute("SELECT skill_system.install_starter_policies()")
    agent = connect("test_agent")
    run = one(agent, "SELECT skill_system.start_run('file W-1', 'dev', 'coder')")
    agent.execute(
        "SELECT skill_system.log_step(%s, 'search', 'query', 'ok', 250, %s)",
        [run, '{"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 30, "cost_usd": 0.01}'],
    )
    agent.execute(
        "SELECT skill_system.log_step(%s, 'search', 'store', 'error', 9, payload => %s)",
        [run, '{"error": "disk full", "deep": {"a": [1, null, true, 1.5]}}'],
    )
    # Whatever an agent writes, the export stays readable.
    agent.execute(
        "INSERT INTO skill_system.run_events (run_id, event_type, payload) "
        "VALUES (%s, 'step_completed', '7'), (%s, 'step_completed', "
        """'{"duration_ms": 1e300, "status": 5, "metrics": [1]}'), (%s, 'note', '"text"'), (%s, 'odd',
            '{"": {}, "x": "\\u00e4"}')""",
        [run] * 4,
    )
    # Also what is stored since it was not refused.
    db.execute("SET session_replication_role = replica")
    db.execute(
        "INSERT INTO skill_system.run_events (run_id, ts, event_type) "
        "VALUES (%s, 'infinity', 'late'), (%s, '-infinity', 'early'), (%s, '1900-01-01', 'old')",
        [run] * 3,
    )
    db.execute("RESET session_replication_role")
    agent.execute("SELECT skill_system.finish_run(%s, 'failed', 'disk full')", [run])
    export = one(agent, "SELECT skill_system.run_otlp(%s)", run)
    resource, spans = spans_of(export)
    assert {a.key: a.value.string_value for a in resource.attributes}["service.name"] == "skill_system"
    root, steps = spans[0], spans[1:]
    assert root.name == "invoke_agent coder" and root.kind == trace_pb2.Span.SPAN_KIND_INTERNAL
    assert len(root.trace_id) == 16 and len(root.span_id) == 8 and not root.parent_span_id
    assert root.status.code == trace_pb2.Status.STATUS_CODE_ERROR and root.status.message == "disk full"
    attributes = {a.key: a.value for a in root.attributes}
    assert len(attributes) == len(root.attributes)
    assert attributes["gen_ai.operation.name"].string_value == "invoke_agent"
    assert attributes["gen_ai.usage.input_tokens"].int_value == 1200
    assert attributes["skill_system.run.id"].int_value == run
    assert attributes["skill_system.policy.name"].string_value == "dev"
    assert {event.name for event in root.events} == {"note", "odd", "late", "early", "old"}
    named = {span.name: span for span in steps}
    assert len(steps) == 4 and {"execute_tool search/query", "execute_tool search/store", "execute_tool"} == set(named)
    good = named["execute_tool search/query"]
    assert good.end_time_unix_nano - good.start_time_unix_nano == 250_000_000
    assert good.status.code == trace_pb2.Status.STATUS_CODE_OK
    assert {a.key: a.value for a in good.attributes}["gen_ai.usage.output_tokens"].int_value == 30
    assert named["execute_tool search/store"].status.message == "disk full"
    assert all(span.trace_id == root.trace_id and span.parent_span_id == root.span_id for span in steps)
    assert len({span.span_id for span in spans}) == len(spans)
    assert one(agent, "SELECT skill_system.run_otlp(%s)", run) == export
    refused(agent, "42704", "SELECT skill_system.run_otlp(987654321)")


def test_otlp_of_a_run_with_more_than_a_trace_holds(roles, connect):
    """An agent writes as much as it likes; what is left out of the trace is counted, and the memory is bounded."""
    agent = connect("test_agent")
    run = one(agent, "SELECT skill_system.start_run('large', agent_id => 'coder')")
    agent.execute(
        "SELECT skill_system.log_step(%s, 's', 'o', 'error', 5, payload => jsonb_build_object('error', 'no', 'more', 1, "
        "'text', repeat('x', 15000000))) FROM generate_series(1, 4)",
        [run],
    )
    agent.execute("SELECT skill_system.log_event(%s, 'note', jsonb_build_object('text', repeat('x', 300000)))", [run])
    many = "(SELECT jsonb_object_agg('k' || g, g) FROM generate_series(1, 15000) g)"
    agent.execute(f"SELECT skill_system.log_event(%s, 'many', {many}) FROM generate_series(1, 14)", [run])
    large = "(SELECT jsonb_agg(g) FROM generate_series(1, 1000000) g)"
    agent.execute(
        f"INSERT INTO skill_system.run_events (run_id, event_type, payload) SELECT %s, 'list', {large}", [run]
    )
    export = one(agent, "SELECT skill_system.run_otlp(%s)", run)
    _, spans = spans_of(export)
    root, steps = spans[0], spans[1:]
    attributes = {a.key: a.value for a in root.attributes}
    assert len(steps) == 4
    for step in steps:
        assert step.name == "execute_tool s/o" and step.status.message == "no" and step.dropped_attributes_count == 2
    note, *others = root.events
    assert (
        note.name == "note"
        and note.dropped_attributes_count == 1
        and not any(e.dropped_attributes_count for e in others)
    )
    assert attributes["skill_system.run.events_left_out"].int_value == 15 - len(others) > 0
    with open(f"/proc/{agent.info.backend_pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak < 1_000_000, "kB of memory"


NESTED = "(repeat('{\"a\":', 60) || '1' || repeat('}', 60))"
# The number of events, and the payload of each.
SHAPES = {
    "nested objects": (3, f"('[' || repeat({NESTED} || ',', 500) || '1]')"),
    "nested arrays": (5, "('[' || repeat(repeat('[', 60) || repeat(']', 60) || ',', 400) || '1]')"),
    "empty objects": (5, "('[' || repeat('{},', 20000) || '1]')"),
    "numbers": (5, "('[' || repeat('1,', 60000) || '1]')"),
}


@pytest.mark.parametrize(("count", "shape"), SHAPES.values(), ids=SHAPES)
def test_otlp_is_bounded_whatever_the_events_are(count, shape, roles, connect):
    agent = connect("test_agent")
    run = one(agent, "SELECT skill_system.start_run('shapes')")
    agent.execute(
        f"INSERT INTO skill_system.run_events (run_id, event_type, payload) "
        f"SELECT %s, 'note', {shape}::jsonb FROM generate_series(1, {count})",
        [run],
    )
    (reader := connect("test_agent")).execute("SELECT skill_system.current_tenant()")
    found, left_out = reader.execute(
        "SELECT jsonb_array_length(span -> 'events'), (SELECT a #>> '{value,intValue}' FROM jsonb_array_elements("
        "span -> 'attributes') a WHERE a ->> 'key' = 'skill_system.run.events_left_out') "
        "FROM (SELECT skill_system.run_otlp(%s) #> '{resourceSpans,0,scopeSpans,0,spans,0}') t (span)",
        [run],
    ).fetchone()
    assert found + int(left_out or 0) == count and found > 0
    with open(f"/proc/{reader.info.backend_pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak < 1_000_000, "kB of memory"


def test_otlp_of_a_step_that_a_parser_refuses(db, roles, connect):
    """JSON that was taken when its depth and numbers were not bounded: what is readable of it stays."""
    agent = connect("test_agent")
    deep = '{"a":' * 130 + "1" + "}" * 130
    run = one(agent, "SELECT skill_system.start_run('deep', agent_id => 'coder', metrics => '{\"cost_usd\": 2}')")
    refused(
        agent, "54000", "SELECT skill_system.log_run('s', 'deep', 'error', 5, error => 'boom', payload => %s)", [deep]
    )
    step = '"skill": "s", "operation": "%s", "status": "error", "error": "boom", "duration_ms": 5'
    db.execute("SET session_replication_role = replica")
    for name, more in {
        "deep": f'"x": {deep}',
        "array": '"x": ' + "[" * 130 + "]" * 130,
        "number": '"x": 1e400',
        "metrics": '"metrics": {"huge": 1e400, "gen_ai.usage.output_tokens": 7}',
    }.items():
        db.execute(
            "INSERT INTO skill_system.run_events (run_id, event_type, payload) VALUES (%s, 'step_completed', %s)",
            [run, "{" + step % name + ", " + more + "}"],
        )
    db.execute("RESET session_replication_role")
    _, spans = spans_of(one(agent, "SELECT skill_system.run_otlp(%s)", run))
    named = {span.name: span for span in spans[1:]}
    assert set(named) == {f"execute_tool s/{name}" for name in ("deep", "array", "number", "metrics")}
    for span in named.values():
        assert span.status.code == trace_pb2.Status.STATUS_CODE_ERROR and span.status.message == "boom"
        assert span.end_time_unix_nano - span.start_time_unix_nano == 5_000_000
    attributes = {a.key: a.value for a in named["execute_tool s/deep"].attributes}
    assert attributes["gen_ai.skill.name"].string_value == "s"
    assert attributes["skill_system.payload.x"].kvlist_value.values[0].key == "a"
    attributes = {a.key: a.value for a in named["execute_tool s/number"].attributes}
    assert attributes["skill_system.payload.x"].string_value == "1" + "0" * 400
    attributes = {a.key: a.value for a in named["execute_tool s/metrics"].attributes}
    assert attributes["gen_ai.usage.output_tokens"].int_value == 7


def test_one_key_one_run_from_many_sessions(db, roles, connect):
    sessions = [connect("test_agent") for _ in range(8)]
    gate, answers = threading.Barrier(8), []

    def work(session):
        gate.wait()
        for _ in range(20):
            answers.append(
                one(session, "SELECT skill_system.log_run('s', 'op', 'ok', 1, idempotency_key => 'the key')")
            )

    threads = [threading.Thread(target=work, args=[session]) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 160 and len(set(answers)) == 1
    assert one(db, "SELECT count(*) FROM skill_system.runs WHERE idempotency_key = 'the key'") == 1
    assert one(db, "SELECT count(*) FROM skill_system.run_events WHERE run_id = %s", answers[0]) == 1
    assert (
        one(
            db,
            "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'run.logged' "
            "AND event_data->'run_id' = to_jsonb(%s::bigint)",
            answers[0],
        )
        == 1
    )


def test_finishing_waits_for_a_step_that_is_being_written(roles, connect):
    agent, other = connect("test_agent"), connect("test_agent")
    run = one(agent, "SELECT skill_system.start_run('race')")
    agent.execute("BEGIN")
    agent.execute("SELECT skill_system.log_step(%s, 's', 'op', 'ok', 5)", [run])
    finisher = threading.Thread(target=lambda: other.execute("SELECT skill_system.finish_run(%s, 'ok')", [run]))
    finisher.start()
    finisher.join(0.5)
    assert finisher.is_alive()
    agent.execute("COMMIT")
    finisher.join(20)
    assert not finisher.is_alive()
    assert one(agent, "SELECT metrics FROM skill_system.runs WHERE id = %s", run) == {"steps": 1, "duration_ms": 5}
    refused(agent, "55000", "SELECT skill_system.log_step(%s, 's', 'op', 'ok', 5)", [run])


def test_tenants_do_not_meet(db, roles, connect):
    mine = one(connect("test_agent"), "SELECT skill_system.start_run('mine', idempotency_key => 'shared')")
    db.execute("ALTER ROLE test_reviewer SET skill_system.tenant = 'acme'")
    db.execute("GRANT skill_system_agent TO test_reviewer")
    try:
        acme = connect("test_reviewer")
        assert one(acme, "SELECT skill_system.start_run('theirs', idempotency_key => 'shared')") != mine
        for call in (
            "log_event(%s, 'x')",
            "log_step(%s, 's', 'o')",
            "log_events(%s, '[]')",
            "finish_run(%s, 'ok')",
            "run_otlp(%s)",
        ):
            refused(acme, "42704", f"SELECT skill_system.{call}", [mine])
        refused(acme, "23503", "INSERT INTO skill_system.run_events (run_id, event_type) VALUES (%s, 'x')", [mine])
        for view in ("runs", "run_events", "run_stats", "runs_in_progress", "stuck_runs"):
            assert one(acme, f"SELECT count(*) FROM skill_system.{view} WHERE tenant_id <> 'acme'") == 0
        assert acme.execute("UPDATE skill_system.runs SET goal = 'x' WHERE id = %s", [mine]).rowcount == 0
    finally:
        db.execute("REVOKE skill_system_agent FROM test_reviewer")
        db.execute("ALTER ROLE test_reviewer RESET skill_system.tenant")
    assert one(connect("test_auditor"), "SELECT count(DISTINCT tenant_id) FROM skill_system.runs") == 2


def test_maintain_deletes_old_runs_in_batches(fresh_database, connect):
    db = connect(dbname=fresh_database())
    for tenant, count in (("default", 5), ("acme", 2)):
        db.execute(f"SET skill_system.tenant = '{tenant}'")
        db.execute(
            "INSERT INTO skill_system.runs (status, ended_at) "
            "SELECT 'succeeded', now() - interval '40 days' FROM generate_series(1, %s)",
            [count],
        )
        db.execute("INSERT INTO skill_system.runs (status, created_at) VALUES ('running', now() - interval '40 days')")
        db.execute(
            "INSERT INTO skill_system.run_events (run_id, event_type) SELECT id, 'e' FROM skill_system.runs "
            "WHERE tenant_id = skill_system.current_tenant()"
        )
        db.execute("SELECT skill_system.log_run('s', 'op', 'ok')")
    db.execute("RESET skill_system.tenant")
    # A setting nobody made deletes nothing.
    assert ("run_retention", 0) in [row[:2] for row in db.execute("SELECT * FROM skill_system.maintain()")]
    db.execute("SET skill_system.run_retention = '30d'")
    refused(db, "22023", "SELECT * FROM skill_system.maintain(0)")
    # An interrupted call leaves everything as it was, and append-only as before.
    db.execute("BEGIN")
    db.execute("SELECT * FROM skill_system.maintain()")
    db.execute("ROLLBACK")
    assert one(db, "SELECT count(*) FROM skill_system.runs") == 11
    refused(db, "55000", "DELETE FROM skill_system.run_events")
    seen = []
    for _ in range(4):
        seen += [row[1:] for row in db.execute("SELECT * FROM skill_system.maintain(3)") if row[0] == "run_retention"]
        refused(db, "55000", "DELETE FROM skill_system.run_events")
    assert [count for count, _ in seen] == [3, 3, 1, 0]
    assert ["more remain" in detail for _, detail in seen] == [True, True, False, False]
    # What is left: the unfinished and the young of each tenant, with their events.
    assert db.execute(
        "SELECT tenant_id, status::text, count(*) FROM skill_system.runs GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall() == [
        ("acme", "running", 1),
        ("acme", "succeeded", 1),
        ("default", "running", 1),
        ("default", "succeeded", 1),
    ]
    assert one(db, "SELECT count(*) FROM skill_system.run_events") == 4
    assert db.execute(
        "SELECT tenant_id, sum((event_data->>'count')::int) FROM skill_system.audit_logs "
        "WHERE event_type = 'runs.deleted' GROUP BY 1 ORDER BY 1"
    ).fetchall() == [("acme", 2), ("default", 5)]
    assert db.execute("SELECT * FROM skill_system.verify_audit()").fetchall() == []


def test_maintain_makes_partitions_ahead_and_admins_may_call_it(fresh_database, roles, connect):
    name = fresh_database()
    db, admin = connect(dbname=name), connect("test_admin", dbname=name)
    assert dict(row[:2] for row in admin.execute("SELECT * FROM skill_system.maintain()"))["audit_partitions"] == 0
    without_months(db)
    rows = dict(row[:2] for row in admin.execute("SELECT * FROM skill_system.maintain()"))
    assert rows["audit_partitions"] == 3
    assert dict(row[:2] for row in admin.execute("SELECT * FROM skill_system.maintain()"))["audit_partitions"] == 0
    assert one(db, "SELECT status FROM skill_system.health() WHERE \"check\" = 'audit_partitions'") == "ok"
    db.execute("SELECT skill_system.log_run('s', 'op', 'ok')")
    assert one(db, "SELECT count(*) FROM skill_system.audit_logs_default") == 0
    # Only one at a time.
    db.execute("BEGIN")
    db.execute("SELECT * FROM skill_system.maintain()")
    admin.execute("SET lock_timeout = '200ms'")
    with pytest.raises(LockNotAvailable):
        admin.execute("SELECT * FROM skill_system.maintain()")
    db.execute("ROLLBACK")
    # Nor in a transaction that goes on, but for a superuser.
    refused(admin, "25001", "SELECT * FROM skill_system.maintain()")


def test_stuck_runs_follow_the_setting(db, connect):
    run = one(
        db,
        "INSERT INTO skill_system.runs (status, created_at) "
        "VALUES ('running', now() - interval '30 minutes') RETURNING id",
    )
    assert run not in [row[0] for row in db.execute("SELECT id FROM skill_system.stuck_runs")]
    session = connect()
    session.execute("SET skill_system.stuck_after = '10min'")
    assert run in [row[0] for row in session.execute("SELECT id FROM skill_system.stuck_runs")]
    session.execute("SELECT skill_system.log_event(%s, 'alive')", [run])
    assert run not in [row[0] for row in session.execute("SELECT id FROM skill_system.stuck_runs")]


def test_a_run_reads_as_little_in_a_table_without_statistics(fresh_database, connect):
    """The plans of a session that begins with empty tables: each look-up of the run is by its key."""
    db = connect(dbname=fresh_database())
    runs = 300
    db.execute("SELECT skill_system.install_starter_policies()")
    db.execute("BEGIN")
    db.execute(
        "SELECT count(skill_system.log_run('a-skill', 'run', 'ok', 1, policy_name => 'dev', idempotency_key => n::text)) "
        "FROM generate_series(1, %s) n",
        [runs],
    )
    run = db.execute("SELECT skill_system.start_run('several steps')").fetchone()[0]
    db.execute("SELECT count(skill_system.log_step(%s, 'a', 'b', 'ok', 1)) FROM generate_series(1, %s)", [run, runs])
    read = dict(
        db.execute(
            "SELECT relname, coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0) FROM pg_stat_xact_user_tables "
            "WHERE schemaname = 'skill_system'"
        ).fetchall()
    )
    db.execute("COMMIT")
    assert read["runs"] <= 3 * runs and sum(read.values()) <= 10 * runs, read


def test_durations_are_numbers_of_any_kind(db):
    for given, kept in (
        ("118", 118),
        ("117.5", 118),
        ("extract(epoch FROM interval '1.2345 s') * 1000", 1235),
        ("'12'", 12),
        ("7::smallint", 7),
        ("NULL", None),
    ):
        run = one(db, f"SELECT skill_system.log_run('s', 'op', 'ok', {given})")
        found = one(db, "SELECT payload -> 'duration_ms' FROM skill_system.run_events WHERE run_id = %s", run)
        assert found == kept
    run = one(db, "SELECT skill_system.start_run('durations')")
    step = one(db, "SELECT skill_system.log_step(%s, 's', 'op', 'ok', 0.4::numeric)", run)
    assert one(db, "SELECT payload -> 'duration_ms' FROM skill_system.run_events WHERE id = %s", step) == 0
    for given in ("'NaN'", "'Infinity'", "-0.5", "1e300", "-9223372036854775808"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="duration_ms must be between"):
            db.execute(f"SELECT skill_system.log_run('s', 'op', 'ok', {given})")


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"cost_usd": "0.1"}, ['"cost_usd" is not a JSON number']),
        ({"cost_usd": None}, ['"cost_usd" is not a JSON number']),
        ({"gen_ai.usage.output_tokens": [5]}, ['"gen_ai.usage.output_tokens" is not a JSON number']),
        (
            {"cost": 0.1, "input_tokens": 5},
            ['"input_tokens" is not counted, "gen_ai.usage.input_tokens" is', '"cost" is not counted, "cost_usd" is'],
        ),
        ({"completion_tokens": 5}, ['"completion_tokens" is not counted, "gen_ai.usage.output_tokens" is']),
        # Both: somebody keeps the provider's name, too.
        ({"cost": 0.1, "cost_usd": 0.1, "prompt_tokens": 5, "gen_ai.usage.input_tokens": 5}, []),
        ({"gen_ai.request.model": "m", "temperature": 0.2, "steps": "many"}, []),
        ({}, []),
    ],
)
def test_metrics_that_do_not_count_are_named(db, metrics, told):
    seen = []

    def handler(diagnostic):
        seen.append((diagnostic.severity_nonlocalized, diagnostic.message_detail))

    db.add_notice_handler(handler)
    try:
        given = json.dumps(metrics)
        run = one(db, "SELECT skill_system.start_run('metrics')")
        db.execute("SELECT skill_system.log_run('s', 'op', 'ok', metrics => %s)", [given])
        db.execute("SELECT skill_system.log_step(%s, 's', 'op', metrics => %s)", [run, given])
        db.execute("SELECT skill_system.finish_run(%s, 'ok', metrics => %s)", [run, given])
    finally:
        db.remove_notice_handler(handler)
    expected = [("WARNING", "; ".join(told) + ".")] * 3 if told else []
    assert seen == expected


def test_cost_per_agent_and_model(db):
    for agent, model, cost in (("c1", "m1", 0.5), ("c1", "m1", 0.25), ("c1", "m2", 1), ("c2", None, None)):
        metrics = {"gen_ai.request.model": "asked", "gen_ai.response.model": model} if model else {}
        if cost:
            metrics |= {"cost_usd": cost, "gen_ai.usage.input_tokens": 100}
        db.execute(
            "SELECT skill_system.log_run('by-agent', 'op', 'ok', 10, agent_id => %s, metrics => %s)",
            [agent, json.dumps(metrics)],
        )
    run = one(db, "SELECT skill_system.start_run('two steps', agent_id => 'c1')")
    for status in ("ok", "error"):
        metrics = '{"gen_ai.request.model": "m2"}'
        db.execute("SELECT skill_system.log_step(%s, 'by-agent', 'op', %s, 5, %s)", [run, status, metrics])
    found = db.execute(
        "SELECT agent_id, model, runs, steps, succeeded, failed, duration_ms, input_tokens, cost_usd::float "
        "FROM skill_system.run_stats_by_agent WHERE day = (now() AT TIME ZONE 'UTC')::date AND agent_id IN ('c1', 'c2') "
        "ORDER BY 1, 2"
    ).fetchall()
    assert found == [
        ("c1", "m1", 2, 2, 2, 0, 20, 200, 0.75),
        ("c1", "m2", 2, 3, 2, 1, 20, 100, 1.0),
        ("c2", None, 1, 1, 1, 0, 10, None, None),
    ]
    assert one(db, "SELECT sum(count) FROM skill_system.run_stats WHERE skill = 'by-agent'") == 6
    assert one(db, "SELECT count(*) FROM skill_system.run_steps WHERE skill = 'by-agent' AND agent_id = 'c1'") == 5
    # The run is looked up only where its agent is asked for.
    plan = db.execute("EXPLAIN SELECT skill, count FROM skill_system.run_stats").fetchall()
    assert "run_events" in str(plan) and "on runs" not in str(plan)
