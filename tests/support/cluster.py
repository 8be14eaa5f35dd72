"""Servers and their processes: programs of PostgreSQL, the user that the servers run as, databases, SIGKILL."""

import ctypes
import os
import subprocess
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from psycopg import sql

ROOT = Path(__file__).resolve().parents[2]
# The partition of the records of now.
MONTH = f"audit_logs_{datetime.now(UTC):%Y_%m}"
PRELOAD = "shared_preload_libraries=skill_system"
PR_SET_CHILD_SUBREAPER = 36


def bindir():
    return subprocess.run(
        [os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True, check=True
    ).stdout.strip()


def as_server(*command, **more):
    """Runs a command as the user that the servers run as, who owns the keyring; returns its output."""
    command = [str(word) for word in command]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **more)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def governed(cluster, name="governed"):
    """Creates a database with the extension in that cluster; returns a connection to it."""
    with cluster.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    connection = cluster.connect(dbname=name)
    connection.execute("CREATE EXTENSION skill_system")
    return connection


def ready_for_restore(cluster, keyring, name="governed"):
    """What a dump of a database does not bring: the database itself, the roles and the keyring (None leaves it out)."""
    with cluster.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        for word in ("agent", "reviewer", "auditor", "admin"):
            admin.execute(f"CREATE ROLE skill_system_{word} NOLOGIN")
    if keyring is not None:
        as_server("sh", "-c", 'umask 077; cat > "$0"', cluster.data / "skill_system_keyring.json", input=keyring)


def without_months(connection):
    """Drops the empty partitions of this month and the next two: records go to the default one."""
    with connection.transaction():
        connection.execute("SET LOCAL skill_system.allow_unprotected = on")
        for (month,) in connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'skill_system.audit_logs'::regclass "
            "AND inhrelid::regclass::text >= %s AND inhrelid::regclass::text ~ '[0-9]$' ORDER BY 1 LIMIT 3",
            [f"skill_system.{MONTH}"],
        ).fetchall():
            assert connection.execute(f"SELECT count(*) FROM {month}").fetchone() == (0,)
            connection.execute(f"DROP TABLE {month}")


def server_log(directory):
    """The log of the server whose cluster is in that directory."""
    return as_server("cat", directory / "log")


def until(condition, what, seconds=20):
    """Waits for something true, which it returns."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@cache
def skill_verify_program():
    """tests/run names the program in SKILL_VERIFY; else it is built once, with the profile that the environment names."""
    if "SKILL_VERIFY" in os.environ:
        return Path(os.environ["SKILL_VERIFY"])
    profile = os.environ.get("PROFILE", "release")
    subprocess.run(["cargo", "build", "--profile", profile, "--quiet", "-p", "skill-verify"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / profile / "skill-verify"


def adopt_orphans(yes):
    """Makes this process the parent of orphaned servers, so that it can reap what it kills: to pg_ctl a zombie is a
    running server, and the first process of a container may be slow to collect them."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)


def kill_hard(data):
    """SIGKILL for the postmaster and all its children."""
    postmaster = int(as_server("cat", data / "postmaster.pid").splitlines()[0])
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(postmaster)], capture_output=True, text=True
    ).stdout.split()
    found = [postmaster, *map(int, children)]
    subprocess.run(["kill", "-9", *map(str, found)], capture_output=True)
    deadline = time.monotonic() + 30
    while found:
        for pid in list(found):
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                found.remove(pid)
        assert time.monotonic() < deadline, f"processes {found} do not die"
        time.sleep(0.01)
