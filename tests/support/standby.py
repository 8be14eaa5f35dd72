"""Servers on copies of another server's files: standbys, backups, copies that come back later."""

import os
import subprocess
import time
import uuid
from pathlib import Path

import psycopg

from cluster import as_server, bindir


class Copy:
    """A server on a copy of another one's files."""

    def __init__(self, cluster):
        self.home = Path(os.environ["PGHOST"]) / uuid.uuid4().hex[:6]
        self.data = self.home / "data"
        self.environment = {**cluster.environment, "PGHOST": str(self.home)}
        self.home.mkdir()
        if os.geteuid() == 0:
            subprocess.run(["chown", "postgres:", str(self.home)], check=True)

    def backup(self, cluster, *options):
        where = cluster.environment
        as_server(
            f"{bindir()}/pg_basebackup",
            "-h",
            where["PGHOST"],
            "-p",
            where["PGPORT"],
            "-U",
            where["PGUSER"],
            "-D",
            self.data,
            "-X",
            "stream",
            "-c",
            "fast",
            *options,
        )
        return self

    def files(self, data):
        as_server("cp", "-a", data, self.data)
        return self

    def start(self, *settings):
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{self.home}' -c port={self.environment['PGPORT']}"
        )
        for setting in settings:
            options += f" -c {setting}"
        as_server(
            f"{bindir()}/pg_ctl",
            "-s",
            "-w",
            "-t",
            "120",
            "-D",
            self.data,
            "-l",
            self.home / "log",
            "-o",
            options,
            "start",
        )
        return self

    def stop(self, mode="fast"):
        as_server(f"{bindir()}/pg_ctl", "-s", "-w", "-m", mode, "-D", self.data, "stop")

    def connect(self, role=None, dbname="governed"):
        where = self.environment
        return psycopg.connect(
            host=where["PGHOST"], port=where["PGPORT"], user=role or where["PGUSER"], dbname=dbname, autocommit=True
        )

    def promote(self):
        with self.connect(dbname="postgres") as admin:
            admin.execute("SELECT pg_promote()")

    def destroy(self):
        if (self.data / "postmaster.pid").exists() or os.geteuid() == 0:
            try:
                self.stop("immediate")
            except AssertionError:
                pass  # it does not run
        subprocess.run(["rm", "-rf", str(self.home)], check=True)


def wait_for_replay(primary, standby):
    """Until the standby has replayed what the primary has flushed by now."""
    target = primary.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()[0]
    for _ in range(1000):
        if standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [target]).fetchone()[0]:
            return
        time.sleep(0.02)
    raise AssertionError("the standby does not catch up")
