"""Fixtures of the system tests.

PGHOST, PGPORT and PGUSER (a superuser) name a running cluster; authentication is trust, so a test may log in as any role.
Each worker of pytest-xdist has a separate cluster in a directory below that one's, since roles belong to the cluster.

connect(role=None, dbname=None)  a new autocommit connection, closed at the end of the test; default: the superuser, in
                                 the module's database
db                               the superuser's connection to a fresh database of this module with the extension in it
database                         the name of that database
fresh_database(extension=True)   the name of a new database, dropped at the end of the module
roles                            makes the login roles test_agent, test_reviewer, test_auditor and test_admin, each a
                                 member of skill_system_<the same word> and of nothing else; connect("test_agent") logs in
new_cluster(*settings)           another cluster with a separate data directory: .directory, .environment, .connect(role,
                                 dbname), .start(), .stop(), .destroy(); for crash, restore and standby tests.
                                 copied=False: with another system identifier than any other one
"""

import os
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from fixtures import browser, copies, orphans, pair  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "cluster"
WORDS = ("agent", "reviewer", "auditor", "admin")


def open_connection(role=None, dbname=None, environment=os.environ):
    return psycopg.connect(
        host=environment["PGHOST"],
        port=environment["PGPORT"],
        user=role or environment["PGUSER"],
        dbname=dbname or "postgres",
        autocommit=True,
        connect_timeout=20,
    )


@pytest.fixture(scope="session")
def extension_template():
    """A database with the extension, of which others are copies."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    with open_connection() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        with open_connection(dbname=name) as connection:
            connection.execute("CREATE EXTENSION skill_system")
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def fresh_database(request):
    made = []

    def make(extension=True):
        name = f"test_{uuid.uuid4().hex[:12]}"
        template = request.getfixturevalue("extension_template") if extension else "template0"
        with open_connection() as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
            )
        made.append(name)
        return name

    yield make
    with open_connection() as admin:
        for name in made:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def database(fresh_database):
    return fresh_database()


@pytest.fixture(scope="module")
def db(database):
    with open_connection(dbname=database) as connection:
        yield connection


@pytest.fixture
def connect(request):
    opened = []

    def open_one(role=None, dbname=None):
        connection = open_connection(role, dbname or request.getfixturevalue("database"))
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


def make_roles(connection):
    for word in WORDS:
        name = sql.Identifier(f"test_{word}")
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [f"test_{word}"]).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(f"skill_system_{word}"), name))


@pytest.fixture(scope="module")
def roles(db):
    make_roles(db)
    return [f"test_{word}" for word in WORDS]


class Cluster:
    """A cluster in a directory with its Unix socket. A killed process is not a power failure, so fsync is off."""

    def __init__(self, directory, settings, copied=True):
        self.directory = directory
        self.data = directory / "data"
        self.settings = ("fsync=off", *settings)
        self.environment = {}
        self.copied = copied
        # Bytes of address space that each process of the server may have; none: as many as it gets.
        self.address_space = None

    def _tool(self, action, *arguments):
        limited = []
        if self.address_space:
            limited = ["bash", "-c", 'ulimit -S -v "$0"; exec "$@"', str(self.address_space // 1024)]
        done = subprocess.run(
            [*limited, TOOL, action, self.directory, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ if self.copied else os.environ | {"CLUSTER_TEMPLATE": ""},
        )
        assert done.returncode == 0, f"tools/cluster {action} failed:\n{done.stderr}"
        return done.stdout

    def start(self):
        exports = self._tool("start", *self.settings)
        shell = subprocess.run(["bash", "-c", exports + "\nenv -0"], capture_output=True, text=True, check=True)
        self.environment = dict(entry.split("=", 1) for entry in shell.stdout.split("\0") if "=" in entry)
        return self

    def stop(self):
        self._tool("stop")

    def destroy(self):
        self._tool("destroy")

    def connect(self, role=None, dbname=None):
        return open_connection(role, dbname, self.environment)


@pytest.fixture
def new_cluster():
    made = []

    def make(*settings, copied=True):
        cluster = Cluster(Path(os.environ["PGHOST"]) / uuid.uuid4().hex[:6], settings, copied)
        made.append(cluster)
        return cluster.start()

    yield make
    for cluster in made:
        cluster.destroy()


def pytest_configure(config):
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        config.worker_cluster = Cluster(Path(os.environ["PGHOST"]) / worker, ["max_connections=100"]).start()
        os.environ["PGHOST"] = config.worker_cluster.environment["PGHOST"]


def pytest_unconfigure(config):
    if hasattr(config, "worker_cluster"):
        config.worker_cluster.destroy()


# The files that take longest, for pytest-xdist to begin with; the order of the others does not matter.
LONGEST = (
    "test_memory.py",
    "test_fuzz.py",
    "test_attacks.py",
    "test_seal_crash.py",
    "test_crash.py",
    "test_worker.py",
    "test_adoption.py",
    "test_key_rotation.py",
    "test_standby.py",
    "test_dump_restore.py",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
