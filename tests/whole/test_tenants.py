"""Two tenants in one database: neither sees, names or touches what is the other's, by any table, view or function."""

import os

import psycopg
import pytest
from psycopg import errors, sql

import filings
import skills

WORDS = ("agent", "reviewer", "admin")


@pytest.fixture(scope="module")
def tenants(db):
    """Roles acme_agent, globex_agent, ... bound to their tenant; each tenant with rows in every module."""
    names = []
    for tenant in ("acme", "globex"):
        for word in WORDS:
            name = f"{tenant}_{word}"
            names.append(name)
            db.execute(
                f"CREATE ROLE {name} LOGIN; GRANT skill_system_{word} TO {name}; LOAD 'skill_system'; "
                f"ALTER ROLE {name} SET skill_system.tenant = '{tenant}'"
            )
    for tenant in ("acme", "globex"):
        with session(db, f"{tenant}_admin") as admin:
            admin.execute("SELECT * FROM skill_system.install_starter_policies()")
            admin.execute("SELECT skill_system.create_policy(%s, allow => '{db.read}')", [f"only {tenant}"])
            admin.execute("SELECT skill_system.create_policy('shared name', allow => %s)", [[f"secret.{tenant}"]])
            admin.execute(
                "UPDATE skill_system.policy_profiles SET metadata = %s WHERE name = 'dev'",
                [psycopg.types.json.Jsonb({"of": f"secret {tenant}"})],
            )
        with session(db, f"{tenant}_agent") as agent:
            agent.execute(
                "SELECT skill_system.log_run('skill', 'op', 'ok', 5, goal => %s, "
                "policy_name => 'shared name', idempotency_key => 'same key', payload => %s)",
                [f"secret {tenant}", psycopg.types.json.Jsonb({"of": f"secret {tenant}"})],
            )
            agent.execute("SELECT skill_system.start_run(%s)", [f"secret {tenant} two"])
            agent.execute(
                "SELECT skill_system.append_audit('event', %s)", [psycopg.types.json.Jsonb({"of": f"secret {tenant}"})]
            )
        with session(db, f"{tenant}_admin") as admin, session(db, f"{tenant}_agent") as agent:
            filings.fill_tables(admin, agent, f"secret {tenant}")
        with session(db, f"{tenant}_admin") as admin:
            skills.fill_tables(admin, f"secret {tenant}")
        with session(db, f"{tenant}_agent") as agent:
            agent.execute("SELECT skill_system.log_run('a', 'op', 'ok')")
    yield names
    for name in names:
        db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def session(db, role, **more):
    return psycopg.connect(
        host=os.environ["PGHOST"], port=os.environ["PGPORT"], user=role, dbname=db.info.dbname, autocommit=True, **more
    )


def other_of(role):
    return "globex" if role.startswith("acme") else "acme"


def readable(connection):
    return [
        row[0]
        for row in connection.execute(
            "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'skill_system'::regnamespace "
            "AND relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege(oid, 'SELECT') ORDER BY 1"
        )
    ]


@pytest.mark.parametrize("role", [f"{t}_{w}" for t in ("acme", "globex") for w in WORDS])
def test_no_table_or_view_shows_the_other_tenant(db, tenants, role):
    with session(db, role) as connection:
        mine = role.split("_")[0]
        names = readable(connection)
        assert {
            "policy_profiles",
            "policy_versions",
            "runs",
            "run_events",
            "run_stats",
            "runs_in_progress",
            "stuck_runs",
        } <= set(names)
        for name in names:
            rows = connection.execute(f"SELECT to_jsonb(t)::text FROM skill_system.{name} t").fetchall()
            # The log's records about itself belong to the default tenant.
            if name not in ("stuck_runs", "audit_kept", "audit_retirements", "audit_legal_holds"):
                assert rows, f"{name} is empty, so nothing is shown"
            assert [row for (row,) in rows if other_of(role) in row] == [], name
            # Calls, no rows of anybody.
            if name != "help":
                assert [row for (row,) in rows if f'"tenant_id": "{mine}"' not in row] == [], name


CALLS = [
    "SELECT skill_system.check_policy('only OTHER', '{db.read}'::text[])",
    "SELECT skill_system.check_policy('shared name', '{secret.OTHER}'::text[])",
    "SELECT skill_system.enforce_policy('only OTHER', '{db.read}'::text[])",
    "SELECT skill_system.check_exec('only OTHER', '{git}')",
    "SELECT skill_system.check_write('only OTHER', '/x')",
    "SELECT * FROM skill_system.explain_policy('only OTHER', '{db.read}')",
    "SELECT * FROM skill_system.effective_policy('only OTHER')",
    "SELECT * FROM skill_system.effective_policy('shared name')",
    "SELECT * FROM skill_system.lint_policy('only OTHER')",
    "SELECT skill_system.assert_allows('only OTHER', 'db.read')",
    "SELECT skill_system.assert_denies('only OTHER', 'db.read')",
    "SELECT skill_system.create_policy('child', inherits => '{only OTHER}')",
    "SELECT skill_system.log_run('s', 'o', 'ok', policy_name => 'only OTHER')",
    "SELECT skill_system.start_run('g', policy_name => 'only OTHER')",
    "SELECT skill_system.log_event(RUN, 'x')",
    "SELECT skill_system.log_step(RUN, 's', 'o')",
    'SELECT skill_system.log_events(RUN, \'[{"event_type": "x"}]\')',
    "SELECT skill_system.finish_run(RUN, 'failed')",
    "SELECT skill_system.run_otlp(RUN)",
    "SELECT skill_system.run_page(RUN)",
    "UPDATE skill_system.runs SET goal = 'x' WHERE id = RUN RETURNING id",
    "INSERT INTO skill_system.run_events (run_id, event_type) VALUES (RUN, 'x')",
    "INSERT INTO skill_system.runs (goal, policy_profile_id) VALUES ('x', POLICY)",
    "UPDATE skill_system.policy_profiles SET denied_effects = '{**}' WHERE name = 'only OTHER' RETURNING name",
    "DELETE FROM skill_system.policy_profiles WHERE name = 'only OTHER' RETURNING name",
    "INSERT INTO skill_system.runs (goal, tenant_id) VALUES ('x', 'OTHER')",
    "INSERT INTO skill_system.audit_logs (event_type, event_data, tenant_id) VALUES ('x', '{}', 'OTHER')",
    "SELECT * FROM skill_system.verify_audit()",
    "SELECT * FROM skill_system.audit_status()",
    "SELECT * FROM skill_system.health()",
]


def test_no_function_or_statement_reaches_the_other_tenant(db, tenants):
    shown = (
        "SELECT (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM skill_system.policy_profiles t "
        "WHERE tenant_id = %(t)s), (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM skill_system.runs t "
        "WHERE tenant_id = %(t)s), "
        "(SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM skill_system.run_events t WHERE tenant_id = %(t)s), "
        "(SELECT count(*) FROM skill_system.audit_logs WHERE tenant_id = %(t)s)"
    )
    for role in tenants:
        other = other_of(role)
        before = db.execute(shown, {"t": other}).fetchone()
        run = db.execute(
            "SELECT max(id) FROM skill_system.runs WHERE tenant_id = %s AND status = 'running'", [other]
        ).fetchone()[0]
        policy = db.execute(
            "SELECT id FROM skill_system.policy_profiles WHERE tenant_id = %s AND name = 'shared name'", [other]
        ).fetchone()[0]
        with session(db, role) as connection:
            for statement in CALLS:
                statement = statement.replace("OTHER", other).replace("RUN", str(run)).replace("POLICY", str(policy))
                with connection.transaction(force_rollback=True):
                    try:
                        cursor = connection.execute("SAVEPOINT s") and connection.execute(statement)
                        answer = str(cursor.fetchall()) if cursor.description else str(cursor.rowcount)
                    except psycopg.Error as error:
                        answer = f"{error} {error.diag.message_detail} {error.diag.message_hint}"
                        refused = True
                        connection.execute("ROLLBACK TO s")
                    else:
                        refused = False
                if not refused:
                    # What is answered is an empty set, a refusal by policy, or about the own tenant.
                    assert (
                        answer == "[]"
                        or "does not exist" in answer
                        or "no rule" in answer
                        or (f"secret {other}" not in answer and f"secret.{other}" not in answer)
                    ), (role, statement, answer)
                    assert "log_" not in statement and "finish_run" not in statement and "INSERT" not in statement, (
                        role,
                        statement,
                        "was accepted",
                    )
                else:
                    assert f"secret {other}" not in answer, (role, statement, answer)
        assert db.execute(shown, {"t": other}).fetchone() == before, role


def test_the_same_names_and_keys_are_free_in_each_tenant(db, tenants):
    found = db.execute(
        "SELECT tenant_id, count(*) FROM skill_system.runs WHERE idempotency_key = 'same key' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert found == [("acme", 1), ("globex", 1)]
    for tenant in ("acme", "globex"):
        with session(db, f"{tenant}_agent") as agent:
            assert (
                agent.execute(
                    "SELECT allowed FROM skill_system.check_policy('shared name', %s)", [[f"secret.{tenant}"]]
                ).fetchone()[0]
                is True
            )
            assert (
                agent.execute(
                    "SELECT allowed FROM skill_system.check_policy('shared name', %s)", [[f"secret.{other_of(tenant)}"]]
                ).fetchone()[0]
                is False
            )
    assert db.execute(
        "SELECT DISTINCT tenant_id FROM skill_system.audit_logs WHERE session_user_name LIKE 'acme\\_%'"
    ).fetchall() == [("acme",)]
    assert db.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


def test_the_auditor_sees_all_tenants(db, tenants, roles):
    with session(db, "test_auditor") as auditor:
        for table in ("audit_logs", "runs", "run_events", "policy_profiles", "policy_versions"):
            assert {"acme", "globex"} <= {
                row[0] for row in auditor.execute(f"SELECT DISTINCT tenant_id FROM skill_system.{table}")
            }, table


# ---- nobody chooses a tenant


def test_connection_options_do_not_set_the_tenant(db, tenants):
    for options in (
        "-c skill_system.tenant=globex",
        "-c session_preload_libraries=skill_system -c skill_system.tenant=globex",
        "-c skill_system.tenant=globex -c local_preload_libraries=skill_system",
    ):
        try:
            connection = session(db, "acme_agent", options=options)
        except psycopg.OperationalError as error:
            # A role cannot preload what its administrator has not put among the plugins, either.
            assert "permission denied" in str(error) or "could not access file" in str(error), error
            continue
        with connection:
            # Neither the tenant of its choice nor the default one: its own, or an error.
            try:
                found = connection.execute("SELECT skill_system.current_tenant()").fetchone()[0]
            except errors.InsufficientPrivilege:
                continue
            assert found == "acme", options
            assert (
                connection.execute("SELECT count(*) FROM skill_system.runs WHERE tenant_id <> 'acme'").fetchone()[0]
                == 0
            )


def test_a_name_set_before_the_library_is_loaded_does_not_count(db, tenants):
    for statement in (
        "SET skill_system.tenant = 'globex'",
        "SELECT set_config('skill_system.tenant', 'globex', false)",
        "SET SESSION skill_system.tenant TO globex",
    ):
        with session(db, "acme_agent") as connection:
            try:
                connection.execute(statement)
            except errors.InsufficientPrivilege:
                pass
            assert connection.execute("SELECT skill_system.current_tenant()").fetchone()[0] != "globex", statement
            assert (
                connection.execute("SELECT count(*) FROM skill_system.runs WHERE tenant_id = 'globex'").fetchone()[0]
                == 0
            )
    with session(db, "acme_agent") as connection, connection.transaction():
        connection.execute("SAVEPOINT s")
        try:
            connection.execute("SET LOCAL skill_system.tenant = 'globex'")
        except errors.InsufficientPrivilege:
            connection.execute("ROLLBACK TO s")
        assert connection.execute("SELECT skill_system.current_tenant()").fetchone()[0] != "globex"


def test_loading_gives_back_the_tenant_of_the_role(db, tenants):
    """What a session sets before loading must not even push it into the default tenant."""
    with session(db, "acme_agent") as connection:
        try:
            connection.execute("SET skill_system.tenant = 'globex'")
        except errors.InsufficientPrivilege:
            pass
        assert connection.execute("SELECT skill_system.current_tenant()").fetchone()[0] == "acme"


def test_reset_keeps_the_tenant_of_the_role(db, tenants):
    with session(db, "acme_agent") as connection:
        for statement in (
            "RESET skill_system.tenant",
            "RESET ALL",
            "DISCARD ALL",
            "SET ROLE skill_system_agent",
            "RESET ROLE",
        ):
            try:
                connection.execute(statement)
            except errors.InsufficientPrivilege:
                pass
            assert connection.execute("SELECT skill_system.current_tenant()").fetchone()[0] == "acme", statement


def test_functions_with_a_setting_of_their_own_do_not_help(db, tenants):
    db.execute("GRANT CREATE ON SCHEMA public TO acme_agent")
    with session(db, "acme_agent") as connection:
        for load in (False, True):
            if load:
                connection.execute("SELECT skill_system.current_tenant()")
            try:
                connection.execute(
                    "CREATE OR REPLACE FUNCTION public.sly() RETURNS text "
                    "LANGUAGE sql SET skill_system.tenant = 'globex' "
                    "AS 'SELECT skill_system.current_tenant()'"
                )
                assert connection.execute("SELECT public.sly()").fetchone()[0] != "globex"
            except errors.InsufficientPrivilege:
                pass


def test_a_pooler_may_be_trusted_with_the_setting(db, tenants):
    db.execute(
        "CREATE ROLE pooler LOGIN; GRANT skill_system_agent TO pooler; "
        "GRANT SET ON PARAMETER skill_system.tenant TO pooler"
    )
    try:
        with session(db, "pooler") as pooler:
            for tenant in ("acme", "globex", "acme"):
                pooler.execute(sql.SQL("SET skill_system.tenant = {}").format(sql.Literal(tenant)))
                assert pooler.execute("SELECT skill_system.current_tenant()").fetchone()[0] == tenant
                assert pooler.execute("SELECT DISTINCT tenant_id FROM skill_system.runs").fetchall() == [(tenant,)]
                # Compiled policies are those of the tenant, too.
                assert (
                    pooler.execute(
                        "SELECT allowed FROM skill_system.check_policy('shared name', %s)", [[f"secret.{tenant}"]]
                    ).fetchone()[0]
                    is True
                )
                assert (
                    pooler.execute(
                        "SELECT allowed FROM skill_system.check_policy('shared name', %s)",
                        [[f"secret.{other_of(tenant)}"]],
                    ).fetchone()[0]
                    is False
                )
            with pooler.transaction():
                pooler.execute("SET LOCAL skill_system.tenant = 'globex'")
                pooler.execute(
                    "PREPARE p AS SELECT skill_system.current_tenant(), (SELECT count(*) "
                    "FROM skill_system.runs WHERE tenant_id <> 'globex')"
                )
                assert pooler.execute("EXECUTE p").fetchone() == ("globex", 0)
            assert pooler.execute("EXECUTE p").fetchone()[0] == "acme"
    finally:
        db.execute("REVOKE SET ON PARAMETER skill_system.tenant FROM pooler; DROP OWNED BY pooler; DROP ROLE pooler")


def test_strange_names_of_tenants_stay_names(db, tenants):
    for tenant in ("a'; DROP TABLE x; --", 'quote " and \\', "😀", "x" * 5000, " default", "DEFAULT"):
        with session(db, db.info.user) as connection:
            connection.execute("SELECT skill_system.current_tenant()")
            connection.execute("SELECT set_config('skill_system.tenant', %s, false)", [tenant])
            assert connection.execute("SELECT skill_system.current_tenant()").fetchone()[0] == tenant
            connection.execute("SELECT skill_system.append_audit('x', '{}')")
            assert (
                connection.execute(
                    "SELECT count(*) FROM skill_system.audit_logs WHERE tenant_id = %s", [tenant]
                ).fetchone()[0]
                == 1
            )
    assert db.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
