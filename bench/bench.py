#!/usr/bin/env python3
"""Measures the extension against hand-made baselines in the same run and prints ratios.

Variants alternate within each repetition and medians are compared, because the machine may be shared.
Usage: bench.py [section ...]; sections: audit, bulk, capture, compliance, policy, runs, skills, seal,
latency, verify, scale. BENCH_SECONDS and BENCH_REPEATS set the length of one measurement (default 3 s) and how often it is
repeated (default 5); BENCH_LATENCY_SECONDS (default 60) the length of the section latency, BENCH_ROWS (default 10000000) the
largest log of the section scale. Needs a running server in PGHOST and PGPORT that has the extension installed and preloaded;
replaces the database "bench".
"""

import os
import subprocess
import sys

import compliance
from measure import BIN, DATA, HERE, REPEATS, SECONDS, alternate, psql, rate_of, seconds, show

import ledger
import skills


def audit():
    def insert(table):
        return (
            f"INSERT INTO {table} (event_type, event_data, actor_id, actor_type) VALUES ('form.sent', {DATA}, "
            "'rule37-agent', 'agent');"
        )

    chain = (
        "\\set t random(1, 64)\nINSERT INTO bench.audit_chain (tenant_id, event_type, event_data, actor_id, actor_type) "
        "VALUES ('t' || :t, 'form.sent', " + DATA + ", 'rule37-agent', 'agent');"
    )
    variants = {
        "plain table": insert("bench.audit_plain"),
        "audit_logs, signed": insert("skill_system.audit_logs"),
        "PL/pgSQL + pgcrypto trigger": insert("bench.audit_plpgsql"),
        "locked hash chain, 64 tenants": chain,
        "append_audit()": "SELECT skill_system.append_audit('form.sent', " + DATA + ", 'rule37-agent', 'agent');",
    }
    for commit in ("off", "on"):
        for clients in (1, 8, 32):
            target = (">=", 0.95) if commit == "off" and clients > 1 else None
            show(
                f"audit insert, {clients} client(s), synchronous_commit {commit}",
                alternate(variants, rate_of(clients, f"-c synchronous_commit={commit}")),
                "tps",
                target,
            )


def bulk():
    rows = 200_000

    def insert(table):
        return (
            f"INSERT INTO {table} (event_type, event_data, actor_id, actor_type) "
            f"SELECT 'form.sent', {DATA}, 'rule37-agent', 'agent' FROM generate_series(1, {rows})"
        )

    variants = {
        "plain table": insert("bench.audit_plain"),
        "audit_logs, signed": insert("skill_system.audit_logs"),
        "PL/pgSQL + pgcrypto trigger": insert("bench.audit_plpgsql"),
    }

    def measure(sql):
        psql("CHECKPOINT")
        return seconds(sql) / rows * 1e6

    show(f"bulk INSERT ... SELECT of {rows:,} rows", alternate(variants, measure), "us/row", ("<=", 1.20))


def capture():
    tables = {
        "PL/pgSQL to_jsonb trigger": "wells_plpgsql",
        "audit_table()": "wells_audited",
        "no trigger": "wells_plain",
    }
    script = "\\set id random(1, 100000)\nUPDATE bench.{} SET counter = counter + 1 WHERE id = :id;"
    for clients in (1, 8):
        show(
            f"change capture, single-row UPDATE, {clients} client(s), synchronous_commit off",
            alternate(
                {name: script.format(table) for name, table in tables.items()},
                rate_of(clients, "-c synchronous_commit=off"),
            ),
            "tps",
        )

    def measure(table):
        taken = seconds(f"UPDATE bench.{table} SET counter = counter + 1 WHERE id <= 50000")
        psql(f"VACUUM bench.{table}")
        return 50000 / taken

    show("change capture, UPDATE of 50,000 rows (the aim is 5)", alternate(tables, measure), "rows/s", (">=", 5))


def policy():
    # \\072 is a colon: pgbench would take :name for one of its variables.
    call = (
        "SELECT * FROM skill_system.check_policy('bench', "
        "E'{db.read:public.wells,fs.write:/srv/app7/x,net.fetch:api.github.com}'::text[]);"
    )
    call = call.replace(":public", "\\072public").replace(":/srv", "\\072/srv").replace(":api", "\\072api")
    constant = (
        "SELECT true AS allowed, '{}'::text[] AS blocked_effects, 'allow'::text AS decision, '{}'::text[] AS ask_effects, "
        "'allowed by policy \"bench\"'::text AS reason, 1 AS policy_version, 'sha256' || repeat('0', 65) AS policy_hash;"
    )
    for clients in (1, 8):
        show(
            f"check_policy, prepared, {clients} client(s)",
            alternate(
                {
                    "SELECT 1": "SELECT 1;",
                    "check_policy()": call,
                    "a constant row of the same shape": constant,
                    "current_tenant(), which does nothing": "SELECT * FROM skill_system.current_tenant();",
                },
                rate_of(clients),
            ),
            "tps",
            (">=", 0.90),
        )
    queries = {
        "reading the requests": "SELECT count(effects) FROM bench.requests",
        "check_policy() on each": "SELECT count((skill_system.check_policy('bench', effects)).allowed) FROM bench.requests",
    }
    settings = "SET max_parallel_workers_per_gather = 0; SET jit = off; "
    medians = alternate(
        queries,
        lambda sql: (
            float(
                psql(f"{settings} EXPLAIN (ANALYZE, TIMING OFF) {sql}", user="bench_agent")
                .split("Execution Time: ")[1]
                .split()[0]
            )
            * 1000
            / 200_000
        ),
    )
    each = medians["check_policy() on each"] - medians["reading the requests"]
    show("check_policy in a loop, 200,000 distinct requests of 3 effects, 50 rules", medians, "us")
    print(f"    one call: {each:.2f} us; target <= 1.5: {'met' if each <= 1.5 else 'MISSED'}")


def runs():
    cte = """WITH r AS (INSERT INTO bench.runs (goal, agent_id, status, started_at, ended_at, metrics)
    VALUES (NULL, 'agent-1', 'succeeded', clock_timestamp() - interval '120 ms', clock_timestamp(),
    '{"steps": 1, "duration_ms": 120}') RETURNING id),
e AS (INSERT INTO bench.run_events (run_id, ts, level, event_type, payload) SELECT id, clock_timestamp(), 'info', 'step_completed',
    '{"skill": "skill-system", "operation": "check", "status": "ok", "duration_ms": 120}' FROM r),
a AS (INSERT INTO bench.run_audit (event_type, event_data, actor_id, actor_type) SELECT 'run.logged',
    jsonb_build_object('run_id', id, 'skill', 'skill-system', 'operation', 'check', 'status', 'succeeded',
    'duration_ms', 120), 'agent-1', 'agent' FROM r)
SELECT id FROM r;"""
    variants = {
        "hand-written CTE, plain tables": cte.replace("\n", " "),
        "log_run()": "SELECT skill_system.log_run('skill-system', 'check', 'succeeded', 120, agent_id => 'agent-1');",
    }
    for commit in ("off", "on"):
        for clients in (1, 8, 32):
            show(
                f"log_run, {clients} client(s), synchronous_commit {commit}",
                alternate(variants, rate_of(clients, f"-c synchronous_commit={commit}")),
                "tps",
                (">=", 0.90),
            )


def main():
    sections = {
        "audit": audit,
        "bulk": bulk,
        "capture": capture,
        "compliance": compliance.compliance,
        "policy": policy,
        "runs": runs,
        "skills": skills.skills,
        "seal": ledger.seal,
        "wal": ledger.wal,
        "latency": ledger.latency,
        "verify": ledger.verify,
        "scale": ledger.scale,
    }
    chosen = sys.argv[1:] or list(sections)
    psql("DROP DATABASE IF EXISTS bench", "postgres")
    psql("CREATE DATABASE bench", "postgres")
    done = subprocess.run(
        [f"{BIN}/psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "bench", "-f", str(HERE / "setup.sql")],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    print(
        psql("SELECT version()"),
        "|",
        os.cpu_count(),
        "cores |",
        psql(
            "SELECT string_agg(name || ' = ' || setting, ', ') FROM pg_settings WHERE name IN ('shared_buffers', 'fsync', 'wal_level')"
        ),
    )
    print(f"medians of {REPEATS} alternating measurements of {SECONDS} s")
    for name in chosen:
        # Some sections slow the sealer down; the others run with its default settings.
        psql("ALTER SYSTEM RESET skill_system.seal_interval", "postgres")
        psql("SELECT pg_reload_conf()", "postgres")
        sections[name]()


main()
