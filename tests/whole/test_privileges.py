"""Who may do what: every object against every role, as a golden file, and each role tried at what it must not do.

UPDATE_GOLDEN=1 writes the golden file again; read the difference before you commit it.
"""

import os
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

GOLDEN = Path(__file__).with_name("privileges.golden")
ROLES = ["PUBLIC", "agent", "reviewer", "auditor", "admin", "monitor"]

MATRIX = """
WITH role(label, name) AS (VALUES ('PUBLIC', 'test_nobody'), ('agent', 'skill_system_agent'),
    ('reviewer', 'skill_system_reviewer'), ('auditor', 'skill_system_auditor'), ('admin', 'skill_system_admin'), ('monitor', 'pg_monitor')),
object AS (
    SELECT CASE relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE 'table' END AS kind, relname::text AS name,
        oid, relkind::text FROM pg_class
    WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND relname !~ '^audit_logs_[0-9]' -- The months, which are tried below.
), held AS (
    SELECT o.kind, o.name, r.label, p.n, p.privilege FROM object o, role r,
        (VALUES (1, 'SELECT'), (2, 'INSERT'), (3, 'UPDATE'), (4, 'DELETE'), (5, 'TRUNCATE'), (6, 'REFERENCES'),
            (7, 'TRIGGER')) AS p(n, privilege)
    WHERE o.relkind <> 'S' AND has_table_privilege(r.name, o.oid, p.privilege)
    UNION ALL
    SELECT o.kind, o.name, r.label, p.n, p.privilege || ' (' || string_agg(a.attname, ', ' ORDER BY a.attnum) || ')'
    FROM object o, role r, (VALUES (1, 'SELECT'), (2, 'INSERT'), (3, 'UPDATE'), (6, 'REFERENCES')) AS p(n, privilege),
        pg_attribute a
    WHERE o.relkind <> 'S' AND NOT has_table_privilege(r.name, o.oid, p.privilege) AND a.attrelid = o.oid
        AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(r.name, o.oid, a.attnum, p.privilege)
    GROUP BY 1, 2, 3, 4, p.privilege
    UNION ALL
    SELECT o.kind, o.name, r.label, p.n, p.privilege
        FROM object o, role r, (VALUES (1, 'USAGE'), (2, 'SELECT'), (3, 'UPDATE')) AS p(n, privilege)
    WHERE o.relkind = 'S' AND has_sequence_privilege(r.name, o.oid, p.privilege)
    UNION ALL
    SELECT 'function', f.oid::regprocedure::text, r.label, 1, 'EXECUTE' FROM pg_proc f, role r
        WHERE f.pronamespace = 'skill_system'::regnamespace AND has_function_privilege(r.name, f.oid, 'EXECUTE')
    UNION ALL
    SELECT 'type', t.oid::regtype::text, r.label, 1, 'USAGE' FROM pg_type t LEFT
        JOIN pg_class c ON c.oid = t.typrelid, role r
    WHERE t.typnamespace = 'skill_system'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
        AND has_type_privilege(r.name, t.oid, 'USAGE')
    UNION ALL
    SELECT 'schema', 'skill_system', r.label, 1, p FROM role r, unnest(ARRAY['USAGE', 'CREATE']) p
        WHERE has_schema_privilege(r.name, 'skill_system', p)
), everything(kind, name) AS (
    SELECT kind, name FROM object
    UNION SELECT 'function', oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace
    UNION SELECT 'type', t.oid::regtype::text FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = 'skill_system'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
    UNION SELECT 'schema', 'skill_system'
)
SELECT e.kind, e.name, r.label, coalesce((SELECT string_agg(h.privilege, ', ' ORDER BY h.n, h.privilege) FROM held h
    WHERE (h.kind, h.name, h.label) = (e.kind, e.name, r.label)), '-')
FROM everything e, role r ORDER BY e.kind COLLATE "C", e.name COLLATE "C",
    array_position(ARRAY['PUBLIC', 'agent', 'reviewer', 'auditor', 'admin'], r.label)
"""


@pytest.fixture(scope="module")
def nobody(db):
    db.execute("CREATE ROLE test_nobody LOGIN")
    yield "test_nobody"
    db.execute("DROP ROLE test_nobody")


def test_the_matrix_is_the_golden_one(db, nobody):
    lines, last = [], None
    for kind, name, label, held in db.execute(MATRIX):
        if (kind, name) != last:
            lines.append(f"{kind} {name}")
            last = (kind, name)
        lines.append(f"    {label:8}  {held}")
    found = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


def test_nobody_holds_grant_options_or_owns_anything(db, roles):
    owners = db.execute(
        "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class "
        "WHERE relnamespace = 'skill_system'::regnamespace UNION SELECT pg_get_userbyid(proowner)::text "
        "FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace"
    ).fetchall()
    assert owners == [(db.info.user,)]
    grantable = db.execute(
        "SELECT relname, a.grantee::regrole FROM pg_class, aclexplode(relacl) a "
        "WHERE relnamespace = 'skill_system'::regnamespace AND a.is_grantable AND a.grantee <> relowner "
        "UNION ALL SELECT proname, a.grantee::regrole FROM pg_proc, aclexplode(proacl) a "
        "WHERE pronamespace = 'skill_system'::regnamespace AND a.is_grantable AND a.grantee <> proowner"
    ).fetchall()
    assert grantable == []
    assert (
        db.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'skill\\_system\\_%' "
            "AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication)"
        ).fetchall()
        == []
    )


@pytest.fixture(scope="module")
def stocked(db, roles):
    """Something in every table."""
    db.execute("SELECT * FROM skill_system.install_starter_policies()")
    db.execute("SELECT skill_system.append_audit('x', '{}')")
    db.execute("SELECT skill_system.log_run('s', 'o', 'ok', 1)")
    db.execute("SELECT skill_system.create_audit_partition('2044-01-01')")
    db.execute(
        "CREATE TABLE public.others (id int PRIMARY KEY); GRANT ALL ON public.others TO PUBLIC; "
        "CREATE SCHEMA play; GRANT ALL ON SCHEMA play TO PUBLIC"
    )
    return db


DENIED = (errors.InsufficientPrivilege,)
PROTECTED = DENIED + (errors.ObjectNotInPrerequisiteState, errors.FeatureNotSupported)

AUDIT_TABLES = ["audit_logs", "audit_logs_default", "audit_logs_2044_01", "audit_state"]
CLAIMS = "event_type, event_data"

EVERYBODY = [
    # the keyring and the settings
    "SHOW skill_system.keyring_file",
    "SHOW skill_system.keyring_command",
    "SELECT current_setting('skill_system.keyring_file')",
    "SET skill_system.keyring_file = '/tmp/x'",
    "SELECT set_config('skill_system.keyring_file', '/tmp/x', false)",
    "SET skill_system.keyring_command = 'id'",
    "ALTER SYSTEM SET skill_system.keyring_file = 'x'",
    "ALTER ROLE CURRENT_USER SET skill_system.keyring_file = 'x'",
    "ALTER ROLE CURRENT_USER SET skill_system.keyring_command = 'x'",
    "SELECT pg_read_file('skill_system_keyring.json')",
    "SELECT pg_read_binary_file('skill_system_keyring.json')",
    "SELECT pg_stat_file('skill_system_keyring.json')",
    "SELECT pg_ls_dir('.')",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "CREATE TEMP TABLE k (t text); COPY k FROM '/etc/passwd'",
    "SELECT lo_import('/etc/passwd')",
    "SELECT skill_system.create_keyring()",
    "SELECT skill_system.create_audit_partition('2045-01-01')",
    "SELECT * FROM skill_system.import_legacy('x')",
    "SET skill_system.tenant = 'other'",
    "SET LOCAL skill_system.tenant = 'other'",
    "SELECT set_config('skill_system.tenant', 'other', false)",
    "SELECT set_config('skill_system.tenant', 'other', true)",
    "ALTER ROLE CURRENT_USER SET skill_system.tenant = 'other'",
    "ALTER SYSTEM SET skill_system.tenant = 'other'",
    "ALTER DATABASE {database} SET skill_system.tenant = 'other'",
    "SET skill_system.run_retention = 1",
    "SET skill_system.invented = 'x'",
    "GRANT SET ON PARAMETER skill_system.tenant TO CURRENT_USER",
    "CREATE FUNCTION skill_system.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE skill_system.mine (x int)",
    "DROP EXTENSION skill_system",
    "ALTER EXTENSION skill_system UPDATE",
    "SET session_replication_role = replica",
    "SET ROLE skill_system_other",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    # the trigger functions
    (
        "CREATE TEMP TABLE mine (id uuid); CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH ROW "
        "EXECUTE FUNCTION skill_system.sign_audit_row()"
    ),
    (
        "CREATE TEMP TABLE mine (id uuid); CREATE TRIGGER t AFTER INSERT ON mine FOR EACH STATEMENT "
        "EXECUTE FUNCTION skill_system.record_policy_change()"
    ),
    (
        "CREATE TEMP TABLE mine (tenant_id text, name text, id bigint, version int, content_hash text); "
        "CREATE TRIGGER t AFTER DELETE ON mine FOR EACH ROW "
        "EXECUTE FUNCTION skill_system.record_policy_deletion()"
    ),
    # somebody else's tables
    "SELECT skill_system.make_append_only('public.others')",
    "SELECT skill_system.audit_table('public.others')",
    "SELECT skill_system.make_append_only('pg_catalog.pg_class')",
    "SELECT skill_system.make_append_only('skill_system.policy_profiles')",
    "SELECT skill_system.audit_table('skill_system.audit_logs')",
    # history
    "UPDATE skill_system.policy_versions SET name = 'x'",
    "DELETE FROM skill_system.policy_versions",
    "TRUNCATE skill_system.policy_versions",
    "INSERT INTO skill_system.policy_versions (policy_profile_id, version, name) VALUES (1, 99, 'x')",
    "UPDATE skill_system.run_events SET level = 'x'",
    "DELETE FROM skill_system.run_events",
    "TRUNCATE skill_system.run_events",
    "DELETE FROM skill_system.runs",
    "TRUNCATE skill_system.runs CASCADE",
    "TRUNCATE skill_system.policy_profiles CASCADE",
    "SELECT setval('skill_system.runs_id_seq', 1)",
    "SELECT setval('skill_system.policy_profiles_id_seq', 1)",
    "UPDATE skill_system.runs SET tenant_id = 'other'",
    "UPDATE skill_system.runs SET effective_policy = '{{}}'",
    "UPDATE skill_system.runs SET id = 99",
    "UPDATE skill_system.runs SET created_at = now()",
    "INSERT INTO skill_system.runs (id, goal) VALUES (999, 'x')",
    "INSERT INTO skill_system.runs (tenant_id, goal) VALUES ('other', 'x')",
    "INSERT INTO skill_system.runs (created_at, goal) VALUES (now(), 'x')",
    "INSERT INTO skill_system.run_events (id, run_id, event_type) VALUES (999, 1, 'x')",
    "INSERT INTO skill_system.run_events (tenant_id, run_id, event_type) VALUES ('other', 1, 'x')",
    *[
        f"{verb} skill_system.{table} {rest}"
        for table in AUDIT_TABLES
        for verb, rest in [("DELETE FROM", ""), ("TRUNCATE", ""), ("LOCK TABLE", "IN ACCESS EXCLUSIVE MODE")]
    ],
    *[
        f"UPDATE skill_system.{table} SET {column} = {column}"
        for table in AUDIT_TABLES[:3]
        for column in ["event_type", "signature", "tenant_id", "event_data"]
    ],
    "UPDATE skill_system.audit_state SET log_id = log_id",
    *[
        f"INSERT INTO skill_system.{table} ({CLAIMS}, {column}) VALUES ('x', '{{{{}}}}', {value})"
        for table in AUDIT_TABLES[:2]
        for column, value in [
            ("id", "gen_random_uuid()"),
            ("tenant_id", "'other'"),
            ("created_at", "now()"),
            ("signature", "'v1:k:00'"),
            ("recorded_at", "now()"),
            ("transaction_id", "1"),
            ("session_user_name", "'x'"),
            ("current_user_name", "'x'"),
            ("key_id", "'x'"),
        ]
    ],
    "INSERT INTO skill_system.audit_logs_default (event_type, event_data) VALUES ('x', '{{}}')",
    "COPY skill_system.audit_logs FROM STDIN",
    "INSERT INTO skill_system.audit_state (log_id, written_by) VALUES (gen_random_uuid(), 1)",
    "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL",
    "DROP TABLE skill_system.audit_logs_default",
    "ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.audit_logs_default",
    "CREATE TABLE mine PARTITION OF skill_system.audit_logs FOR VALUES FROM ('2050-01-01') TO ('2051-01-01')",
    (
        "CREATE TRIGGER t BEFORE INSERT ON skill_system.audit_logs FOR EACH ROW "
        "EXECUTE FUNCTION skill_system.refuse_change()"
    ),
    "CREATE RULE r AS ON INSERT TO skill_system.audit_logs DO INSTEAD NOTHING",
    "CREATE POLICY p ON skill_system.audit_logs USING (true)",
    "ALTER TABLE skill_system.audit_logs DISABLE ROW LEVEL SECURITY",
    (
        "CREATE TABLE play.mine (t text, n text, FOREIGN KEY (t, n) REFERENCES skill_system.policy_profiles "
        "(tenant_id, name))"
    ),
]
CHANGES_POLICIES = [
    "INSERT INTO skill_system.policy_profiles (name) VALUES ('mine')",
    "UPDATE skill_system.policy_profiles SET allowed_effects = '{{**}}'",
    "DELETE FROM skill_system.policy_profiles",
    "SELECT skill_system.create_policy('mine')",
    "SELECT * FROM skill_system.install_starter_policies()",
    "MERGE INTO skill_system.policy_profiles p USING (VALUES (1)) v(x) ON true WHEN MATCHED THEN DELETE",
    "SELECT * FROM skill_system.policy_profiles FOR UPDATE",
    "SELECT * FROM skill_system.maintain()",
]
READS_AUDIT = [
    "SELECT * FROM skill_system.audit_logs",
    "SELECT event_type FROM skill_system.audit_logs",
    "SELECT * FROM skill_system.audit_logs_default",
    "SELECT * FROM skill_system.audit_state",
    "SELECT * FROM skill_system.verify_audit()",
    "SELECT * FROM skill_system.audit_status()",
    "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{{}}') RETURNING id",
    "TABLE skill_system.audit_logs_2044_01",
]
WRITES_RUNS = [
    "SELECT skill_system.log_run('s', 'o', 'ok')",
    "SELECT skill_system.start_run('g')",
    "SELECT skill_system.finish_run(1, 'ok')",
    "SELECT skill_system.log_event(1, 'x')",
    "SELECT skill_system.log_step(1, 's', 'o')",
    "SELECT skill_system.log_events(1, '[]')",
    "INSERT INTO skill_system.runs (goal) VALUES ('x')",
    "UPDATE skill_system.runs SET goal = 'x'",
    "INSERT INTO skill_system.run_events (run_id, event_type) VALUES (1, 'x')",
]
WRITES_AUDIT = [
    "SELECT skill_system.append_audit('x', '{{}}')",
    "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{{}}')",
]
POLICY_COLUMNS = [
    f"UPDATE skill_system.policy_profiles SET {column} = {column}"
    for column in ["id", "version", "content_hash", "tenant_id", "created_at"]
] + [
    f"INSERT INTO skill_system.policy_profiles (name, {column}) VALUES ('mine', {value})"
    for column, value in [
        ("id", "999"),
        ("version", "9"),
        ("content_hash", "'x'"),
        ("tenant_id", "'other'"),
        ("created_at", "now()"),
    ]
]

FORBIDDEN = {
    "test_agent": EVERYBODY + CHANGES_POLICIES + READS_AUDIT + POLICY_COLUMNS,
    "test_reviewer": EVERYBODY + CHANGES_POLICIES + READS_AUDIT + WRITES_RUNS + POLICY_COLUMNS,
    "test_auditor": EVERYBODY + CHANGES_POLICIES + WRITES_RUNS + WRITES_AUDIT + POLICY_COLUMNS,
    "test_admin": EVERYBODY + WRITES_RUNS + POLICY_COLUMNS,
    "test_nobody": EVERYBODY
    + CHANGES_POLICIES
    + READS_AUDIT
    + WRITES_RUNS
    + WRITES_AUDIT
    + [
        "SELECT skill_system.check_policy('dev', '{{db.read}}')",
        "SELECT skill_system.current_tenant()",
        "SELECT * FROM skill_system.runs",
        "SELECT * FROM skill_system.run_stats",
        "SELECT * FROM skill_system.policy_profiles",
    ],
}


def settings_are_true(connection, role):
    if role == "test_nobody":
        # Cannot even load the library, so what it set is known to nobody.
        return True
    try:
        if connection.execute("SELECT skill_system.current_tenant()").fetchone()[0] != "default":
            return False
    except errors.InsufficientPrivilege:
        # The library may as well refuse to work in such a session.
        return True
    return (
        connection.execute(
            "SELECT count(*) FROM pg_settings WHERE name LIKE 'skill\\_system.%' "
            "AND source IN ('session', 'client', 'user', 'database')"
        ).fetchone()[0]
        == 0
    )


@pytest.mark.parametrize("role", FORBIDDEN)
def test_what_a_role_must_not_do(stocked, nobody, connect, role):
    wrong = []
    count = (
        "SELECT (SELECT count(*) FROM skill_system.audit_logs), (SELECT count(*) "
        "FROM skill_system.policy_versions), (SELECT count(*) FROM skill_system.runs), (SELECT count(*) "
        "FROM skill_system.run_events), (SELECT count(*) FROM skill_system.policy_profiles)"
    )
    before = stocked.execute(count).fetchone()
    for load in (True, False):
        connection = None
        for statement in FORBIDDEN[role]:
            statement = statement.format(database=stocked.info.dbname)
            sets = " SET " in f" {statement.upper()}" or "set_config" in statement
            # A separate session for each setting, as loading the library would hide what comes after.
            if connection is None or sets:
                connection = connect(role)
                if load and role != "test_nobody":
                    connection.execute("SELECT skill_system.current_tenant()")
            if not statement.startswith("ALTER SYSTEM"):
                connection.execute("BEGIN")
            try:
                if statement.startswith("COPY skill_system"):
                    with connection.cursor().copy(statement):
                        pass
                else:
                    connection.execute(statement)
            except PROTECTED:
                pass
            except psycopg.Error as error:
                # A role that does not exist, a setting that nobody knows yet or that no session may change, is as good
                # as forbidden.
                if error.sqlstate not in ("22023", "42704", "42602", "0LP01", "55P02"):
                    wrong.append((load, statement, error.sqlstate, str(error).splitlines()[0]))
            else:
                # Before the library is loaded the server lets anybody set any name with a dot; loading must undo it.
                if not sets or not settings_are_true(connection, role):
                    wrong.append((load, statement, "allowed"))
            connection.execute("ROLLBACK")
            if sets:
                connection.close()
                connection = None
    assert not wrong, "\n".join(map(str, wrong))
    assert stocked.execute(count).fetchone() == before


ALLOWED = {
    "test_agent": [
        "SELECT * FROM skill_system.check_policy('dev', '{{db.read}}')",
        "SELECT skill_system.enforce_policy('dev', '{{db.read}}'::text[])",
        "SELECT * FROM skill_system.explain_policy('dev', '{{db.read}}')",
        "SELECT * FROM skill_system.policy_profiles",
        "SELECT allowed_effects FROM skill_system.policy_profiles WHERE name = 'dev'",
        (
            "INSERT INTO skill_system.runs (task_spec_id, status, started_at, effective_policy) "
            "VALUES (1, 'running', now(), '{{}}') RETURNING id"
        ),
        "SELECT * FROM skill_system.run_stats",
        "SELECT * FROM skill_system.stuck_runs",
        *WRITES_RUNS[:2],
        *WRITES_AUDIT,
        "SELECT skill_system.current_tenant()",
    ],
    "test_reviewer": [
        "SELECT * FROM skill_system.check_policy('dev', '{{db.read}}')",
        "SELECT * FROM skill_system.runs",
        *WRITES_AUDIT,
    ],
    "test_auditor": [
        "SELECT * FROM skill_system.audit_logs",
        "SELECT * FROM skill_system.audit_state",
        "SELECT * FROM skill_system.verify_audit()",
        "SELECT * FROM skill_system.audit_status()",
        "SELECT * FROM skill_system.runs",
        "SELECT * FROM skill_system.policy_versions",
        "SELECT * FROM skill_system.audit_logs_2044_01",
    ],
    "test_admin": [
        "SELECT skill_system.create_policy('mine')",
        "SELECT * FROM skill_system.install_starter_policies()",
        "UPDATE skill_system.policy_profiles SET ask_effects = '{{mail.send}}' WHERE name = 'dev'",
        "SELECT skill_system.delete_rows('skill_system.policy_profiles', '{{\"name\": \"locked\"}}')",
        (
            "INSERT INTO skill_system.policy_profiles (name, allowed_effects) "
            "VALUES ('mine too', '{{db.read}}') RETURNING id"
        ),
        "SELECT * FROM skill_system.audit_logs",
        "SELECT * FROM skill_system.maintain()",
        "SELECT * FROM skill_system.health()",
        *WRITES_AUDIT,
        (
            "CREATE TEMP TABLE own (id int PRIMARY KEY); SELECT skill_system.audit_table('own'); "
            "INSERT INTO own VALUES (1)"
        ),
        "CREATE TEMP TABLE own2 (id int); SELECT skill_system.make_append_only('own2')",
    ],
}


@pytest.mark.parametrize(
    "role, statement", [(role, statement) for role, list_ in ALLOWED.items() for statement in list_]
)
def test_what_a_role_is_for(stocked, connect, role, statement):
    connection = connect(role)
    connection.execute(statement.format())
    assert (
        stocked.execute(
            "SELECT problem FROM skill_system.verify_audit() WHERE problem <> 'protection_missing'"
        ).fetchall()
        == []
    )


def test_an_auditor_and_a_plain_member_of_two_roles(stocked, connect):
    """Rights add up and nothing more: an agent who audits too still cannot touch what is written."""
    stocked.execute(
        "CREATE ROLE test_both LOGIN; GRANT skill_system_agent, skill_system_auditor, skill_system_admin, "
        "skill_system_reviewer TO test_both"
    )
    try:
        connection = connect("test_both")
        connection.execute("SELECT skill_system.current_tenant()")
        for statement in [
            "UPDATE skill_system.audit_logs SET event_type = 'x'",
            "DELETE FROM skill_system.audit_logs",
            "TRUNCATE skill_system.audit_logs",
            "INSERT INTO skill_system.audit_logs (event_type, event_data, signature) VALUES ('x', '{}', 'v1:k:00')",
            "SELECT skill_system.create_keyring()",
            "SET skill_system.tenant = 'other'",
            "SHOW skill_system.keyring_file",
            "DELETE FROM skill_system.run_events",
            "DELETE FROM skill_system.policy_versions",
        ]:
            with pytest.raises(PROTECTED):
                connection.execute(statement)
        connection.close()
    finally:
        stocked.execute("DROP OWNED BY test_both; DROP ROLE test_both")
