#!/usr/bin/env python3
"""Writes the pages of docs/reference from the catalogue of the database that PGHOST, PGDATABASE and so on name.

tools/reference.py DIRECTORY. The database has the extension and nothing else; the same catalogue gives the same pages.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = list(dict.fromkeys(re.findall(r"^(\w+)/", (ROOT / "sql/ORDER").read_text(), re.M)))
ROLES = {
    "agent": "For programs that act: checks policies, logs runs and events, appends audit records, registers and loads"
    " skills, begins filings, works on them and files what is approved, proposes rules. The only role that writes runs.",
    "reviewer": "For people who decide: approves skills, filings and proposed rules, accepts stale rules, makes"
    " exceptions, gets signed filings. Reads policies and runs, appends audit records.",
    "auditor": "Reads everything, of all tenants, and changes nothing but the seal: verifies, seals, takes checkpoints,"
    " proofs and exports, reads `health()`.",
    "admin": "Changes policies, kinds of entities, templates, rules, approvers, agents and client schemas; reads the"
    " audit trail; protects tables it owns; seals, adopts, retires, holds, rotates keys; calls `maintain()`.",
}
WHEN = {
    "22023": "an argument is wrong: a malformed rule, an unknown status, a text that is too long, a negative duration",
    "23502": "a column that must have a value is NULL",
    "23505": "the name or key is taken",
    "25001": "`seal_audit()`, `adopt_log()` or `maintain()` inside a transaction block: call it by itself",
    "25006": "writing in a READ ONLY transaction or on a standby",
    "40001": "a checklist was changed since `expected_version`, or a rule since the one compared, or another session"
    " sealed since this REPEATABLE READ transaction began: read again and repeat",
    "39P01": "a trigger function of the extension is called in another way than the extension installs it",
    "42501": "`enforce_policy()` blocks, or the role lacks the right",
    "42704": "no such policy, run, column or sealed record",
    "53200": "one statement needs more memory than the server gets; the session goes on",
    "53400": "a denial could not be recorded: no free worker, or it could not write",
    "54000": "too much: rules, inherited policies, events in one call, bytes",
    "55000": "not in this state: an append-only table, a run that has ended, a stale filing, a log that nothing has"
    " sealed yet or that was sealed in another server",
    "55P03": "another transaction changes the same policies, rules, skill or filing, or uses the partition",
    "F0000": "the keyring is missing, not private or broken; nothing can be signed until it is fixed",
    "P0004": "`assert_allows()`, `assert_denies()` or `assert_integrity()` failed",
    "SK403": "an approval does not hold: no signature, a wrong one, one by an unknown key",
    "SK404": "no such skill",
    "SK405": "the skill has no such version",
    "SK409": "conflict: the name is empty, the skill is pinned, requirements are not met",
    "XX000": "a defect of the extension; please report it",
    "XX001": "stored data is damaged: tiles of the ledger, or a value that is not of its declared type",
}
HEAD = "<!-- Written by `make docs` from the catalogue. Change the comments in sql/, not this page. -->\n"

FUNCTIONS = """
SELECT p.proname AS name, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS hidden,
    pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
    replace(obj_description(p.oid, 'pg_proc'), E'\n', ' ') AS comment,
    (SELECT array_agg(r ORDER BY n) FROM unnest('{agent,reviewer,auditor,admin}'::text[]) WITH ORDINALITY AS roles(r, n)
        WHERE has_function_privilege('skill_system_' || r, p.oid, 'EXECUTE')) AS roles
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE p.pronamespace = 'skill_system'::regnamespace"""
TABLES = """
SELECT c.relname AS name, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind, obj_description(c.oid, 'pg_class') AS comment,
    (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
            'comment', col_description(c.oid, a.attnum)) ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT json_object_agg(r, (SELECT array_agg(
                p || CASE WHEN has_table_privilege('skill_system_' || r, c.oid, p) THEN '' ELSE ' (columns)' END ORDER BY n)
            FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) WITH ORDINALITY AS privileges(p, n)
            WHERE has_table_privilege('skill_system_' || r, c.oid, p)
                OR p <> 'DELETE'
                AND has_any_column_privilege('skill_system_' || r, c.oid, CASE p WHEN 'DELETE' THEN 'SELECT' ELSE p END)))
        FROM unnest('{agent,reviewer,auditor,admin}'::text[]) AS r) AS roles
FROM pg_class c WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition"""
TYPES = """
SELECT t.typname AS name, obj_description(t.oid, 'pg_type') AS comment,
    (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) AS labels,
    (SELECT array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS fields
FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'skill_system'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')"""
SETTINGS = """
SELECT name, boot_val, unit, context, short_desc, extra_desc, enumvals FROM pg_settings WHERE name LIKE 'skill\\_system.%'"""


def rows(query):
    """The rows of a query, in the order of their names whatever the server's collation."""
    statement = f"SELECT coalesce(json_agg(q), '[]') FROM ({query}) AS q"
    done = subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", "LOAD 'skill_system'", "-c", statement],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return sorted(found, key=lambda row: (row["name"], row.get("arguments") or ""))


def modules_of_objects():
    """The module of an object: the folder of the install script that creates it."""
    found = {}
    create = re.compile(r"\bCREATE (?:OR REPLACE )?(?:FUNCTION|TABLE|VIEW|TYPE|DOMAIN|PROCEDURE) skill_system\.(\w+)")
    for script in sorted((ROOT / "sql").glob("*/*.sql")):
        for name in create.findall(script.read_text()):
            found[name] = script.parent.name
    return found


def prose(text):
    """A comment as Markdown: calls and names of settings as code, all else escaped."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*").replace("$[", "$\\[")
    return re.sub(r"(?<![\w`.])((?:skill_system\.)?[a-z][a-z0-9_]*\(\)|skill_system\.[a-z_]+)", r"`\1`", text)


def cell(text):
    return (text or "").replace("|", "\\|").replace("\n", " ")


def comment_and_example(comment):
    words, _, example = re.sub(r"\s+Task \d+: .*?(?=\s+Example: )", "", comment or "").partition("Example: ")
    return " ".join(words.split()), " ".join(example.split())


def grouped(found):
    """The rows by module and name, modules in their order."""
    modules = modules_of_objects()
    groups = {module: defaultdict(list) for module in MODULES}
    for row in found:
        module = modules.get(row["name"])
        if module is None:
            sys.exit(f"no script in sql/ creates {row['name']}")
        groups[module][row["name"]].append(row)
    return groups


def functions_page():
    page = [
        HEAD,
        "# Functions\n",
        "Every function of the schema `skill_system`, by module. Argument names may be written: `f(name => value)`."
        " The check functions write nothing; they work in READ ONLY transactions and on a hot standby.\n",
        "The same words mean the same in every module: `actor_id` is who acts (a claim), `reason` is why, `max_rows` is"
        " how many, `skill` is a skill's name, `namespace/name` or UUID, `*_id` is an id, `*_at` a time, `*_ms` a"
        " duration in milliseconds. Functions that implement another system's contract (`skill_store_*`, `mcp_*`,"
        " `redis_export`) keep the words of that contract.\n",
    ]
    groups = grouped(rows(FUNCTIONS))
    for module, names in groups.items():
        public = [name for name, found in names.items() if not found[0]["hidden"]]
        page.append(f"- [{module}](#{module}): " + ", ".join(f"[`{name}`](#{name})" for name in public))
    for module, names in groups.items():
        page.append(f"\n## {module}\n")
        hidden = []
        for name, found in names.items():
            if found[0]["hidden"]:
                hidden.append((name, found[0]["comment"]))
                continue
            page.append(f"### {name}\n")
            page.append("```text")
            for overload in found:
                page.append(signature(overload))
            page.append("```\n")
            variants = {}
            for overload in found:
                variants.setdefault(comment_and_example(overload["comment"]), overload)
            for words, example in variants:
                page.append(f"{prose(words)}\n")
                if example:
                    page.append(f"Example: `{example}`\n")
            roles = found[0]["roles"]
            page.append(f"Roles: {', '.join(roles) if roles else 'superusers only'}.\n")
        if hidden:
            page.append(f"### Trigger functions of {module}\n")
            page += [f"- `{name}`: {prose(comment)}" for name, comment in hidden]
            page.append("")
    return page


def signature(function):
    """One argument per line when it has many."""
    arguments = function["arguments"]
    if len(arguments) > 80:
        parts = re.split(r", (?=(?:VARIADIC |OUT |INOUT )?[a-z_0-9]+ [a-z])", arguments)
        arguments = "\n    " + ",\n    ".join(parts) + "\n"
    return f"{function['name']}({arguments}) -> {function['result']}"


def tables_page():
    page = [
        HEAD,
        "# Tables, views and types\n",
        "Every table has row security: a session sees and writes the rows of its own tenant. Who may do what:"
        " [roles](roles.md).\n",
    ]
    types = grouped(rows(TYPES))
    for module, names in grouped(rows(TABLES)).items():
        if names or types[module]:
            page.append(f"\n## Module {module}\n")
        for name, found in names.items():
            table = found[0]
            page.append(f"### {name}\n\n{table['kind'].capitalize()}. {prose(' '.join(table['comment'].split()))}\n")
            page.append("| Column | Type | |\n|---|---|---|")
            for column in table["columns"]:
                null = " NOT NULL" if column["not_null"] else ""
                page.append(f"| `{column['name']}` | {column['type']}{null} | {cell(prose(column['comment'] or ''))} |")
            page.append("")
        for name, found in types[module].items():
            described = found[0]
            parts = described["labels"] or described["fields"] or []
            page.append(f"### Type {name}\n\n{prose(' '.join((described['comment'] or '').split()))}\n")
            page += [f"- `{part}`" for part in parts] + [""]
    return page


def settings_page():
    page = [HEAD, "# Settings\n", "| Setting | Default | Changed by | |\n|---|---|---|---|"]
    who = {
        "sighup": "configuration, reload",
        "superuser": "superusers, or a role with `GRANT SET ON PARAMETER`",
        "user": "anyone",
        "postmaster": "configuration, restart",
    }
    for setting in rows(SETTINGS):
        default = f"{setting['boot_val']} {setting['unit'] or ''}".strip() or "empty"
        if setting["boot_val"] == "-1":
            default = "-1"
        words = f"{setting['short_desc']} {setting['extra_desc'] or ''}".strip()
        page.append(f"| `{setting['name']}` | {default} | {who[setting['context']]} | {cell(prose(words))} |")
    page.append(
        "\n`ALTER ROLE ... SET` and `ALTER DATABASE ... SET` bind a setting to a role or a database; see"
        " [operations](../operations.md#tenants) for the tenant.\n"
    )
    return page


def errors_page():
    source = (ROOT / "crates" / "core" / "src" / "error.rs").read_text()
    codes = dict(re.findall(r"/// `(\w{5})` (\w+)", source))
    if not set(codes) <= set(WHEN):
        sys.exit(f"WHEN does not tell when {sorted(set(codes) - set(WHEN))} of crates/core/src/error.rs are raised")
    raised = defaultdict(set)
    for function in rows(FUNCTIONS):
        for sentence in re.findall(r"[Rr]aises (.*?)(?:\. |\.$|$)", function["comment"] or ""):
            for state in re.findall(r"\b[0-9A-Z]{5}\b", sentence):
                raised[state].add(function["name"])
    page = [
        HEAD,
        "# Errors\n",
        "Each error has a message (what is wrong), most have a detail (which row or rule) and a hint (how to fix it)."
        " PL/pgSQL catches one with `EXCEPTION WHEN SQLSTATE 'SK404'`. PostgreSQL raises its own as well: 42501 for a"
        " missing right, 23514 for a CHECK.\n",
        "| SQLSTATE | Condition | When | Functions whose comment names it |\n|---|---|---|---|",
    ]
    for state in sorted(codes):
        names = ", ".join(f"`{name}`" for name in sorted(raised[state]))
        page.append(f"| `{state}` | {codes[state]} | {WHEN[state]} | {names} |")
    page.append("")
    return page


def roles_page():
    page = [
        HEAD,
        "# Roles\n",
        "Created by `CREATE EXTENSION` when absent. None can log in; grant them to roles of yours. PUBLIC has no rights"
        " at all. They belong to the server, not to the database, and stay after `DROP EXTENSION`.\n",
        "| Role | May |\n|---|---|",
    ]
    page += [f"| `skill_system_{role}` | {text} |" for role, text in ROLES.items()]
    page.append("\n## Functions by role\n")
    for module, names in grouped(rows(FUNCTIONS)).items():
        page.append(f"### Functions of {module}\n\n| Function | {' | '.join(ROLES)} |\n|---|{':-:|' * len(ROLES)}")
        for name, found in names.items():
            if not found[0]["hidden"]:
                marks = ["yes" if role in (found[0]["roles"] or []) else "" for role in ROLES]
                page.append(f"| [`{name}`](functions.md#{name}) | {' | '.join(marks)} |")
        page.append("")
    page.append("## Tables and views by role\n\nRow security narrows each of these to the session's tenant.\n")
    for module, names in grouped(rows(TABLES)).items():
        if not names:
            continue
        page.append(f"### Tables of {module}\n\n| Table or view | {' | '.join(ROLES)} |\n|---|{'---|' * len(ROLES)}")
        for name, found in names.items():
            marks = [", ".join(found[0]["roles"][role] or []) for role in ROLES]
            page.append(f"| [`{name}`](tables.md#{name}) | {' | '.join(marks)} |")
        page.append("")
    return page


def main():
    directory = Path(sys.argv[1])
    pages = {
        "functions": functions_page,
        "tables": tables_page,
        "settings": settings_page,
        "errors": errors_page,
        "roles": roles_page,
    }
    for name, write in pages.items():
        (directory / f"{name}.md").write_text("\n".join(write()).rstrip() + "\n")


main()
