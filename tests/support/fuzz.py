"""Random statements: every function, table and view of the extension with hostile values.

In most calls one or two arguments are hostile and the others meaningful where they stand (names and ids that exist,
well-formed documents), so that the code behind the first check is reached.
"""

import io
import json
import random
import zipfile
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

SKILLS = [path.read_text() for path in sorted((Path(__file__).parents[1] / "corpus/skills").glob("*.md"))]
SKILL = "---\nname: {0}\ndescription: d\n---\n\n# {1}\n"
KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
EFFECTS = """db.read db.write:public.* fs.write:/srv/** fs.read:/a/../b net.fetch:example.com net.fetch:[::1]:443
net.fetch:10.0.0.0/8 proc.exec:git proc.exec:/usr/bin/env ** *:** db.** git.*""".split()
HOSTILE = [
    *("", " ", "'", '"', "\\", "'; DROP TABLE skill_system.runs; --", "$$", "%s%n%d", "{", "}", "{a,\"", "[", "(", "/*"),
    *("\n\r\t\x01\x1b\x7f", "\u202eabc\u2066", "\ufeff", "\u200b", "😀👩‍👩‍👧", "e\u0301", "İıß", "\ufdfa" * 20, "\U0010ffff"),
    *("*", "**", "***/**", "../../etc/passwd", "/", "//host/x", "C:\\x", "a/./b//..", "~", "-rf", "NULL", "null", "\\000"),
    *("\\u0000", "\\ud800", "1e400", "-1", "0", "99999999999999999999", "infinity", "-infinity", "epoch", "NaN", "0x10"),
    *("294276-12-31", "4713-01-01 BC", "2026-13-45", "2026-01-01T00:00:60Z", "^[a-z", "(a*)*$", "(((((((((a{99}){99})"),
    *("https://[::ffff:1.2.3.4]:99999/%00", "xn--\u00df.", "1.2.3-4+5 || >=0 <1", "^1", "v1", "000000000000", "f" * 64),
    *("a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]", "---\n---\n", "- - - - a", "? !!binary x", "key: |2\n  x", "{{{x}}}"),
    *("$[default].ok", "$[x].y @a/b", "```\n`", "<!--", "<script>", "]]>", "%PDF", "PK\x03\x04", "data:,x", "skill://default/ok/SKILL.md"),
    *("x" * 101, "x" * 256, "x" * 70_000, "é" * 40_000, "[" * 3000, '{"a":' * 3000, "- " * 5000, "/a" * 5000, "(" * 5000),
]  # fmt: skip
BOMBS = [
    *("repeat('x', 12000000)", "repeat('[', 10000000)", "repeat('- ', 5000000)", "repeat('a: &a b\n', 1000000)"),
    *("repeat('$[a].b ', 3000000)", "repeat(E'\\n', 20000000)", "repeat('😀', 9000000)", "repeat('/..', 4000000)"),
]
JSON_HOSTILE = [
    *("null", "[]", "{}", '""', "0", "-0.0", "true", "1e308", "1e400", "-1e-400", "1" + "0" * 4000, '"\\ud83d\\ude00"'),
    *('{"":{"":""}}', "[[[[]]]]", '[null,1,"x",{},[]]', "[" * 64 + "]" * 64, "[" * 500 + "]" * 500, '{"a":1,"a":2}'),
    *('{"a":' * 64 + "1" + "}" * 64, '{"__proto__":{},"$ref":"#"}', json.dumps({"k" * 70_000: 1}), '"\\u202e\\u0001"'),
]
JSON = {
    "metrics": ['{"duration_ms": 5, "gen_ai.usage.input_tokens": 7, "cost_usd": 0.25}'],
    "payload": ['{"skill": "ok", "operation": "x", "status": "ok", "duration_ms": 3}', '{"skill_version": "000000000000"}'],
    "events": ['[{"event_type": "note", "level": "info", "payload": {"a": 1}, "ts": "2026-01-01T00:00:00Z"}, {"event_type": "x"}]'],
    "items": ['[{"label": "one"}, {"label": "two", "note": "x", "status": "complete"}]'],
    "min_required_items": ["[0]", "[0, 1]"],
    "files": ['{"references/a.md": "x", "scripts/run.sh": "echo"}', '{"assets/b.bin": {"base64": "AAEC"}}'],
    "filter": ['{"name_pattern": "^o", "status": "Approved", "limit": 5}', '{"tags": ["a"], "order": "name"}'],
    "config": ['{"spaces": [{"id": "a", "namespace": "X", "sources": ["b"]}], "sources": [{"id": "b", "type": "pgsql"}]}'],
    "tier1_manifest": ['{"description": "d", "effects": ["db.read"], "id": "x", "version": "1.0.0"}'],
    "tier2_definition": ['{"steps": ["look"]}'],
    "tier3_artifact_refs": ['["one"]', '[{"id": "one"}]'],
    "rule_data": ['{"feet": 467, "list": [1, 2, 3]}', '{"feet": 330}'],
    "key": ['{"id": "one"}', '{"skill_name": "ok"}', '{"tenant_id": "default", "id": 1}'],
    "effects": [json.dumps(EFFECTS[:6])],
    "record": ['{"API_NO": "4250120130", "X": 1}'],
    "options": ['["a", "b"]'],
}  # fmt: skip
# By argument or column, or by that of one function or table.
NAMES = ["ok", "a", "default/a", "default/ok"]
TEXT = {
    **dict.fromkeys(("source", "content", "body"), SKILLS),
    "register_skill.source": [SKILL.format(name, body) for name in ("ok", "new") for body in "xyz"],
    "skill": NAMES,
    "skills": NAMES,
    "operation": ["x", "fill"],
    "namespace": ["default", "skillscript"],
    "skill_store_store.name": ["ok", "new"],
    "skill_store_store.source": ["# Skill: ok\n# Status: Draft\nx\n", *SKILLS[:3]],
    **dict.fromkeys(
        ("log_run.status", "log_step.status", "finish_run.status"), ["ok", "failed", "succeeded", "cancelled"]
    ),
    "set_skill_status.status": ["approved", "disabled", "draft"],
    "skill_store_update_status.status": ["Draft", "Approved", "Disabled"],
    "update_checklist_item.status": ["pending", "in_progress", "complete", "blocked"],
    "assess_compliance.status": ["compliant", "overdue", "action_needed"],
    "assess_compliance.tenant_id": ["default"],
    "name": ["ok", "new"],
    **dict.fromkeys(("policy_name", "inherits"), ["dev", "locked", "readonly"]),
    **dict.fromkeys(
        ("entity_type", "type_key", "compliance_domain", "rule_domain", "rule_identifier", "agent"), ["ok"]
    ),
    "decision": ["approved", "rejected", "in_review"],
    **dict.fromkeys(("register_skill.mode", "validate_skill.mode"), ["strict", "lenient"]),
    "mode": ["enforce", "observe"],
    "format": ["html", "markdown", "csv"],
    "client": ["skills_runtime"],
    "schema_name": ["legacy"],
    "requirement": ["^1.0", ">=1.2.3 <2", "*", "~1.2 || 3.x"],
    **dict.fromkeys(("rule", "allow", "ask", "deny", "effects", "allowed_effects"), EFFECTS),
    **dict.fromkeys(("argv", "allowed_exec"), ["git", "status", "npm test", "/bin/sh", "-c", "cargo build **"]),
    "allowed_write_roots": ["/srv/app", "/"],
    "add_skill_approver.public_key": [KEY],
    "preflight_skills_yaml.config": ["sources: [{id: b, type: pgsql}]\nspaces: [{id: a, namespace: X, sources: [b]}]"],
    "text": ["use $[default].ok and $[acme].a, not $[default].nothing"],
    "path": ["/srv/app/x", "/srv/../etc/passwd", "references/a.md"],
    "uri": ["skill://default/ok/SKILL.md", "skill://default/a/SKILL.md"],
    "base_url": ["https://example.com"],
    "unlisted": ["deny", "ask"],
    "level": ["info", "warn"],
    "event_type": ["note", "x.y"],
    "artifact_type": ["document", "pdf"],
    "rule_type": ["statewide", "notice"],
    **dict.fromkeys(
        ("propose_rule.source", "publish_rule.source", "rule_versions.source"), ["manual", "rrc_ingestion"]
    ),
    "channel": ["stable"],
    "pattern": ["[0-9]{2}[A-C]?", "(a|b)*c"],
    "input_type": ["text", "number", "select"],
    "context_mode": ["full", "summary"],
    "worst_only": ["overdue"],
    "query": ["ok and more", "spacing -x", '"a b"'],
    "artifact": ["one", "ok"],
    **dict.fromkeys(("columns", "ignored_columns"), ["id"]),
    **dict.fromkeys(("add_artifact.content_type", "content_type"), ["text/plain"]),
    "content_sha256": ["sha256:" + "0" * 64],
    "create_template.compliance_domain": ["ok"],
    "since_token": ["0"],
    "actor_type": ["agent", "user", "system"],
}
# Where the names of arguments differ from those of the columns that hold the values.
COLUMNS = {
    "skill": ["skill_heads.skill_name", "skill_versions.manifest_id"],
    "skills": ["skill_heads.skill_name"],
    "name": ["skill_heads.skill_name", "policy_profiles.name", "agents.name"],
    "policy_name": ["policy_profiles.name"],
    "inherits": ["policy_profiles.name"],
    "checklist_id": ["filing_checklists.id"],
    "snapshot_id": ["filing_rule_snapshots.id"],
    **dict.fromkeys(("rule_version_id", "old_version_id", "new_version_id"), ["rule_versions.id"]),
    **dict.fromkeys(("version", "old_version", "new_version"), ["skill_versions.version"]),
    "record_id": ["audit_logs.id"],
    "run_id": ["runs.id"],
    "artifact": ["skill_artifacts.id", "skill_artifacts.name"],
    "agent": ["agent_definitions.agent_key"],
    "last_checkpoint": ["audit_checkpoints.note"],
    "expected_version": ["filing_checklists.version"],
    **dict.fromkeys(("old_size", "new_size", "since_checkpoint"), ["audit_checkpoints.tree_size"]),
}
# Slow ones, and those that leave much behind: called less often.
RARE = {
    *("verify_audit", "audit_export", "health", "repair", "maintain", "rotate_audit_key", "adopt_log", "seal_audit"),
    *("audit_fingerprint", "assert_integrity", "check_integrity", "create_client_schema", "drop_client_schema"),
    *("create_audit_partition", "install_texas_rrc"),
    *("compliance_report", "oscal_assessment_results", "import_legacy", "create_keyring", "retire_audit_partition"),
    *("redis_export", "audit_status", "scan_skills", "compliance_matrix"),
}
# What takes away what the good values name: never committed.
DESTRUCTIVE = {
    *(
        "delete_skill",
        "skill_store_delete",
        "drop_skill_namespace",
        "revoke_skill_approver",
        "mark_exception",
        "withdraw_checklist",
        "withdraw_rule",
        "withdraw_artifact",
        "retire_template",
        "stop_audit_table",
        "delete_rows",
    ),
    *("set_skill_status", "skill_store_update_status", "review_checklist", "review_rule", "define_skill", "finish_run"),
}
# Where a call may stand.
PLACES = [
    "SELECT {} FROM generate_series(1, 3)",
    "SELECT {} IS NULL FROM public.many LIMIT 5",
    "SELECT * FROM {} WITH ORDINALITY LIMIT 1",
    "SELECT * FROM public.many, LATERAL {} AS f LIMIT 3",
    "SELECT * FROM ROWS FROM ({}, generate_series(1, 4)) AS f",
    "SELECT n FROM public.many WHERE n < 4 ORDER BY ({})::text",
    "EXPLAIN (ANALYZE) SELECT {}",
    "DECLARE fuzz SCROLL CURSOR FOR SELECT * FROM {}; FETCH 2 FROM fuzz; FETCH BACKWARD 1 FROM fuzz; CLOSE fuzz",
    "DEALLOCATE ALL; PREPARE fuzz AS SELECT {}; EXECUTE fuzz; EXECUTE fuzz",
    "CREATE TEMP TABLE fuzz AS SELECT {} AS x; TABLE fuzz; DROP TABLE fuzz",
    "DO $do$ BEGIN PERFORM {}; EXCEPTION WHEN OTHERS THEN IF sqlstate LIKE 'XX%' THEN RAISE; END IF; END $do$",
]
REGCLASSES = [
    *("'public.victim'", "'public.rows'", "'public.victim_view'", "'public.victim_seq'", "'public.victim_pkey'", "0"),
    *(
        "'skill_system.audit_logs'",
        "'pg_class'",
        "'pg_toast.pg_toast_1255'",
        "'information_schema.tables'",
        "4294967295",
    ),
    *("'public.partitioned'", "'skill_system.agents'", "'skill_system.runs'", "'skill_system.skills'"),
]
# The first ones are ordinary.
TIMES = [
    *(
        "now()",
        "now() + interval '40 days'",
        "'2026-02-28'",
        "'2023-12-31'",
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 BC'",
    ),
    *(
        "'5874897-12-31'",
        "'0001-01-01 BC'",
        "'294276-12-31'",
        "'2000-01-01'",
        "'1970-01-01'",
        "now() - interval '1 year'",
    ),
]
FLOATS = ["0", "1", "-0.5", "'NaN'", "'Infinity'", "'-Infinity'", "1e-30", "1e30"]
NO_UUID = "00000000-0000-0000-0000-000000000000"
STAGE = """
CREATE VIEW public.victim_view AS SELECT * FROM public.victim;
CREATE SEQUENCE public.victim_seq;
CREATE TABLE public.partitioned (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE public.partitioned_1 PARTITION OF public.partitioned DEFAULT;
CREATE TABLE public.rows (namespace text, skill_name text, body text, manifest jsonb, tags text[], enabled boolean);
INSERT INTO public.rows VALUES ('default', 'x', '# X', '{}', '{a,NULL}', true), (NULL, NULL, NULL, NULL, NULL, NULL);
CREATE SCHEMA legacy;
CREATE TABLE legacy.runs (LIKE skill_system.runs); CREATE TABLE legacy.policy_profiles (LIKE skill_system.policy_profiles);
SELECT skill_system.create_client_schema('skills_runtime', 'agent');
"""


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


ZIPS = [
    zipped({"actions/run.sh": "echo", "references/a.md": "x" * 5000}),
    zipped({"SKILL.md": SKILLS[0], "../x": "y", "/etc/z": "", "a\\b": "", "A": "1", "a": "2"}),
    zipped({"zeros": b"\0" * 3_000_000}),
    zipped({f"{n}": "" for n in range(3000)}),
]


class Fuzzer:
    """Statements from a seed. `db` is a superuser's connection to a database with rows in all tables, `roles` are those
    that will run them."""

    def __init__(self, db, seed, roles=()):
        self.random = random.Random(seed)
        self.may = defaultdict(list)
        for name, role in db.execute(
            """SELECT oid::regproc::text, r FROM pg_proc, unnest(%(roles)s::text[]) r
               WHERE pronamespace = 'skill_system'::regnamespace AND has_function_privilege(r, oid, 'EXECUTE')
               UNION ALL SELECT oid::regclass::text, r FROM pg_class, unnest(%(roles)s::text[]) r
               WHERE relnamespace IN ('skill_system'::regnamespace, 'agent'::regnamespace) AND relkind IN ('r', 'p', 'v')
               AND has_any_column_privilege(r, oid, 'INSERT, UPDATE')""",
            {"roles": list(roles)},
        ):
            self.may[name].append(role)
        self.functions = db.execute("""SELECT p.proname::text, coalesce(p.proargnames, '{}'), p.provariadic <> 0,
            ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) t)::text[],
            p.pronargs - p.pronargdefaults, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) FROM pg_proc p
            WHERE p.pronamespace = 'skill_system'::regnamespace ORDER BY p.oid::regprocedure::text""").fetchall()
        self.weights = [0.03 if name in RARE else 0.2 if is_trigger else 1 for name, *_, is_trigger in self.functions]
        self.tables = db.execute("""SELECT c.oid::regclass::text, c.relkind IN ('v', 'm'),
            array_agg(quote_ident(attname) ORDER BY attnum), array_agg(format_type(atttypid, NULL) ORDER BY attnum)
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
            WHERE relnamespace IN ('skill_system'::regnamespace, 'agent'::regnamespace) AND relkind IN ('r', 'p', 'v', 'm')
            AND attgenerated = '' GROUP BY c.oid ORDER BY 1""").fetchall()
        self.look(db)

    def look(self, db):
        """Gathers values that exist, by column: those of the default tenant, and those of any."""
        self.own, self.any = defaultdict(list), defaultdict(list)
        for table, is_view, columns, types in self.tables:
            if is_view:
                continue
            own = "tenant_id = 'default'" if "tenant_id" in columns else "true"
            listed = ", ".join(f"left({column}::text, 3000)" for column in columns)
            for is_own, *row in db.execute(f"SELECT {own}, {listed} FROM {table} ORDER BY random() LIMIT 20"):
                for column, kind, value in zip(columns, types, row, strict=True):
                    if value is not None and len(value) < 3000:
                        for name in (column, f"{table.removeprefix('skill_system.')}.{column}", f"type {kind}"):
                            self.any[name].append(value)
                            if is_own:
                                self.own[name].append(value)

    # ---- values

    def one_in(self, count):
        return self.random.randrange(count) == 0

    def known(self, name, pools):
        return [value for column in COLUMNS.get(name, [name]) for value in pools[column]]

    def edited(self, text):
        """The text with a few edits: something removed, repeated, exchanged or put in."""
        for _ in range(self.random.randint(1, 3)):
            at, size = self.random.randint(0, len(text)), self.random.choice((1, 1, 3, 30))
            repeated = text[at : at + size] * self.random.choice((2, 2, 100))
            part = self.random.choice(("", repeated, self.random.choice(HOSTILE), chr(self.random.randint(1, 0x2FF))))
            text = text[:at] + part + text[at + self.random.choice((0, 0, size)) :]
        return text

    def good_text(self, name):
        exact = TEXT.get(f"{self.of}.{name}")
        pools = [exact] if exact else [pool for pool in (TEXT.get(name), self.known(name, self.own)) if pool]
        return self.random.choice(self.random.choice(pools)) if pools else "ok"

    def text(self, name, hostile):
        if not hostile:
            return literal(self.good_text(name))
        if self.one_in(800):
            return self.random.choice(BOMBS)
        choice = self.random.random()
        if choice < 0.4:
            return literal(self.edited(self.good_text(name)))
        return literal(self.random.choice(HOSTILE if choice < 0.85 else self.any["type text"]))

    def json(self, name, hostile):
        good = self.random.choice(JSON.get(name) or self.own[name] or ["{}"])
        if not hostile:
            return literal(good)
        if self.one_in(800):
            return f"to_jsonb({self.random.choice(BOMBS)})"
        if self.one_in(4):
            return literal(self.random.choice(JSON_HOSTILE))
        # What is stored is cut off where it is long.
        with suppress(ValueError):
            return literal(json.dumps(self.mutated(json.loads(good))))
        return literal(good)

    def mutated(self, value):
        """JSON with one place replaced."""
        if isinstance(value, dict) and value and not self.one_in(3):
            key = self.random.choice(list(value))
            new = {**value, key: self.mutated(value[key])}
            if self.one_in(6):
                new[self.edited(key)] = new.pop(key)
            return new
        if isinstance(value, list) and value and not self.one_in(3):
            at = self.random.randrange(len(value))
            times = self.random.choice((0, 1, 1, 1, 2, 200))
            return value[:at] + [self.mutated(value[at])] * times + value[at + 1 :]
        if isinstance(value, str) and not self.one_in(3):
            return self.edited(value)
        odd = (None, True, 0, -1, 1.5, 10**30, -(10**15), 1e308, "", "x", [], {}, [None], {"": 1})
        return self.random.choice((*odd, self.random.choice(HOSTILE)))

    def bytes(self, name, hostile):
        if name == "public_key":
            data = bytearray.fromhex(KEY)
        else:
            data = bytearray(self.random.choice(ZIPS if hostile else ZIPS[:1]))
        for _ in range(self.random.choice((0, 1, 5, 50)) if hostile else 0):
            # The directory of a zip stands at its end.
            at = max(0, len(data) - 1 - int(self.random.expovariate(1 / 60)))
            if data:
                data[at] = self.random.choice((0, 1, 255, self.random.randrange(256)))
            if self.one_in(50):
                data = data[: self.random.randint(0, len(data))]
        return f"'\\x{data.hex()}'"

    def number(self, name, hostile, bits):
        known = [value for value in self.known(name, self.any if hostile else self.own) if value.lstrip("-").isdigit()]
        if not hostile:
            return literal(
                self.random.choice(known or (["100", "1000000"] if name.startswith("max") else ["0", "1", "2"]))
            )
        edge = 1 << (bits - 1)
        return literal(str(self.random.choice((0, -1, 2, 1000, 10_001, 65536, edge - 1, -edge, edge // 2, *known[:3]))))

    def time(self, hostile):
        return self.random.choice(TIMES if hostile else TIMES[:4])

    def uuid(self, name, hostile):
        known = self.known(name, self.any if hostile else self.own)
        pool = self.any["type uuid"] if hostile and self.one_in(2) else known
        return literal(self.random.choice([value for value in pool if len(value) == 36] or [NO_UUID]))

    def array(self, name, kind, hostile):
        count = self.random.choice((0, 1, 3, 40) if hostile else (1, 1, 2, 3))
        elements = [self.value(name, kind, hostile and self.one_in(2)) for _ in range(count)]
        made = f"ARRAY[{', '.join(elements)}]::{kind}[]"
        shape = self.random.randrange(12) if hostile else None
        if shape == 0:
            return f"ARRAY[{made}, {made}]"
        if shape == 1:
            return f"array_fill({self.value(name, kind, True)}, '{{3,2}}', '{{-5,7}}')"
        if shape == 2:
            return f"array_fill({self.value(name, kind, False)}, '{{{self.random.choice((1001, 20000))}}}')"
        return made

    def value(self, name, kind, hostile):
        """An SQL expression for a value of that type, for the argument or column of that name."""
        if hostile and self.one_in(8):
            return f"NULL::{kind}"
        name = name.strip('"')
        if kind.endswith("[]"):
            return self.array(name, kind[:-2], hostile)
        match kind:
            case "text" | "character varying" | "name":
                made = self.text(name, hostile)
            case "jsonb":
                made = self.json(name, hostile)
            case "bytea":
                made = self.bytes(name, hostile)
            case "smallint" | "integer" | "bigint" | "oid":
                made = self.number(name, hostile, {"smallint": 16, "bigint": 64}.get(kind, 32))
            case "double precision" | "real" | "numeric":
                made = self.random.choice(FLOATS if hostile else FLOATS[:3])
            case "boolean":
                made = self.random.choice(("true", "false"))
            case "date" | "timestamp with time zone":
                made = self.time(hostile)
            case "uuid":
                made = self.uuid(name, hostile)
            case "regclass":
                made = self.random.choice(REGCLASSES if hostile else REGCLASSES[:2])
            case _:
                made = literal(self.random.choice(self.any[f"type {kind}"] or ["x"]))
        return f"({made})::{kind}"

    def values(self, names, types):
        """Values for these arguments or columns: now and then none is hostile or each may be, else one or two."""
        hostile = (
            {self.random.randrange(len(types)) for _ in range(self.random.choice((0, 1, 1, 1, 2)))} if types else set()
        )
        if self.one_in(12):
            hostile = {at for at in range(len(types)) if self.one_in(2)}
        return [self.value(names[at], kind, at in hostile) for at, kind in enumerate(types)]

    # ---- statements

    def call(self):
        name, names, variadic, types, required, is_trigger = self.random.choices(self.functions, self.weights)[0]
        self.callers, self.of, self.lasting = self.may[f"skill_system.{name}"], name, name not in DESTRUCTIVE
        given = []
        for at, value in enumerate(self.values(names, types)):
            if at < required or not self.one_in(3):
                given.append(f"{'VARIADIC ' if variadic and at == len(types) - 1 else ''}{names[at]} => {value}")
        call = f"skill_system.{name}({', '.join(given)})"
        if is_trigger:
            return f"SELECT {call}"
        return self.random.choice(PLACES).replace("{}", call) if self.one_in(3) else f"SELECT * FROM {call}"

    def write(self):
        table, _, columns, types = self.random.choice(self.tables)
        self.callers, self.of = self.may[table], table.removeprefix("skill_system.")
        # Its default is the tenant of the session.
        chosen = [
            at for at, name in enumerate(columns) if self.random.random() < (0.1 if name == "tenant_id" else 0.7)
        ] or [0]
        names, kinds = [columns[at] for at in chosen], [types[at] for at in chosen]
        values = self.values(names, kinds)
        shape = self.random.randrange(8)
        self.lasting = shape != 1
        if shape == 0:
            return f"SELECT * FROM {table} LIMIT 500"
        if shape == 1:
            return f"DELETE FROM {table} WHERE random() < 0.05"
        if shape < 5:
            changes = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
            return f"UPDATE {table} SET {', '.join(changes[-3:])} WHERE random() < 0.2"
        return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(values)})"

    def statement(self):
        return self.write() if self.one_in(5) else self.call()
