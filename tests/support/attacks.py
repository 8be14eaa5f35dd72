"""The stage of the attack corpus: servers with and without the guard, logs to attack, and the book of what came of
it."""

import base64
import os
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from conftest import Cluster, make_roles
from psycopg import sql

import skr1
from cluster import skill_verify_program
from ledger import problems

ROOT = Path(__file__).parents[2]
GUARD = "is protected: the statement is refused"
APPEND_ONLY = "is append-only"
DENIED = "permission denied"
OPEN = "SET LOCAL skill_system.allow_unprotected = on"
CONFIGURATIONS = ("preloaded", "not preloaded")
# From the best to the worst; an attack is what the worst of its ways is.
VERDICTS = ("prevented", "detected", "out of scope")
INSISTING = "prevented unless a superuser insists, then detected"
SUMMARY = ("prevented", INSISTING, "detected", "out of scope")
RECORD = [*skr1.COLUMNS, "signature"]


class Book:
    """What came of each attack in each configuration: {number: {configuration: Trial}}."""

    def __init__(self):
        self.trials = {}

    def trial(self, number, title, configuration):
        trial = Trial(configuration == "preloaded")
        self.trials.setdefault(number, (title, {}))[1][configuration] = trial
        return trial


class Trial:
    """One attack in one configuration. Every line is an assertion that held; `verdict` is the worst of them."""

    def __init__(self, preloaded):
        self.preloaded = preloaded
        self.lines = []
        self.finished = False
        self._insisting = False

    def note(self, verdict, by):
        line = (verdict, by, self._insisting)
        if line not in self.lines:
            self.lines.append(line)

    @contextmanager
    def insisting(self):
        """A superuser said SET skill_system.allow_unprotected: what happens then is told, but is not the verdict where
        the guard refused."""
        self._insisting = True
        try:
            yield
        finally:
            self._insisting = False

    @property
    def verdict(self):
        plain = max((line[0] for line in self.lines if not line[2]), key=VERDICTS.index)
        insisted = max((line[0] for line in self.lines if line[2]), key=VERDICTS.index, default="prevented")
        assert insisted != "out of scope"
        return INSISTING if (plain, insisted) == ("prevented", "detected") else plain

    def refused(self, connection, statement, state, text, parameters=None):
        """The statement raises this SQLSTATE with this text."""
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(statement, parameters)
        assert (caught.value.sqlstate, text in str(caught.value)) == (state, True), (
            f"{caught.value.sqlstate} {caught.value}"
        )
        self.note("prevented", f"{state} “{text}”")

    def guarded(self, connection, statement):
        """Refused where the library is preloaded. Says whether the attacker may go on."""
        if self.preloaded:
            self.refused(connection, statement, "42501", GUARD)

    def found(self, connection, *problems):
        """verify_audit() has each of these problems."""
        seen = findings(connection)
        for problem in problems:
            assert any(problem in one for one in seen), (problem, seen)
            self.note("detected", f"`verify_audit()`: {problem}")

    def unseen(self, connection):
        """verify_audit() has nothing to say: the limit of what the server itself can find."""
        assert findings(connection) == []

    def said(self, verdict, by):
        self.note(verdict, by)

    def verifier(self, code, status, *arguments, keep="", **files):
        """skill-verify with these arguments ends with `status` and reports `code`. `files` are written for it."""
        got, output, error = skill_verify(*arguments, **files)
        assert (got, code in output + error) == (status, True), (got, output[-2000:], error[-500:])
        if status:
            self.note("detected", f"`skill-verify {arguments[0]}`{keep}" + (f": {code}" if code else ""))


def findings(connection):
    """problem and detail of each row of verify_audit()."""
    return [": ".join(row) for row in problems(connection, "problem", "detail")]


def skill_verify(*arguments, limit=None, **files):
    """Status, output and errors. An argument that is the name of one of `files` becomes the path of a file with that
    text."""
    home = Path(os.environ["PGHOST"]) / f"v{uuid.uuid4().hex[:8]}"
    home.mkdir()
    try:
        for name, text in files.items():
            (home / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        command = [skill_verify_program(), *(home / word if word in files else word for word in arguments), "--json"]
        done = subprocess.run(command, capture_output=True, preexec_fn=limit, timeout=60)
        return done.returncode, done.stdout.decode(), done.stderr.decode()
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


class Server:
    """A cluster in one of the two configurations, with a database `shared` for what is rolled back afterwards."""

    def __init__(self, preloaded):
        self.preloaded = preloaded
        # Sealing is called for where a test wants it; the worker would do it in between.
        guard = ("shared_preload_libraries=skill_system", "skill_system.seal_interval=1h") if preloaded else ()
        self.cluster = Cluster(
            Path(os.environ["PGHOST"]) / uuid.uuid4().hex[:6],
            (
                *guard,
                "autovacuum=off",
                "wal_level=logical",
                "fsync=off",
                "max_connections=50",
                "max_worker_processes=64",
            ),
        )

    def start(self):
        self.cluster.start()
        with self.connect("postgres") as admin:
            admin.execute("CREATE ROLE chief SUPERUSER LOGIN")
        self.shared = Log(self, "shared", owner="chief")
        with self.shared.connect() as admin:
            make_roles(admin)
            admin.execute(
                "GRANT skill_system_auditor TO chief; ALTER ROLE chief NOSUPERUSER; "
                "GRANT CREATE ON SCHEMA public TO chief"
            )

    def connect(self, dbname, role=None):
        return self.cluster.connect(role, dbname)

    def restart(self, between=lambda: None, *, preload=None):
        """`between` does its work while the server is down."""
        self.cluster.stop()
        between()
        settings = self.cluster.settings
        if preload is False:
            self.cluster.settings = tuple(
                setting for setting in settings if not setting.startswith(("shared_preload", "skill_system."))
            )
        self.cluster.start()
        self.cluster.settings = settings

    def destroy(self):
        self.cluster.destroy()


class Log:
    """A database with a sealed log of some 300 records, of which somebody outside holds the key and a checkpoint."""

    RECORDS = 300

    def __init__(self, server, name, owner=None):
        self.server = server
        self.name = name
        with server.connect("postgres") as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
            if owner:
                admin.execute(
                    sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(sql.Identifier(name), sql.Identifier(owner))
                )
        with self.connect(owner) as connection:
            connection.execute("CREATE EXTENSION skill_system")
            connection.execute("SELECT skill_system.create_audit_partition('2041-01-01')")
            connection.execute(
                "SELECT count(skill_system.append_audit('filed', "
                "jsonb_build_object('n', g, 'text', 'permit ' || g), 'agent ' || g %% 7)) "
                "FROM generate_series(1, %s) g",
                [self.RECORDS],
            )
            connection.execute(
                "INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) "
                "SELECT 'later', '{}', '2041-01-05' FROM generate_series(1, 5)"
            )
        self.settle()
        with self.connect() as connection:
            connection.execute(
                "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
            )
            connection.execute(
                "CREATE FUNCTION public.meddle() RETURNS trigger "
                "LANGUAGE plpgsql AS $$BEGIN NEW.event_data := '{\"n\": 0}'; RETURN NEW; END$$"
            )
            seal(connection)
            assert findings(connection) == []
            self.checkpoint = connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]
            self.key = connection.execute(
                "SELECT verifier_key FROM skill_system.audit_public_key() WHERE active"
            ).fetchone()[0]
            self.log_id = str(connection.execute("SELECT log_id FROM skill_system.audit_state").fetchone()[0])
            self.size = connection.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0]

    def settle(self):
        """The sealer's first step comes some time after the first record or a start of the server; after that it sleeps
        for an hour."""
        if not self.server.preloaded:
            return
        deadline = time.monotonic() + 30
        with self.server.connect("postgres") as admin:
            while not admin.execute(
                "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'skill_system sealer' AND datname = %s "
                "AND state = 'idle' AND query_start IS NOT NULL",
                [self.name],
            ).fetchone():
                assert time.monotonic() < deadline, "no sealer"
                time.sleep(0.02)

    def connect(self, role=None):
        return self.server.connect(self.name, role)

    @contextmanager
    def rolled_back(self, role=None, insist=True):
        """A transaction that is taken back; with the guard opened where it exists and the role may."""
        with self.connect(role) as connection:
            connection.execute("BEGIN")
            if insist and self.server.preloaded:
                connection.execute(OPEN)
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def path(self, connection, relation):
        """The file of a relation."""
        return (
            self.server.cluster.data / connection.execute("SELECT pg_relation_filepath(%s)", [relation]).fetchone()[0]
        )

    def export(self, connection):
        return [row[0] for row in connection.execute("SELECT * FROM skill_system.audit_export()").fetchall()]


def seal(connection):
    """Until nothing is left, the records that sealing itself writes included."""
    while connection.execute("SELECT sealed, unsealed, blocked_by FROM skill_system.seal_audit()").fetchone() != (
        0,
        0,
        None,
    ):
        pass


def victim(connection, n=17):
    """The id of one of the sealed records."""
    return connection.execute(
        "SELECT id FROM skill_system.audit_logs WHERE event_type = 'filed' AND event_data ->> 'n' = %s", [str(n)]
    ).fetchone()[0]


def values(connection, id):
    """The values of a record as the server prints them, in the order of RECORD."""
    connection.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'")
    columns = ", ".join(f"{name}::text" for name in RECORD)
    return list(connection.execute(f"SELECT {columns} FROM skill_system.audit_logs WHERE id = %s", [id]).fetchone())


def resign(record, log_id, keyring):
    """The record with the signature that a thief of the keyring makes."""
    return record[:-1] + [skr1.signature(record[:-1], log_id, skr1.keys(keyring))]


def put(connection, record):
    """A record as its owner restores it: with its signature."""
    connection.execute(
        f"INSERT INTO skill_system.audit_logs ({', '.join(RECORD)}) VALUES ({', '.join(['%s'] * len(RECORD))})", record
    )


def keyring(connection):
    """What a superuser reads at any time."""
    return connection.execute("SELECT pg_read_file('skill_system_keyring.json')").fetchone()[0]


def triggers(connection, how, table="skill_system.audit_logs"):
    connection.execute(
        f"ALTER TABLE {table} {how} TRIGGER ALL"
        if how == "DISABLE"
        else (
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_logs_sign, "
            "ENABLE ALWAYS TRIGGER audit_logs_no_change, ENABLE ALWAYS TRIGGER audit_logs_no_truncate"
        )
    )


def edit(path, old, new):
    """Changes bytes of a file in place, as a hex editor does, wherever they stand."""
    assert len(old) == len(new)
    with open(path, "r+b") as file:
        data = file.read()
        assert old in data
        file.seek(0)
        file.write(data.replace(old, new))


def overwrite(path, data):
    """The same file with other content, so that owner and mode stay."""
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate()


def b64(data):
    return base64.b64encode(data).decode()


# The document.

HEAD = """# The attack corpus

Fifty attacks on the audit trail, each run by `tests/audit/test_attacks.py` on a server with
`shared_preload_libraries = 'skill_system'` and on one without. This file is written from such a run
(`UPDATE_GOLDEN=1`), and every run compares it.

- **prevented**: the attack raises an error, named with its SQLSTATE, and changes nothing.
- **detected**: it succeeds, and `verify_audit()`, `health()`, or `skill-verify` with a key and a checkpoint held
  outside of the server names what was done.
- **out of scope**: nothing here finds it; the reason is given, and what can be run to show the limit is run.

Attackers are an agent's role, the owner of the extension, a superuser, and any account that can write the server's
files. An attack is worth what the worst of its ways is worth. Where the guard refuses a statement, a superuser can
insist with `SET skill_system.allow_unprotected = on`; what finds the attack then stands behind *insisting*.

"""


def listed(told):
    """One after the other, those of one tool together."""
    tools = {}
    for by in told:
        tool, colon, what = by.partition("`: ")
        tools.setdefault(tool + colon, []).append(what)
    return "; ".join(tool + ", ".join(whats) for tool, whats in tools.items())


def cell(trial):
    told = listed(by for _, by, insisting in trial.lines if not insisting)
    after = listed(by for _, by, insisting in trial.lines if insisting)
    return f"**{'prevented' if trial.verdict == INSISTING else trial.verdict}** {told}" + (
        f"<br>*insisting:* **detected** {after}" if after else ""
    )


def summary(trials):
    lines = ["| | " + " | ".join(SUMMARY) + " |", "|---|---|---|---|---|"]
    for configuration in CONFIGURATIONS:
        verdicts = [each[configuration].verdict for _, each in trials.values()]
        lines.append(f"| {configuration} | " + " | ".join(str(verdicts.count(verdict)) for verdict in SUMMARY) + " |")
    return "\n".join(lines)


def row(number, title, each):
    return (
        f"| {number} | {title} | "
        + " | ".join(cell(each[configuration]).replace("|", "\\|") for configuration in CONFIGURATIONS)
        + " |"
    )
