"""Hostile values into every function, table and view, by every role, with a small stack and in parallel workers: a result
or an ordinary error, and afterwards everything can be read, verified and exported.

FUZZ_CALLS is the number of statements, FUZZ_SEED repeats what a failure names."""

import os
import random
import re
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import skills
from cluster import PRELOAD, as_server, server_log, skill_verify_program
from functions import prepare
from fuzz import STAGE, Fuzzer

CALLS = int(os.environ.get("FUZZ_CALLS", "10000"))
SEED = os.environ.get("FUZZ_SEED") or str(random.randrange(1 << 32))
THREADS = 3
WORDS = ("agent", "reviewer", "auditor", "admin")
ROLES = [f"{tenant}_{word}" for tenant in ("default", "acme") for word in WORDS] + ["postgres"]
# The good values are of the first tenant.
WEIGHT = {"default": 4, "acme": 1, "postgres": 2}
# Of class 42 what a right, a name or an argument deserves; the others are what a badly built statement raises.
ORDINARY_42 = "42501 42704 42P01 42809 42602 42703 42710 42P06 42P07 42P16 42P17 42622 42939 428C9".split()
SETTINGS = [
    *("max_stack_depth = '100kB'", "debug_parallel_query = 'regress'", "debug_parallel_query = 'on'", "DateStyle = 'German'"),
    *("TimeZone = 'Pacific/Kiritimati'", "bytea_output = 'escape'", "IntervalStyle = 'sql_standard'"),
    *("default_transaction_isolation = 'serializable'", "default_transaction_isolation = 'repeatable read'"),
    *("default_transaction_read_only = on", "row_security = off", "search_path = 'agent, legacy, public'", "xmloption = document"),
    *("plan_cache_mode = force_generic_plan", "work_mem = '64kB'", "session_replication_role = 'replica'", "quote_all_identifiers = on"),
    *("skill_system.single_user_store = on", "skill_system.integrity_fail_loud = on", "skill_system.max_record_size = '1MB'"),
]  # fmt: skip


def stage(cluster):
    """A server with roles of two tenants, and rows in every table for both. Returns a superuser's connection."""
    with cluster.connect() as admin:
        admin.execute("CREATE DATABASE fuzz TEMPLATE template0")
    db = cluster.connect(dbname="fuzz")
    db.execute("CREATE EXTENSION skill_system")
    prepare(db)
    skills.fill_tables(db, "x")
    db.execute(STAGE)
    db.execute(
        "CREATE TABLE public.many AS SELECT generate_series(1, 200) AS n; GRANT ALL ON public.many TO PUBLIC; ANALYZE"
    )
    for tenant in ("default", "acme"):
        for word in WORDS:
            db.execute(f"CREATE ROLE {tenant}_{word} LOGIN IN ROLE skill_system_{word}")
            for parameter in ("max_stack_depth", "skill_system.single_user_store", "skill_system.max_record_size"):
                db.execute(f"GRANT SET ON PARAMETER {parameter} TO {tenant}_{word}")
            db.execute(
                f"ALTER ROLE {tenant}_{word} SET skill_system.tenant = '{tenant if tenant != 'default' else ''}'"
            )
            db.execute(
                f"GRANT CREATE ON DATABASE fuzz TO {tenant}_{word}; GRANT ALL ON SCHEMA agent TO {tenant}_{word}"
            )
            db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA agent TO {tenant}_{word}")
    with cluster.connect("acme_admin", "fuzz") as acme:
        acme.execute("SELECT * FROM skill_system.install_starter_policies()")
        skills.fill_tables(acme, "acme")
    with cluster.connect("acme_agent", "fuzz") as acme:
        acme.execute("SELECT skill_system.log_run('a', 'op', 'ok')")
    return db


class Session:
    """Runs statements on connections of random roles and settings, and judges what becomes of them."""

    def __init__(self, cluster, seed):
        self.cluster, self.random = cluster, random.Random(seed)
        self.connections, self.calls, self.states, self.wrong = {}, 0, Counter(), []

    def connection(self, callers):
        pool = callers if callers and self.random.random() < 0.9 else ROLES
        role = self.random.choices(pool, [WEIGHT[name.split("_")[0]] for name in pool])[0]
        if role not in self.connections or self.random.random() < 0.01:
            if role in self.connections:
                self.connections[role].close()
            connection = self.connections[role] = self.cluster.connect(role, "fuzz")
            connection.execute("SET statement_timeout = '15s'; SELECT skill_system.current_tenant()")
            for setting in self.random.sample(SETTINGS, self.random.randrange(4)):
                self.run(connection, f"SET {self.known(connection, setting)}")
        return role, self.connections[role]

    def known(self, connection, setting):
        """The setting by the name that this server has for it."""
        if connection.info.server_version < 160000:
            return setting.replace("debug_parallel_query", "force_parallel_mode")
        return setting

    def run(self, connection, statement):
        began = time.monotonic()
        try:
            connection.execute(statement)
            state, message = "00000", "ok"
        except psycopg.Error as error:
            state, message = error.sqlstate, error.diag.message_primary
        except (UnicodeDecodeError, psycopg.DataError) as error:
            state, message = "00000", str(error)
        self.states[state] += 1
        took = time.monotonic() - began
        if (
            not message
            or state is None
            or state[:2] in ("XX", "58", "08", "F0")
            or (state[:2] == "57" and state not in ("57014", "57P01"))
            or (state[:2] == "42" and state not in ORDINARY_42)
            or took > 60
        ):
            self.wrong.append((state, connection.info.user, round(took, 1), message, statement[:3000]))
        return state

    def step(self, fuzzer):
        statements, lasting = [], True
        for _ in range(self.random.choice((1, 1, 1, 3))):
            statements.append(fuzzer.statement())
            lasting = lasting and fuzzer.lasting
        role, connection = self.connection(fuzzer.callers)
        # A superuser may write into the ledger itself, which then is as it was left; so that is taken back.
        forged = role == "postgres" and not all(statement.startswith("SELECT") for statement in statements)
        if not lasting or forged or self.random.random() < 0.6:
            self.run(connection, "BEGIN")
            for statement in statements:
                self.calls += 1
                if self.run(connection, statement) != "00000":
                    break
            if not connection.broken:
                self.run(connection, "COMMIT" if lasting and not forged and self.random.random() < 0.3 else "ROLLBACK")
        else:
            for statement in statements:
                self.calls += 1
                self.run(connection, statement)
                if connection.broken:
                    break
        if connection.broken:
            del self.connections[role]


def fuzz(cluster, db, calls):
    """That many statements in several threads. Returns the sessions."""

    def work(session, fuzzer):
        looked = 0
        while len(session.wrong) < 20 and session.calls < calls // THREADS:
            if session.calls > looked + 5000:
                looked = session.calls
                fuzzer.look(db)
            session.step(fuzzer)
        for connection in session.connections.values():
            connection.close()

    seeds = [f"{SEED}/{number}" for number in range(THREADS)]
    sessions = [Session(cluster, seed) for seed in seeds]
    with ThreadPoolExecutor() as pool:
        list(pool.map(work, sessions, [Fuzzer(db, seed, ROLES) for seed in seeds]))
    return sessions


def check_all(cluster, db, states, directory):
    """Everything is readable, verified and exported, by a new session; the server's log reports no crash."""
    log = server_log(cluster.directory)
    assert re.findall(r"^.*(?:PANIC|TRAP:|terminated by signal|panicked at|stack overflow).*$", log, re.M) == []
    # A caller that decides ends the transactions that hold them up, and reports it.
    assert states["57P01"] <= log.count("terminated process")
    with cluster.connect(dbname="fuzz") as connection:
        assert connection.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall() == []
        assert connection.execute('SELECT "check", status FROM skill_system.health()').fetchall()
        for table, *_ in Fuzzer(db, 0).tables:
            connection.execute(f"SELECT to_jsonb(t)::text FROM {table} t")
        connection.execute("SELECT skill_system.compliance_report(), skill_system.oscal_assessment_results()")
        connection.execute(
            "SELECT skill_system.export_skill_files(namespace || '/' || skill_name) FROM skill_system.skills "
            "WHERE tenant_id = skill_system.current_tenant()"
        )
        connection.execute("SELECT * FROM skill_system.seal_audit()")
        lines = [row[0] for row in connection.execute("SELECT * FROM skill_system.audit_export()")]
        (directory / "export").write_text("\n".join(lines) + "\n")
        keys = connection.execute("SELECT verifier_key FROM skill_system.audit_public_key()").fetchall()
    given = [word for (key,) in keys for word in ("--key", key)]
    done = subprocess.run(
        [skill_verify_program(), "export", directory / "export", *given], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def limit_stack(cluster, size):
    """Of the server, and so of the sessions that begin from now on."""
    postmaster = as_server("head", "-n1", cluster.data / "postmaster.pid").strip()
    as_server("prlimit", f"--stack={size}:", "--pid", postmaster)


@pytest.mark.long
@pytest.mark.parametrize("stack", [None, 640], ids=["ordinary", "small stack"])
def test_hostile_values_everywhere(new_cluster, tmp_path, stack):
    # The server wants 512 kB to spare.
    depth = [f"max_stack_depth={stack - 512}kB"] if stack else []
    cluster = new_cluster(PRELOAD, "max_connections=60", "max_worker_processes=12", *depth)
    db = stage(cluster)
    if stack:
        limit_stack(cluster, stack * 1024)
    before = db.execute("SELECT pg_backend_pid(), pg_postmaster_start_time()").fetchone()
    sessions = fuzz(cluster, db, CALLS if not stack else CALLS // 3)
    wrong = [found for session in sessions for found in session.wrong]
    states = sum((session.states for session in sessions), Counter())
    report = "\n".join(str(found) for found in wrong)
    assert not wrong, f"FUZZ_SEED={SEED}, {sum(states.values())} statements, {dict(states.most_common())}\n{report}"
    assert db.execute("SELECT pg_backend_pid(), pg_postmaster_start_time()").fetchone() == before, SEED
    # Else hardly any gets behind the first check.
    assert states["00000"] > sum(states.values()) / 3 and states["42501"] < sum(states.values()) / 2, states
    check_all(cluster, db, states, tmp_path)
    print(f"FUZZ_SEED={SEED}", dict(states.most_common()))
