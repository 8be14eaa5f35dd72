"""Shared by the sections: psql, pgbench, alternating measurements, ratios."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "5"))
BIN = subprocess.run(
    [os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True, check=True
).stdout.strip()
DATA = (
    """'{"form": "W-1", "api": "42-501-20130", "decision": "allow", "effects": ["db.read", "fs.write"], """
    """"depth": 8120.50, "note": "permit to drill, rule 37 exception requested"}'"""
)


def psql(sql, database="bench", user="postgres"):
    done = subprocess.run(
        [f"{BIN}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-c", sql],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{sql}\n{done.stderr}")
    return done.stdout.strip()


def pgbench(script, clients, options=""):
    """Transactions per second of one script."""
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
                str(clients),
                "-j",
                "2",
                "-T",
                str(SECONDS),
                "-f",
                file.name,
                "-U",
                "bench_agent",
                "bench",
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"PGOPTIONS": options},
        )
    rate = [line for line in done.stdout.splitlines() if line.startswith("tps")]
    if done.returncode or not rate:
        sys.exit(f"pgbench failed for\n{script}\n{done.stderr}")
    return float(rate[0].split()[2])


def rate_of(clients, options=""):
    """A measurement for alternate(): transactions per second of a script."""
    return lambda script: pgbench(script, clients, options)


def seconds(sql, user="bench_agent"):
    started = time.monotonic()
    psql(sql, user=user)
    return time.monotonic() - started


def alternate(variants, measure):
    """Medians of each variant, measured in turn."""
    found = {name: [] for name in variants}
    for repeat in range(REPEATS):
        names = list(variants) if repeat % 2 == 0 else list(variants)[::-1]
        for name in names:
            found[name].append(measure(variants[name]))
    return {name: statistics.median(values) for name, values in found.items()}


def show(title, medians, unit, target=None):
    base, tested = list(medians)[:2]
    print(f"\n{title}")
    for name, value in medians.items():
        print(f"    {name:<42} {value:>12,.2f} {unit}   {value / medians[base]:.3f} of {base}")
    if target:
        kind, bound = target
        ratio = medians[tested] / medians[base]
        met = ratio >= bound if kind == ">=" else ratio <= bound
        print(f"    target {kind} {bound}: {ratio:.3f} {'met' if met else 'MISSED'}")
    sys.stdout.flush()
