"""What a session reports of itself, in any way and before the library is loaded, changes no setting that an administrator set."""

import psycopg
import pytest
from psycopg import errors

from cluster import PRELOAD, governed

REFUSED = (errors.InsufficientPrivilege, errors.CantChangeRuntimeParam, errors.UndefinedObject)
WAYS = {"when_used": (), "shared_preload": (PRELOAD,), "session_preload": ("session_preload_libraries=skill_system",)}


class Server:
    """A server whose administrator bound the roles `bound` and `here`, and everybody to signed approvals."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.admin = governed(cluster)
        for statement in (
            "LOAD 'skill_system'",
            "CREATE ROLE bound LOGIN; GRANT skill_system_agent TO bound",
            "ALTER ROLE bound SET skill_system.tenant = 'acme'",
            "CREATE ROLE here LOGIN; GRANT skill_system_agent TO here",
            "ALTER ROLE here IN DATABASE governed SET skill_system.tenant = 'acme'",
            "ALTER DATABASE governed SET skill_system.signed_approvals = on",
            "ALTER DATABASE governed SET skill_system.run_retention = '90d'",
            "SELECT skill_system.log_run('s', 'op', 'ok', 1, goal => 'of the default tenant')",
            "CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC",
        ):
            self.admin.execute(statement)

    def session(self, role, options=""):
        environment = self.cluster.environment
        return psycopg.connect(
            host=environment["PGHOST"],
            port=environment["PGPORT"],
            user=role,
            dbname="governed",
            autocommit=True,
            options=options,
        )


def settings(connection):
    tenant = connection.execute("SELECT skill_system.current_tenant()").fetchone()[0]
    names = ("signed_approvals", "allow_unprotected", "run_retention")
    return tenant, *(connection.execute(f"SHOW skill_system.{name}").fetchone()[0] for name in names)


ADMINISTRATORS = ("acme", "on", "off", "90d")


def attempt(connection, statement):
    """Runs what may be refused."""
    try:
        connection.execute(statement)
    except REFUSED:
        pass


def connection_options_are_refused(server):
    options = [
        f"-c {name}={value}"
        for name, values in {
            "skill_system.tenant": ("", "default", "acme", "other", "\\x01"),
            "SKILL_System.Tenant": ("", "default"),
            "skill_system.signed_approvals": ("", "off", "default", "on", "nonsense"),
            "skill_system.allow_unprotected": ("", "on", "off"),
            "skill_system.run_retention": ("", "-1", "1min"),
            "skill_system.stuck_after": ("1",),
            "skill_system.keyring_file": ("", "/tmp/keyring.json"),
            "skill_system.keyring_command": ("", "true"),
            "skill_system.seal_interval": ("1h",),
        }.items()
        for value in values
    ]
    for role in ("bound", "here"):
        for option in (*options, "--skill_system.tenant=", "-c skill_system.tenant=acme -c skill_system.tenant="):
            with pytest.raises((*REFUSED, psycopg.OperationalError)) as refused:
                with server.session(role, option) as connection:
                    for statement in ("SELECT count(*) FROM skill_system.runs", "RESET ALL", "DISCARD ALL"):
                        attempt(connection, statement)
                    connection.execute("SELECT skill_system.current_tenant()")
            assert "skill_system." in str(refused.value).lower(), option
    # Neither does a superuser replace what only the server's configuration sets.
    with pytest.raises((*REFUSED, psycopg.OperationalError)):
        with server.session("postgres", "-c skill_system.keyring_file=other.json") as connection:
            connection.execute("SELECT skill_system.current_tenant()")


def connection_options_of_those_who_may(server):
    server.admin.execute("GRANT SET ON PARAMETER skill_system.tenant TO bound")
    for role, options, tenant in (
        ("bound", "-c skill_system.tenant=other", "other"),
        ("bound", "-c skill_system.tenant=", "default"),
        ("postgres", "-c skill_system.tenant=other", "other"),
        ("here", "-c skill_system.integrity_fail_loud=on", "acme"),
    ):
        with server.session(role, options) as connection:
            assert settings(connection)[0] == tenant, options
    server.admin.execute("REVOKE SET ON PARAMETER skill_system.tenant FROM bound")


BEFORE = [
    form
    for value in ("", "default", "other")
    for form in (
        f"SET skill_system.tenant = '{value}'",
        f"SET SESSION skill_system.tenant = '{value}'",
        f"SELECT set_config('skill_system.tenant', '{value}', false)",
        f"BEGIN; SET skill_system.tenant = '{value}'; COMMIT",
        f"BEGIN; SAVEPOINT s; SET LOCAL skill_system.tenant = '{value}'; ROLLBACK TO s; COMMIT",
        f"SET skill_system.tenant = '{value}'; RESET skill_system.tenant",
        f"SET skill_system.tenant = '{value}'; RESET ALL",
        f"SET skill_system.tenant = '{value}'; SET skill_system.tenant TO DEFAULT",
    )
] + [
    "SET skill_system.signed_approvals = off",
    "SET skill_system.signed_approvals = 'default'",
    "SET skill_system.allow_unprotected = on",
    "SET skill_system.run_retention = '1min'",
    "DISCARD ALL",
    "RESET ALL",
    "RESET SESSION AUTHORIZATION",
]


def statements_before_the_first_use(server):
    for role in ("bound", "here"):
        for statement in BEFORE:
            with server.session(role) as connection:
                attempt(connection, statement)
                attempt(connection, "ROLLBACK")
                assert settings(connection) == ADMINISTRATORS, statement
                attempt(connection, statement)
                attempt(connection, "ROLLBACK")
                for after in ("SELECT 1", "RESET ALL", "DISCARD ALL"):
                    connection.execute(after)
                    assert settings(connection) == ADMINISTRATORS, (statement, after)
    # Within the transaction that set it.
    for value in ("", "default", "other"):
        with server.session("bound") as connection:
            connection.execute("BEGIN")
            connection.execute("SAVEPOINT s")
            try:
                connection.execute(f"SET LOCAL skill_system.tenant = '{value}'")
            except REFUSED:
                connection.execute("ROLLBACK TO s")
            assert settings(connection) == ADMINISTRATORS
            connection.execute("ROLLBACK")
            assert settings(connection) == ADMINISTRATORS


def no_role_changes_its_own_binding(server):
    """Not as the owner of the database, either."""
    server.admin.execute("ALTER DATABASE governed OWNER TO bound")
    for load in (False, True):
        for statement in (
            "ALTER ROLE bound SET skill_system.tenant = ''",
            "ALTER ROLE bound SET skill_system.tenant = 'default'",
            "ALTER ROLE bound RESET skill_system.tenant",
            "ALTER ROLE bound RESET ALL",
            "ALTER ROLE bound IN DATABASE governed SET skill_system.tenant = 'default'",
            "ALTER ROLE CURRENT_USER SET skill_system.tenant FROM CURRENT",
            "ALTER DATABASE governed SET skill_system.tenant = 'default'",
            "ALTER DATABASE governed SET skill_system.signed_approvals = off",
            "ALTER DATABASE governed RESET skill_system.signed_approvals",
            "ALTER DATABASE governed RESET ALL",
        ):
            with server.session("bound") as connection:
                if load:
                    settings(connection)
                attempt(connection, statement)
            with server.session("bound") as connection:
                assert settings(connection) == ADMINISTRATORS, statement


def functions_with_settings(server):
    for load in (False, True):
        for rights in ("INVOKER", "DEFINER"):
            with server.session("bound") as connection:
                if load:
                    settings(connection)
                attempt(
                    connection,
                    f"CREATE OR REPLACE FUNCTION open.sly() RETURNS text SECURITY {rights} "
                    "SET skill_system.tenant = '' LANGUAGE sql AS 'SELECT skill_system.current_tenant()'",
                )
                assert connection.execute("SELECT to_regproc('open.sly')").fetchone()[0] is None
    # A superuser's function that the caller's rights do not suffice for.
    server.admin.execute(
        "CREATE FUNCTION open.invoked() RETURNS text LANGUAGE sql SET skill_system.tenant = 'other' "
        "AS 'SELECT skill_system.current_tenant()'"
    )
    with server.session("bound") as connection:
        try:
            assert connection.execute("SELECT open.invoked()").fetchone()[0] == "acme"
        except REFUSED:
            pass
        assert settings(connection) == ADMINISTRATORS


def parallel_workers(server):
    """A worker loads the library by itself, before it gets the leader's settings."""
    name = "force_parallel_mode" if server.admin.info.server_version < 160000 else "debug_parallel_query"
    query = "SELECT skill_system.current_tenant(), current_setting('skill_system.signed_approvals')"
    with server.session("bound") as connection:
        attempt(connection, "SET skill_system.tenant = ''")
        settings(connection)
        connection.execute(f"SET {name} = on")
        assert connection.execute(query).fetchone() == ("acme", "on")
        plan = connection.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {query}").fetchall()
        assert any("Workers Launched: 1" in line for (line,) in plan), plan
    # Who set a tenant and may not has none, in the leader and in a worker.
    server.admin.execute("CREATE ROLE unbound LOGIN; GRANT skill_system_agent TO unbound")
    with server.session("unbound") as connection:
        attempt(connection, "SET skill_system.tenant = 'acme'")
        connection.execute(f"SET {name} = on")
        try:
            assert connection.execute(query).fetchone()[0] == "default"
        except errors.InsufficientPrivilege:
            pass


@pytest.mark.parametrize("way", WAYS)
def test_settings_stay_as_the_administrator_set_them(way, new_cluster):
    server = Server(new_cluster(*WAYS[way]))
    with server.admin:
        connection_options_are_refused(server)
        connection_options_of_those_who_may(server)
        statements_before_the_first_use(server)
        no_role_changes_its_own_binding(server)
        functions_with_settings(server)
        parallel_workers(server)
