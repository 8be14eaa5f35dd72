"""Nobody takes away the protection of the audit trail unseen: a server that preloads the library refuses it, any server
finds it afterwards.

The numbers are those of the attack list. Each attack is run as a superuser and as the plain owner of the extension,
on a server with the guard and on one without."""

import os
import threading
import time
import uuid
from pathlib import Path

import psycopg
import pytest
from conftest import Cluster
from psycopg import errors

from cluster import MONTH

# number, statement, what verify_audit() says of it; FINGERPRINT where only audit_fingerprint() changes, GONE where
# verify_audit() itself is gone, REFUSED where PostgreSQL refuses it to everybody.
FINGERPRINT, GONE, REFUSED = "fingerprint", "gone", "refused"
ATTACKS = [
    (
        4,
        "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER audit_logs_no_change",
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (
        4,
        "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER audit_logs_sign",
        "no ENABLE ALWAYS trigger signs new rows",
    ),
    (
        4,
        f"ALTER TABLE skill_system.{MONTH} DISABLE TRIGGER USER",
        "no ENABLE ALWAYS trigger refuses TRUNCATE",
    ),
    (
        4,
        "ALTER TABLE ONLY skill_system.audit_logs_2041_01 ENABLE TRIGGER audit_logs_no_change",
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (
        4,
        "ALTER TABLE IF EXISTS skill_system.audit_state ENABLE REPLICA TRIGGER audit_state_no_change",
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (
        4,
        "DROP TRIGGER audit_logs_no_truncate ON skill_system.audit_logs_2041_01",
        "no ENABLE ALWAYS trigger refuses TRUNCATE",
    ),
    (4, "ALTER TRIGGER audit_logs_no_truncate ON skill_system.audit_logs RENAME TO other", FINGERPRINT),
    (
        4,
        (
            "CREATE OR REPLACE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE ON skill_system.audit_logs "
            "FOR EACH STATEMENT EXECUTE FUNCTION public.swallow()"
        ),
        "no ENABLE ALWAYS trigger refuses TRUNCATE",
    ),
    (
        4,
        (
            "CREATE OR REPLACE TRIGGER audit_logs_no_change BEFORE DELETE ON skill_system.audit_logs FOR EACH "
            "ROW EXECUTE FUNCTION skill_system.refuse_change()"
        ),
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (
        4,
        (
            "CREATE OR REPLACE TRIGGER audit_state_no_change BEFORE DELETE "
            "OR UPDATE ON skill_system.audit_state FOR EACH ROW WHEN (OLD.only_one IS NULL) "
            "EXECUTE FUNCTION skill_system.refuse_change()"
        ),
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (
        6,
        "ALTER TABLE skill_system.audit_logs ALTER COLUMN event_data TYPE jsonb USING '{\"rewritten\": true}'",
        "signature_mismatch",
    ),
    (
        6,
        "ALTER TABLE skill_system.audit_state ALTER COLUMN log_id TYPE uuid USING gen_random_uuid()",
        "signature_mismatch",
    ),
    (
        7,
        "ALTER TABLE skill_system.audit_logs ALTER COLUMN event_type TYPE text",
        "column event_type is of type text, not character varying(100)",
    ),
    (7, "ALTER TABLE skill_system.audit_logs ADD COLUMN extra text", "column extra does not belong here"),
    (
        7,
        "ALTER TABLE skill_system.audit_state SET (fillfactor = 90), ADD COLUMN extra text",
        "column extra does not belong here",
    ),
    (7, "ALTER TABLE skill_system.audit_state DROP COLUMN created_at", "column created_at is missing"),
    (
        7,
        "ALTER TABLE skill_system.audit_state RENAME COLUMN created_at TO made_at",
        "column made_at does not belong here",
    ),
    (7, "ALTER TABLE skill_system.audit_logs ALTER COLUMN signature DROP NOT NULL", "column signature may be NULL"),
    (7, "ALTER TABLE skill_system.audit_logs ALTER COLUMN created_at SET DEFAULT '2041-01-05'", FINGERPRINT),
    (
        7,
        "ALTER TABLE skill_system.audit_logs_default ADD CONSTRAINT none CHECK (created_at < '2030-01-01') NOT VALID",
        FINGERPRINT,
    ),
    (7, "ALTER TABLE skill_system.audit_logs_default DROP CONSTRAINT audit_logs_default_pkey", "it has no primary key"),
    (8, "ALTER TABLE skill_system.audit_logs_default SET UNLOGGED", "it is not logged"),
    (
        8,
        "ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.audit_logs_2041_01",
        "it is detached from audit_logs",
    ),
    (
        8,
        (
            "ALTER TABLE skill_system.audit_logs ATTACH PARTITION public.spare FOR VALUES FROM ('2050-01-01') "
            "TO ('2051-01-01')"
        ),
        "it is not a partition of this extension",
    ),
    (
        8,
        (
            "CREATE TABLE public.another PARTITION OF skill_system.audit_logs FOR VALUES FROM ('2050-01-01') TO "
            "('2051-01-01')"
        ),
        "it is not a partition of this extension",
    ),
    (8, "CREATE TABLE public.child () INHERITS (skill_system.audit_state)", "table public.child is its child"),
    (8, "ALTER TABLE public.look_alike INHERIT skill_system.audit_state", "table public.look_alike is its child"),
    (
        8,
        "ALTER TABLE public.parted ATTACH PARTITION skill_system.audit_state FOR VALUES IN (true)",
        "it is a child of public.parted",
    ),
    (8, "DROP TABLE skill_system.audit_logs_2041_01", FINGERPRINT),
    (
        8,
        (
            "ALTER EXTENSION skill_system DROP TABLE skill_system.audit_logs_default; "
            "DROP TABLE skill_system.audit_logs_default"
        ),
        "it has no default partition",
    ),
    (
        10,
        "ALTER EXTENSION skill_system DROP TABLE skill_system.audit_state; DROP TABLE skill_system.audit_state CASCADE",
        GONE,
    ),
    (10, "ALTER TABLE skill_system.audit_state RENAME TO state_of_audit", GONE),
    (10, "ALTER TABLE skill_system.audit_logs_2041_01 RENAME TO elsewhere", "it is not a partition of this extension"),
    (10, "ALTER TABLE skill_system.audit_logs_2041_01 SET SCHEMA public", "it is not a partition of this extension"),
    (10, "ALTER TABLE skill_system.audit_logs_default OWNER TO other_owner", "it belongs to other_owner"),
    (10, "REASSIGN OWNED BY chief TO other_owner", REFUSED),
    (10, "DROP OWNED BY chief CASCADE", GONE),
    (10, "DROP OWNED BY skill_system_auditor", "no policy shows all its rows to auditors"),
    (10, "DROP EXTENSION skill_system CASCADE", GONE),
    (10, "DROP SCHEMA skill_system CASCADE", GONE),
    (
        11,
        "CREATE RULE quiet AS ON INSERT TO skill_system.audit_logs DO INSTEAD NOTHING",
        "rule quiet does not belong here",
    ),
    (
        11,
        "CREATE OR REPLACE RULE quiet AS ON UPDATE TO skill_system.audit_logs_default DO INSTEAD NOTHING",
        "rule quiet does not belong here",
    ),
    (
        12,
        (
            "CREATE TRIGGER zz_late BEFORE INSERT ON skill_system.audit_logs FOR EACH ROW "
            "EXECUTE FUNCTION public.swallow()"
        ),
        "trigger zz_late, which calls public.swallow(), does not belong here",
    ),
    (
        12,
        (
            "CREATE TRIGGER quiet BEFORE INSERT ON skill_system.audit_logs_default FOR EACH ROW "
            "EXECUTE FUNCTION public.swallow()"
        ),
        "does not belong here",
    ),
    (
        12,
        (
            "CREATE CONSTRAINT TRIGGER quiet AFTER INSERT ON skill_system.audit_logs_default FOR EACH ROW "
            "EXECUTE FUNCTION public.swallow()"
        ),
        "does not belong here",
    ),
    # The tables of the ledger are audit tables like the others.
    (
        22,
        "ALTER TABLE skill_system.audit_tiles DISABLE TRIGGER ALL",
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (22, "ALTER TABLE skill_system.audit_map SET UNLOGGED", "it is not logged"),
    (
        22,
        "ALTER TABLE skill_system.audit_seal_state ALTER COLUMN tree_size TYPE numeric",
        "column tree_size is of type numeric, not bigint",
    ),
    (
        22,
        "CREATE RULE quiet AS ON INSERT TO skill_system.audit_checkpoints DO INSTEAD NOTHING",
        "rule quiet does not belong here",
    ),
    (
        29,
        (
            "CREATE OR REPLACE FUNCTION skill_system.refuse_change() RETURNS trigger "
            "LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        ),
        "function refuse_change() is not as the extension ships it",
    ),
    (
        29,
        (
            "CREATE OR REPLACE FUNCTION skill_system.verify_audit(since timestamptz DEFAULT '-infinity', "
            "until timestamptz DEFAULT 'infinity') RETURNS TABLE (partition regclass, record_id uuid, "
            "created_at timestamptz, problem text, detail text) "
            "LANGUAGE sql AS 'SELECT NULL::regclass, NULL::uuid, NULL::timestamptz, NULL, NULL WHERE false'"
        ),
        FINGERPRINT,
    ),
    (
        29,
        "ALTER FUNCTION skill_system.create_audit_partition(date) SET search_path = public",
        "function create_audit_partition(month date) is not as the extension ships it",
    ),
    (29, "ALTER FUNCTION skill_system.audit_problem STRICT", "is not as the extension ships it"),
    (29, "ALTER FUNCTION skill_system.append_audit SECURITY DEFINER", "is not as the extension ships it"),
    (
        29,
        "ALTER FUNCTION skill_system.append_audit RENAME TO appended",
        (
            "function appended(event_type text, event_data jsonb, actor_id text, actor_type text) was "
            "not installed by the extension"
        ),
    ),
    (29, "ALTER ROUTINE skill_system.refuse_change() SET SCHEMA public", "does not belong here"),
    (
        29,
        "ALTER FUNCTION skill_system.sign_audit_row() OWNER TO other_owner",
        "function sign_audit_row() belongs to other_owner",
    ),
    (
        29,
        "ALTER EXTENSION skill_system DROP FUNCTION skill_system.refuse_change()",
        "function refuse_change() does not belong to the extension any more",
    ),
    (29, "ALTER EXTENSION skill_system ADD FUNCTION public.swallow()", None),
    (29, "ALTER SCHEMA skill_system OWNER TO other_owner", "schema skill_system belongs to other_owner"),
    (29, "ALTER SCHEMA skill_system RENAME TO renamed", GONE),
    (
        32,
        "CREATE FUNCTION skill_system.verify_audit(text) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        "function verify_audit(text) is not as the extension ships it",
    ),
    (
        32,
        "CREATE FUNCTION skill_system.current_tenant(VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        "function current_tenant: expected 1 definitions, found 2",
    ),
    (
        32,
        "CREATE PROCEDURE skill_system.seal() LANGUAGE sql AS 'SELECT NULL'",
        "function seal() was not installed by the extension",
    ),
    (
        32,
        "CREATE AGGREGATE skill_system.count(text) (SFUNC = textcat, STYPE = text)",
        "function count(text) was not installed by the extension",
    ),
    (34, "ALTER TABLE skill_system.audit_logs DISABLE ROW LEVEL SECURITY", "row security is off"),
    (34, "ALTER TABLE skill_system.audit_state FORCE ROW LEVEL SECURITY", "row security is forced on its owner"),
    (
        34,
        "CREATE POLICY less ON skill_system.audit_logs AS RESTRICTIVE FOR SELECT USING (false)",
        "policy less does not belong here",
    ),
    (
        34,
        "CREATE POLICY more ON skill_system.audit_logs FOR SELECT TO skill_system_agent USING (true)",
        "policy more does not belong here",
    ),
    (
        34,
        (
            "CREATE POLICY trojan ON skill_system.audit_logs_2041_01 FOR SELECT TO skill_system_auditor "
            "USING (public.swallowed() IS NULL)"
        ),
        "policy trojan does not belong here",
    ),
    (34, "ALTER POLICY auditor ON skill_system.audit_logs USING (false)", "no policy shows all its rows to auditors"),
    (34, "ALTER POLICY auditor ON skill_system.audit_logs RENAME TO other", "policy other does not belong here"),
    (34, "DROP POLICY auditor ON skill_system.audit_logs", "no policy shows all its rows to auditors"),
]
# As a superuser only.
BY_SUPERUSER = [
    (
        5,
        "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'audit_logs_no_change'",
        "no ENABLE ALWAYS trigger refuses UPDATE and DELETE",
    ),
    (5, "UPDATE pg_namespace SET nspname = 'renamed' WHERE nspname = 'skill_system'", GONE),
    (5, "DELETE FROM pg_trigger WHERE tgname = 'audit_logs_sign'", "no ENABLE ALWAYS trigger signs new rows"),
    (
        30,
        "UPDATE pg_event_trigger SET evtenabled = 'D' WHERE evtname = 'skill_system_protect_children'",
        "event trigger skill_system_protect_children is missing, disabled or changed",
    ),
    (
        5,
        (
            "UPDATE pg_trigger SET tgfoid = 'public.swallow'::regproc, tgisinternal = true "
            "WHERE tgname = 'audit_logs_no_change'"
        ),
        "does not belong here",
    ),
    (
        5,
        f"UPDATE pg_class SET relpersistence = 'u' WHERE oid = 'skill_system.{MONTH}'::regclass",
        "it is not logged",
    ),
    (
        5,
        "UPDATE pg_proc SET prosrc = 'skill_current_tenant' WHERE oid = 'skill_system.refuse_change'::regproc",
        "function refuse_change() is not as the extension ships it",
    ),
    (
        5,
        "DELETE FROM pg_inherits WHERE inhrelid = 'skill_system.audit_logs_2041_01'::regclass",
        "it is detached from audit_logs",
    ),
    (
        5,
        (
            "INSERT INTO pg_policy SELECT 1, 'less', polrelid, polcmd, false, polroles, polqual, polwithcheck "
            "FROM pg_policy WHERE polrelid = 'skill_system.audit_state'::regclass"
        ),
        "policy less does not belong here",
    ),
    (
        8,
        (
            "CREATE FOREIGN TABLE public.lent PARTITION OF skill_system.audit_logs FOR VALUES FROM "
            "('2050-01-01') TO ('2051-01-01') SERVER nowhere OPTIONS (filename '/dev/null')"
        ),
        "not an ordinary table",
    ),
]
SETUP = """
CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION public.swallowed() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE public.spare (LIKE skill_system.audit_logs INCLUDING DEFAULTS);
CREATE TABLE public.look_alike (LIKE skill_system.audit_state INCLUDING ALL);
CREATE TABLE public.parted (LIKE skill_system.audit_state INCLUDING DEFAULTS) PARTITION BY LIST (only_one);
"""


class Server:
    def __init__(self, cluster):
        self.cluster = cluster
        with cluster.connect() as admin:
            admin.execute("CREATE ROLE chief SUPERUSER LOGIN; CREATE ROLE other_owner; GRANT other_owner TO chief")
            admin.execute("CREATE DATABASE guarded TEMPLATE template0")
        with self.connect() as admin:
            admin.execute(
                "GRANT ALL ON DATABASE guarded TO chief, other_owner; GRANT ALL ON SCHEMA public TO chief; "
                "CREATE EXTENSION file_fdw; CREATE SERVER nowhere FOREIGN DATA WRAPPER file_fdw"
            )
        with self.connect("chief") as chief:
            chief.execute("CREATE EXTENSION skill_system")
            chief.execute("SELECT skill_system.create_audit_partition('2041-01-01')")
            chief.execute("SELECT skill_system.append_audit('first', '{}')")
            chief.execute(SETUP)
            chief.execute("GRANT CREATE ON SCHEMA public, skill_system TO other_owner")
            chief.execute("GRANT skill_system_auditor TO chief")
        with cluster.connect() as admin:
            admin.execute("ALTER ROLE chief NOSUPERUSER")

    def connect(self, role=None):
        return self.cluster.connect(role, "guarded")


def server(*settings):
    cluster = Cluster(Path(os.environ["PGHOST"]) / uuid.uuid4().hex[:6], settings)
    try:
        yield Server(cluster.start())
    finally:
        cluster.destroy()


@pytest.fixture(scope="module")
def guarded():
    yield from server("shared_preload_libraries=skill_system")


@pytest.fixture(scope="module")
def unguarded():
    yield from server()


def found(connection):
    return [
        row[0] if row[0] != "protection_missing" else row[1]
        for row in connection.execute("SELECT problem, detail FROM skill_system.verify_audit()").fetchall()
    ]


def fingerprint(connection):
    return connection.execute("SELECT item, state FROM skill_system.audit_fingerprint() ORDER BY 1").fetchall()


def attack(connection, statement, finding, more=""):
    """Runs the attack and asserts how it is found, then takes it back."""
    before = fingerprint(connection)
    assert found(connection) == []
    try:
        connection.execute("BEGIN")
        connection.execute(more)
        if finding == REFUSED:
            # The extension has an event trigger, which belongs to a superuser.
            with pytest.raises(errors.InsufficientPrivilege, match="event trigger"):
                connection.execute(statement)
            return
        connection.execute(statement)
        if finding == GONE:
            with pytest.raises(
                (errors.UndefinedFunction, errors.InvalidSchemaName, errors.UndefinedTable, errors.UndefinedObject)
            ):
                found(connection)
            return
        if finding == FINGERPRINT:
            assert fingerprint(connection) != before
            return
        if finding is not None:
            assert any(finding in problem for problem in found(connection)), found(connection)
        # A rewrite of the rows leaves the catalogue as it was.
        if finding != "signature_mismatch" and finding is not None:
            assert fingerprint(connection) != before
    finally:
        connection.execute("ROLLBACK")
    assert fingerprint(connection) == before
    assert found(connection) == []


def name(case):
    return f"{case[0]}-{' '.join(case[1].split())[:60]}"


@pytest.mark.parametrize("case", ATTACKS, ids=name)
def test_the_owner_without_the_guard_is_found_out(case, unguarded):
    with unguarded.connect("chief") as chief:
        attack(chief, case[1], case[2])


@pytest.mark.parametrize("case", ATTACKS + BY_SUPERUSER, ids=name)
def test_a_superuser_without_the_guard_is_found_out(case, unguarded):
    with unguarded.connect() as superuser:
        attack(superuser, case[1], case[2])


def guard_refuses(connection, statement):
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        connection.execute(statement)
    assert "is protected: the statement is refused" in str(caught.value)
    assert caught.value.diag.message_detail.startswith("It would ")
    assert "skill_system.allow_unprotected" in caught.value.diag.message_hint


@pytest.mark.parametrize("case", ATTACKS, ids=name)
def test_the_guard_refuses_the_owner(case, guarded):
    with guarded.connect("chief") as chief:
        guard_refuses(chief, case[1])
        # Nor inside a block.
        guard_refuses(chief, f"DO $do$ BEGIN EXECUTE $statement${case[1]}$statement$; END $do$")
        assert found(chief) == []
        with pytest.raises(errors.InsufficientPrivilege, match="permission denied to set parameter"):
            chief.execute("SET skill_system.allow_unprotected = on")


@pytest.mark.parametrize("case", ATTACKS + BY_SUPERUSER, ids=name)
def test_the_guard_refuses_a_superuser_who_does_not_say_so(case, guarded):
    with guarded.connect() as superuser:
        guard_refuses(superuser, case[1])
        assert found(superuser) == []
        attack(superuser, case[1], case[2], "SET LOCAL skill_system.allow_unprotected = on")
        guard_refuses(superuser, case[1])


@pytest.mark.parametrize("which", ["guarded", "unguarded"])
def test_triggers_refuse_by_themselves(which, request):
    """1, 2, 3, 9: nobody changes rows, whatever the hook."""
    with request.getfixturevalue(which).connect() as superuser:
        for statement in (
            "TRUNCATE skill_system.audit_logs",
            "TRUNCATE skill_system.audit_logs_2041_01",
            "TRUNCATE skill_system.audit_state CASCADE",
            "DELETE FROM skill_system.audit_logs",
            f"UPDATE skill_system.{MONTH} SET event_type = 'x'",
            "MERGE INTO skill_system.audit_state s USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE",
        ):
            for role in ("origin", "replica"):
                superuser.execute(f"SET session_replication_role = {role}")
                with pytest.raises(errors.ObjectNotInPrerequisiteState):
                    superuser.execute(statement)
        assert found(superuser) == []


def test_names_are_seen_through(guarded):
    """32: no search_path, no shadow of another schema hides whose table it is."""
    with guarded.connect("chief") as chief:
        for path in (
            "skill_system",
            "public, skill_system",
            '"skill_system"',
            "SKILL_SYSTEM, public",
            "pg_temp, skill_system",
        ):
            chief.execute(f"SET search_path = {path}")
            guard_refuses(chief, "ALTER TABLE audit_logs DISABLE TRIGGER ALL")
            guard_refuses(
                chief, "CREATE TRIGGER x BEFORE INSERT ON audit_state FOR EACH ROW EXECUTE FUNCTION public.swallow()"
            )
            guard_refuses(chief, "ALTER FUNCTION refuse_change() STABLE")
        chief.execute("SET search_path = skill_system, public")
        guard_refuses(
            chief,
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        )
        chief.execute(
            "CREATE FUNCTION pg_temp.sneaky() RETURNS void "
            "LANGUAGE plpgsql SET search_path = skill_system AS $$ BEGIN "
            "ALTER TABLE audit_logs DISABLE TRIGGER ALL; END $$"
        )
        guard_refuses(chief, "SELECT pg_temp.sneaky()")


def test_a_shadow_that_vanishes_does_not_open_a_way(guarded):
    """The name is another table's when the statement begins to wait, and the audit table's when it goes on."""
    with guarded.connect() as holder, guarded.connect("chief") as chief:
        holder.execute(
            "CREATE SCHEMA shadow; CREATE TABLE shadow.audit_logs (LIKE skill_system.audit_logs); "
            "GRANT USAGE ON SCHEMA shadow TO chief; ALTER TABLE shadow.audit_logs OWNER TO chief"
        )
        chief.execute("SET search_path = shadow, skill_system")
        outcome = []

        def wait_and_alter():
            try:
                chief.execute("ALTER TABLE audit_logs ADD COLUMN extra text")
                outcome.append("done")
            except psycopg.Error as error:
                outcome.append(error.sqlstate)

        holder.execute("BEGIN; LOCK shadow.audit_logs IN ACCESS EXCLUSIVE MODE; DROP TABLE shadow.audit_logs")
        waiting = threading.Thread(target=wait_and_alter)
        waiting.start()
        time.sleep(0.5)
        holder.execute("COMMIT")
        waiting.join(20)
        assert outcome == ["42501"]
        assert found(holder) == []
        holder.execute("DROP SCHEMA shadow CASCADE")


def test_ordinary_work_goes_on(guarded):
    with guarded.connect() as superuser, guarded.connect("chief") as chief:
        before = fingerprint(superuser)
        for statement in (
            "CREATE INDEX mine ON skill_system.audit_logs_default (event_type)",
            "REINDEX TABLE skill_system.audit_logs_default",
            "REINDEX TABLE CONCURRENTLY skill_system.audit_logs_default",
            "CLUSTER skill_system.audit_logs_default USING audit_logs_default_pkey",
            "VACUUM FULL skill_system.audit_logs_default",
            "VACUUM (ANALYZE) skill_system.audit_state",
            "ALTER INDEX skill_system.mine RENAME TO audit_mine",
            "DROP INDEX skill_system.audit_mine",
            "ALTER TABLE skill_system.audit_logs_default SET (autovacuum_vacuum_cost_delay = 1)",
            "ALTER TABLE skill_system.audit_logs_default RESET (autovacuum_vacuum_cost_delay)",
            "ALTER TABLE skill_system.audit_logs_default SET WITHOUT CLUSTER",
            "GRANT SELECT ON skill_system.audit_logs TO other_owner",
            "REVOKE SELECT ON skill_system.audit_logs FROM other_owner",
            "SELECT FROM pg_class WHERE relname = 'pg_class' FOR UPDATE",
            "UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'",
            "CREATE TABLE public.audit_logs (id int PRIMARY KEY)",
            "ALTER TABLE public.audit_logs ADD COLUMN a text",
            "SELECT skill_system.audit_table('public.audit_logs')",
            "DROP TRIGGER skill_system_audit ON public.audit_logs",
            "CREATE FUNCTION public.append_audit() RETURNS void LANGUAGE sql AS ''",
            "ALTER FUNCTION public.append_audit() STABLE",
            "DROP FUNCTION public.append_audit()",
            "CREATE SCHEMA mine CREATE TABLE audit_logs (a int) CREATE VIEW v AS SELECT 1",
            "CREATE POLICY p ON mine.audit_logs USING (true)",
            "CREATE RULE r AS ON INSERT TO mine.audit_logs DO INSTEAD NOTHING",
            "DROP SCHEMA mine CASCADE",
            "CREATE TEMP TABLE audit_state (a int)",
            "ALTER TABLE audit_state ADD b int",
            "DROP TABLE audit_state",
            "BEGIN",
            "LOCK skill_system.audit_logs IN SHARE MODE",
            "COMMIT",
            "COPY skill_system.audit_logs (event_type, event_data) FROM PROGRAM 'true'",
            "ALTER EXTENSION skill_system UPDATE",
            "SELECT * FROM skill_system.maintain()",
            "ALTER TABLE skill_system.audit_logs ENABLE ALWAYS TRIGGER audit_logs_sign",
            "DROP TABLE public.audit_logs",
        ):
            superuser.execute(statement)
        chief.execute(
            "SET search_path = public, skill_system; "
            "CREATE FUNCTION health() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
            "DROP FUNCTION public.health(); CREATE TABLE wells (a int); "
            "CREATE FUNCTION well_count() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM wells'; "
            "ALTER FUNCTION well_count() STABLE; DROP FUNCTION well_count(); DROP TABLE wells"
        )
        chief.execute("SELECT skill_system.create_audit_partition('2042-01-01')")
        assert found(superuser) == []
        assert "audit_logs_2042_01" in str(fingerprint(superuser))
        after = [row for row in fingerprint(superuser) if "20" not in row[0] and not row[0].startswith("children")]
        assert after == [row for row in before if "20" not in row[0] and not row[0].startswith("children")]


def test_an_error_in_our_own_change_leaves_the_guard_up(guarded):
    with guarded.connect("chief") as chief:
        # The partition's index finds its name taken, after the partition was made.
        chief.execute(
            "CREATE INDEX audit_logs_2043_01_brin_idx ON skill_system.audit_logs_default USING brin (created_at)"
        )
        with pytest.raises(errors.DuplicateTable):
            chief.execute("SELECT skill_system.create_audit_partition('2043-01-01')")
        guard_refuses(chief, "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL")
        chief.execute(
            "DO $$ BEGIN PERFORM skill_system.create_audit_partition('2043-01-01'); "
            "EXCEPTION WHEN duplicate_table THEN NULL; END $$"
        )
        guard_refuses(chief, "ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL")
        chief.execute("DROP INDEX skill_system.audit_logs_2043_01_brin_idx")


def test_errors_of_other_statements_pass_as_they_are(guarded, unguarded):
    seen = []
    for one in (guarded, unguarded):
        with one.connect() as connection:
            connection.execute("CREATE TABLE public.t (a int CONSTRAINT positive CHECK (a > 0))")
            answers = []
            for statement in (
                "CREATE TABLE x (a nosuchtype)",
                "DO $$ BEGIN INSERT INTO public.t VALUES (-1); END $$",
                "DO $$ BEGIN RAISE EXCEPTION 'e' USING DETAIL = 'd', HINT = 'h', SCHEMA = 's'; END $$",
                "EXECUTE nosuch",
                "DROP TABLE nosuch",
            ):
                with pytest.raises(psycopg.Error) as caught:
                    connection.execute(statement)
                diagnosis = caught.value.diag
                answers.append(
                    [
                        getattr(diagnosis, field)
                        for field in (
                            "sqlstate",
                            "message_primary",
                            "message_detail",
                            "message_hint",
                            "statement_position",
                            "internal_position",
                            "internal_query",
                            "context",
                            "schema_name",
                            "table_name",
                            "constraint_name",
                            "source_function",
                        )
                    ]
                )
            seen.append(answers)
    assert seen[0] == seen[1]
    assert seen[0][0][4] is not None and seen[0][1][7] is not None and seen[0][1][10] == "positive"


def test_before_the_first_record_nothing_is_guarded(guarded):
    with guarded.cluster.connect() as admin:
        admin.execute("CREATE DATABASE fresh TEMPLATE template0")
    with guarded.cluster.connect(dbname="fresh") as superuser:
        # A schema of this name that is not the extension's is not protected.
        superuser.execute(
            "CREATE SCHEMA skill_system; CREATE TABLE skill_system.audit_logs (a int); "
            "ALTER TABLE skill_system.audit_logs ADD b int; "
            "CREATE FUNCTION skill_system.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
            "DROP SCHEMA skill_system CASCADE"
        )
        superuser.execute(
            "CREATE EXTENSION skill_system; ALTER TABLE skill_system.audit_logs DISABLE TRIGGER ALL; "
            "DROP EXTENSION skill_system"
        )
        superuser.execute("CREATE EXTENSION skill_system; SELECT skill_system.append_audit('x', '{}')")
        guard_refuses(superuser, "DROP EXTENSION skill_system")
        superuser.execute("SET skill_system.allow_unprotected = on; DROP EXTENSION skill_system")
        superuser.execute(
            "RESET skill_system.allow_unprotected; CREATE EXTENSION skill_system; DROP EXTENSION skill_system"
        )


def test_health_and_fingerprint_tell_whether_the_guard_is_there(guarded, unguarded):
    """27: a server started without the library shows it."""
    check = "SELECT status, detail FROM skill_system.health() WHERE \"check\" = 'utility_guard'"
    with guarded.connect() as one, unguarded.connect() as other:
        assert one.execute(check).fetchone()[0] == "ok"
        assert "preloaded" in dict(fingerprint(one))["library"] and "not" not in dict(fingerprint(one))["library"]
        one.execute("SET skill_system.allow_unprotected = on")
        assert one.execute(check).fetchone()[0] == "warning"
        # Loaded by a session, the library does not pretend.
        other.execute("LOAD 'skill_system'")
        assert other.execute(check).fetchone()[0] == "warning"
        assert "not preloaded" in dict(fingerprint(other))["library"]
        assert (
            other.execute("SELECT status FROM skill_system.health() WHERE \"check\" = 'audit_protection'").fetchone()[0]
            == "ok"
        )


def test_a_table_in_the_place_of_a_partition_is_found(unguarded):
    with unguarded.connect("chief") as chief:
        attack(chief, "CREATE TABLE skill_system.audit_logs_2099_01 (id uuid)", "it is detached from audit_logs")
        attack(chief, "CREATE TABLE skill_system.audit_more AS SELECT 1 AS id", "the extension ships no such table")
        attack(
            chief,
            "CREATE TABLE skill_system.x (id uuid); ALTER TABLE skill_system.x RENAME TO audit_tiles_of_mine",
            "the extension ships no such table",
        )


def test_a_setting_that_opens_the_guard_is_in_the_fingerprint(guarded):
    with guarded.connect() as superuser:
        before = fingerprint(superuser)
        superuser.execute("BEGIN; ALTER ROLE other_owner SET skill_system.allow_unprotected = on")
        assert ("setting of other_owner in every database", "skill_system.allow_unprotected=on") in fingerprint(
            superuser
        )
        superuser.execute("ROLLBACK")
        assert fingerprint(superuser) == before


def test_the_fingerprint_depends_on_no_setting_and_no_session(unguarded):
    with unguarded.connect() as plain, unguarded.connect() as other:
        other.execute(
            "SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'SQL, DMY'; SET quote_all_identifiers = on; "
            "SET search_path = skill_system, public; SET IntervalStyle = 'iso_8601'"
        )
        assert fingerprint(plain) == fingerprint(other)
        assert other.execute("SHOW TimeZone").fetchone()[0] == "Asia/Kolkata"
        # Another session's change is seen at once, and its taking back as well.
        before = fingerprint(plain)
        other.execute("GRANT SELECT ON skill_system.audit_state TO other_owner")
        assert fingerprint(plain) != before
        other.execute("REVOKE SELECT ON skill_system.audit_state FROM other_owner")
        assert fingerprint(plain) == before
        # A role's name is part of it, and no row of a table's changes with it.
        other.execute("ALTER ROLE skill_system_agent RENAME TO renamed_agent")
        assert fingerprint(plain) != before
        other.execute("ALTER ROLE renamed_agent RENAME TO skill_system_agent")
        assert fingerprint(plain) == before
