"""CREATE EXTENSION where others have been before: in its schema, in its roles, in the database."""

import pytest
from psycopg import errors, sql

WORDS = ("agent", "reviewer", "auditor", "admin")


@pytest.fixture(scope="module")
def other(db):
    db.execute("DROP ROLE IF EXISTS was_here")
    db.execute("CREATE ROLE was_here LOGIN")
    yield "was_here"
    db.execute("DROP ROLE was_here")


@pytest.fixture
def place(db, fresh_database, connect):
    """A connection to a database without the extension, in a cluster that has its roles because of another one."""
    return connect(dbname=fresh_database(extension=False))


def install(connection):
    """Installs and removes the extension again; returns message, detail and hint of its warnings."""
    warnings = []

    def keep(notice):
        if notice.severity_nonlocalized == "WARNING":
            warnings.append((notice.message_primary, notice.message_detail, notice.message_hint))

    connection.add_notice_handler(keep)
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE EXTENSION skill_system")
    connection.remove_notice_handler(keep)
    return warnings


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("CREATE SCHEMA skill_system AUTHORIZATION was_here", "belongs to role"),
        (
            "CREATE SCHEMA skill_system; CREATE TABLE skill_system.t (); ALTER SCHEMA skill_system OWNER TO was_here",
            "belongs to role",
        ),
        (
            "CREATE SCHEMA skill_system; CREATE FUNCTION skill_system.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "not empty",
        ),
        ("CREATE SCHEMA skill_system; CREATE VIEW skill_system.audit_summary AS SELECT 1", "not empty"),
        ("CREATE SCHEMA skill_system; CREATE TYPE skill_system.run_status AS ENUM ()", "not empty"),
        ('CREATE SCHEMA skill_system; CREATE COLLATION skill_system.c FROM "C"', "not empty"),
        (
            "CREATE SCHEMA skill_system; CREATE OPERATOR skill_system.= (LEFTARG = text, RIGHTARG = text, FUNCTION = textne)",
            "not empty",
        ),
        ("CREATE SCHEMA skill_system; CREATE EXTENSION pg_trgm SCHEMA skill_system", "not empty"),
        ("CREATE SCHEMA skill_system; GRANT CREATE ON SCHEMA skill_system TO was_here", "may create objects"),
        ("CREATE SCHEMA skill_system; GRANT ALL ON SCHEMA skill_system TO PUBLIC", "may create objects"),
        (
            "CREATE SCHEMA skill_system; ALTER DEFAULT PRIVILEGES IN SCHEMA skill_system GRANT ALL ON TABLES TO was_here",
            "not empty",
        ),
        ("ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO was_here", "may create objects"),
    ],
)
def test_a_schema_that_is_not_only_the_installers(place, other, before, message):
    with place.transaction(force_rollback=True):
        place.execute(before)
        with pytest.raises(
            (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState), match=message
        ) as refused:
            with place.transaction():
                place.execute("CREATE EXTENSION skill_system")
        assert refused.value.diag.message_hint and refused.value.diag.message_detail
        assert place.execute("SELECT count(*) FROM pg_extension WHERE extname = 'skill_system'").fetchone() == (0,)


def test_an_empty_schema_of_the_installer_or_of_a_superuser(place, other):
    with place.transaction(force_rollback=True):
        place.execute("CREATE SCHEMA skill_system; GRANT USAGE ON SCHEMA skill_system TO was_here")
        install(place)
    with place.transaction(force_rollback=True):
        place.execute(
            "CREATE ROLE another_superuser SUPERUSER; CREATE SCHEMA skill_system AUTHORIZATION another_superuser"
        )
        install(place)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("attribute", ["LOGIN", "SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS"])
def test_roles_with_other_attributes(place, word, attribute):
    with place.transaction(force_rollback=True):
        place.execute(f"ALTER ROLE skill_system_{word} {attribute}")
        with pytest.raises(
            errors.InsufficientPrivilege, match=f'"skill_system_{word}" already exists with other'
        ) as refused:
            with place.transaction():
                place.execute("CREATE EXTENSION skill_system")
        # The hint heals.
        assert f"NO{attribute}" in refused.value.diag.message_hint
        place.execute(refused.value.diag.message_hint)
        install(place)


def test_roles_in_higher_roles(place, other):
    for grant in (
        "GRANT skill_system_admin TO skill_system_agent",
        "GRANT skill_system_reviewer TO was_here; GRANT was_here TO skill_system_agent",
        "CREATE ROLE another_superuser SUPERUSER; GRANT another_superuser TO skill_system_auditor",
    ):
        with place.transaction(force_rollback=True):
            place.execute(grant)
            with pytest.raises(errors.InsufficientPrivilege, match="is a member of role"):
                place.execute("CREATE EXTENSION skill_system")


def test_default_privileges_of_the_installer_open_nothing(place, other):
    with place.transaction(force_rollback=True):
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            place.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO was_here")
        place.execute("CREATE EXTENSION skill_system")
        assert (
            place.execute("""
            SELECT c.oid::regclass::text FROM pg_class c
            WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relacl::text LIKE '%was_here%'
            UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p
            WHERE p.pronamespace = 'skill_system'::regnamespace AND p.proacl::text LIKE '%was_here%'""").fetchall()
            == []
        )


def test_members_are_named(place, other):
    with place.transaction(force_rollback=True):
        place.execute("GRANT skill_system_admin TO was_here")
        ((message, detail, _),) = install(place)
        assert "have members" in message
        assert "skill_system_admin (" in detail and "was_here" in detail


def test_a_database_of_another_owner_is_named(place, other):
    def complaints():
        return [warning for warning in install(place) if "belongs to role" in warning[0]]

    place.execute(sql.SQL("ALTER DATABASE {} OWNER TO was_here").format(sql.Identifier(place.info.dbname)))
    try:
        ((message, _, hint),) = complaints()
        assert "was_here" in message
    finally:
        place.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(place.info.dbname)))
    assert "OWNER TO" in hint and complaints() == []
