"""Sealing, its delay, verification, and what a proof costs in small and large logs."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measure import BIN, DATA, REPEATS, alternate, psql, show

ROOT = Path(__file__).resolve().parents[1]
LATENCY_SECONDS = int(os.environ.get("BENCH_LATENCY_SECONDS", "60"))
WAL_SECONDS = int(os.environ.get("BENCH_WAL_SECONDS", "300"))
ROWS = int(os.environ.get("BENCH_ROWS", "10000000"))


def log(name, interval="1h"):
    """A new database with the extension and a first record; its sealer has done its first step and does the next after the interval."""
    psql(f"ALTER SYSTEM SET skill_system.seal_interval = '{interval}'", "postgres")
    psql("SELECT pg_reload_conf()", "postgres")
    psql(f"DROP DATABASE IF EXISTS {name}", "postgres")
    psql(f"CREATE DATABASE {name}", "postgres")
    psql("CREATE EXTENSION skill_system; SELECT count(*) FROM skill_system.maintain()", name)
    psql("SELECT skill_system.append_audit('first', '{}')", name)
    while psql("SELECT count(*) FROM skill_system.audit_seal_state", name) == "0":
        time.sleep(0.1)
    time.sleep(1)


def append(name, rows):
    psql(
        f"INSERT INTO skill_system.audit_logs (event_type, event_data, actor_id, actor_type) "
        f"SELECT 'form.sent', {DATA}, 'rule37-agent', 'agent' FROM generate_series(1, {rows})",
        name,
    )


def timed(sql, name):
    """The result and the milliseconds that the server took."""
    started = time.monotonic()
    answer = psql(sql, name)
    return answer, (time.monotonic() - started) * 1000


def seal():
    rows = 1_000_000
    rates = []
    for _ in range(REPEATS):
        log("bench_seal")
        append("bench_seal", rows)
        psql("CHECKPOINT", "postgres")
        answer, ms = timed("SELECT sealed FROM skill_system.seal_audit()", "bench_seal")
        assert int(answer) in (rows, rows + 1), f"{answer} sealed: the sealer was faster"
        copied = timed("COPY (SELECT * FROM skill_system.audit_logs) TO '/dev/null' (FORMAT binary)", "bench_seal")[1]
        rates.append((rows / ms * 1000, rows / copied * 1000))
    sealed, read = (statistics.median(column) for column in zip(*rates, strict=True))
    show(
        f"seal_audit() of {rows:,} records in one backend",
        {"COPY ... TO '/dev/null' (binary) of the same": read, "seal_audit()": sealed},
        "rows/s",
    )
    print(f"    target >= 250,000 leaves/s: {sealed:,.0f} {'met' if sealed >= 250_000 else 'MISSED'}")
    size = int(
        psql(
            "SELECT sum(pg_total_relation_size(c)) FROM unnest(ARRAY['skill_system.audit_tiles', 'skill_system.audit_map', "
            "'skill_system.audit_seal_state']::regclass[]) c",
            "bench_seal",
        )
    )
    print(f"    seal data: {size / rows:.1f} bytes a record; target <= 90: {'met' if size / rows <= 90 else 'MISSED'}")
    psql("DROP DATABASE bench_seal", "postgres")


def wal():
    """One record a second, each sealed within a second: bytes of WAL a record, from a checkpoint on."""
    log("bench_wal", "1s")
    append("bench_wal", 5000)
    psql("VACUUM ANALYZE", "bench_wal")
    psql("CHECKPOINT", "postgres")
    start = psql("SELECT pg_current_wal_lsn()", "postgres")
    for _ in range(WAL_SECONDS):
        append("bench_wal", 1)
        time.sleep(1)
    written = psql(f"SELECT pg_current_wal_lsn() - '{start}'", "postgres")
    print(
        f"\nWAL at one record a second for {WAL_SECONDS} s: {int(written) / WAL_SECONDS:,.0f} bytes a record",
        flush=True,
    )


def latency():
    """From the clock of the record to the moment that a poll sees it sealed: an upper bound of commit to sealed."""
    log("bench_latency", "1s")
    psql("CREATE TABLE other (x int)", "bench_latency")
    orphan = "BEGIN; SELECT skill_system.append_audit('orphan', '{}'); PREPARE TRANSACTION 'bench_orphan'"
    psql(orphan, "bench_latency")
    long = subprocess.Popen(
        [f"{BIN}/psql", "-XqAt", "-U", "postgres", "-d", "bench_latency"], stdin=subprocess.PIPE, text=True
    )
    long.stdin.write("BEGIN; SELECT skill_system.append_audit('long', '{}');\n")
    long.stdin.flush()
    time.sleep(2)
    polls, stop = [], threading.Event()

    def poll():
        with subprocess.Popen(
            [f"{BIN}/psql", "-XqAt", "-U", "postgres", "-d", "bench_latency"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as psql_process:
            while not stop.is_set():
                psql_process.stdin.write(
                    "SELECT tree_size, extract(epoch FROM clock_timestamp()) FROM skill_system.audit_seal_state;\n"
                )
                psql_process.stdin.flush()
                size, at = psql_process.stdout.readline().split("|")
                polls.append((int(size), float(at)))
                time.sleep(0.01)
            psql_process.stdin.close()

    watcher = threading.Thread(target=poll)
    watcher.start()
    script = (
        "INSERT INTO skill_system.audit_logs (event_type, event_data, actor_id, actor_type) SELECT 'form.sent', "
        f"{DATA}, 'rule37-agent', 'agent' FROM generate_series(1, 10);"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                f"{BIN}/pgbench",
                "-n",
                "-M",
                "prepared",
                "-c",
                "8",
                "-j",
                "1",
                "-R",
                "1000",
                "-T",
                str(LATENCY_SECONDS),
                "-f",
                file.name,
                "-U",
                "postgres",
                "bench_latency",
            ],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(done.stderr)
    time.sleep(3)
    stop.set()
    watcher.join()
    recorded = [
        float(line)
        for line in psql(
            "SELECT extract(epoch FROM a.recorded_at) FROM skill_system.audit_leaves() l JOIN skill_system.audit_logs a "
            "ON a.id = l.record_id ORDER BY l.leaf_index",
            "bench_latency",
        ).splitlines()
    ]
    delays, place = [], 0
    for leaf, at in enumerate(recorded):
        while place < len(polls) and polls[place][0] <= leaf:
            place += 1
        if place < len(polls) and polls[0][0] <= leaf:
            delays.append(polls[place][1] - at)
    delays.sort()
    rate = re.search(r"tps = ([\d.]+)", done.stdout)[1]
    print(
        f"\nrecord to sealed, {float(rate) * 10:,.0f} records/s for {LATENCY_SECONDS} s, seal_interval 1 s, one "
        "transaction open all the time and one prepared and forgotten"
    )

    def at(share):
        return delays[min(len(delays) - 1, int(len(delays) * share))]

    print(
        f"    {len(delays):,} records: p50 {at(0.5):.2f} s, p95 {at(0.95):.2f} s, p99 {at(0.99):.2f} s, max "
        f"{delays[-1]:.2f} s; target p99 <= 1 s: {'met' if at(0.99) <= 1 else 'MISSED'}"
    )
    long.stdin.write("COMMIT;\n")
    long.stdin.close()
    long.wait()
    psql("COMMIT PREPARED 'bench_orphan'", "bench_latency")
    psql("SELECT * FROM skill_system.seal_audit()", "bench_latency")
    problems = psql("SELECT count(*) FROM skill_system.verify_audit()", "bench_latency")
    assert problems == "0", f"{problems} problems"
    psql("DROP DATABASE bench_latency", "postgres")


def verify():
    rows = 1_000_000
    log("bench_verify")
    append("bench_verify", rows)
    psql("SELECT * FROM skill_system.seal_audit()", "bench_verify")
    psql("VACUUM ANALYZE skill_system.audit_logs", "bench_verify")
    psql("SELECT skill_system.audit_checkpoint()", "bench_verify")

    def rate(settings):
        return rows / timed(f"{settings} SELECT * FROM skill_system.verify_audit()", "bench_verify")[1] * 1000

    medians = alternate(
        {
            "COPY ... TO '/dev/null' (binary) of the same": None,
            "verify_audit(), one backend": "SET max_parallel_workers_per_gather = 0;",
            "verify_audit(), two parallel workers": "SET max_parallel_workers_per_gather = 2;",
        },
        lambda settings: (
            rate(settings)
            if settings
            else rows
            / timed("COPY (SELECT * FROM skill_system.audit_logs) TO '/dev/null' (FORMAT binary)", "bench_verify")[1]
            * 1000
        ),
    )
    show(f"verification of {rows:,} records in the database", medians, "rows/s")
    single = medians["verify_audit(), one backend"]
    print(f"    target >= 500,000 rows/s in one backend: {single:,.0f} {'met' if single >= 500_000 else 'MISSED'}")

    subprocess.run(["cargo", "build", "--release", "-q", "-p", "skill-verify"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as directory:
        key, export = Path(directory) / "key", Path(directory) / "export.jsonl"
        key.write_text(
            psql("SELECT verifier_key FROM skill_system.audit_public_key() WHERE active", "bench_verify") + "\n"
        )
        with export.open("w") as file:
            started = time.monotonic()
            subprocess.run(
                [
                    f"{BIN}/psql",
                    "-XqAt",
                    "-U",
                    "postgres",
                    "-d",
                    "bench_verify",
                    "-c",
                    "SELECT * FROM skill_system.audit_export()",
                ],
                stdout=file,
                check=True,
            )
            print(
                f"    audit_export(): {rows / (time.monotonic() - started):,.0f} rows/s, {export.stat().st_size / rows:.0f} bytes a record"
            )

        def offline(threads):
            started = time.monotonic()
            subprocess.run(
                [ROOT / "target/release/skill-verify", "export", export, "--key", key, "--threads", threads],
                check=True,
                capture_output=True,
            )
            return rows / (time.monotonic() - started)

        medians = alternate({"skill-verify export --threads 1": "1", "skill-verify export --threads 2": "2"}, offline)
        show(f"verification of {rows:,} records offline", medians, "rows/s", (">=", 1.8))
        single = medians["skill-verify export --threads 1"]
        print(f"    target >= 1,200,000 rows/s on one core: {single:,.0f} {'met' if single >= 1_200_000 else 'MISSED'}")
        used = subprocess.run(
            [
                "/usr/bin/env",
                "python3",
                "-c",
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
                ROOT / "target/release/skill-verify",
                "export",
                export,
                "--key",
                key,
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        print(f"    memory: {int(used.stdout) / 1024:.0f} MiB at {rows:,} records")
    psql("DROP DATABASE bench_verify", "postgres")


def scale():
    """The same three measurements in logs of different sizes."""
    log("bench_scale")
    found = {}
    for size in (ROWS // 100, ROWS // 10, ROWS):
        have = int(psql("SELECT count(*) FROM skill_system.audit_logs", "bench_scale"))
        while have < size:
            step = min(1_000_000, size - have)
            append("bench_scale", step)
            psql("SELECT * FROM skill_system.seal_audit()", "bench_scale")
            have += step
        psql("VACUUM ANALYZE skill_system.audit_logs", "bench_scale")
        psql("SELECT skill_system.audit_checkpoint()", "bench_scale")
        script = (
            "\\timing on\n"
            + f"SELECT record_id FROM skill_system.audit_leaves((random() * {size - 2})::bigint, 1) \\gset\n"
            "SELECT count(*) FROM skill_system.audit_inclusion_proof(:'record_id');\n"
            * 41
            + f"SELECT count(*) FROM skill_system.audit_consistency_proof((random() * {size - 2})::bigint);\n" * 41
            + f"SELECT skill_system.append_audit('form.sent', {DATA}) IS NULL;\nSELECT count(*) FROM "
            "skill_system.seal_audit();\nSELECT length(skill_system.audit_checkpoint());\n" * 41
        )
        done = subprocess.run(
            [f"{BIN}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "bench_scale"],
            input=script,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        times = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("Time:")]
        pairs, rest = times[:82], times[82:]
        tail = rest[41:]
        found[size] = {
            "inclusion proof": statistics.median(pairs[1::2]),
            "consistency proof": statistics.median(rest[:41]),
            "append_audit()": statistics.median(tail[0::3]),
            "seal_audit() of one record": statistics.median(tail[1::3]),
            "audit_checkpoint()": statistics.median(tail[2::3]),
        }
    print("\none call in logs of different sizes, ms (medians of 41)")
    print("    " + " " * 30 + "".join(f"{size:>14,}" for size in found))
    for name in next(iter(found.values())):
        print(f"    {name:<30}" + "".join(f"{times[name]:>14.3f}" for times in found.values()))
    proof = found[ROWS]["inclusion proof"]
    print(f"    target inclusion proof <= 2 ms at {ROWS:,}: {proof:.2f} {'met' if proof <= 2 else 'MISSED'}")
    psql("DROP DATABASE bench_scale", "postgres")
