"""The registry behind every client API: versions, statuses, approvals, history, permissions."""

import base64
import os
import threading

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import errors

from skills import approve, register

BODY = "---\nname: {name}\ndescription: Fills in forms. {more}\n---\n\nDo it.\n"
SCAN = (
    "SELECT id, namespace, skill_name, description, body_size, body_etag, created_at, updated_at, "
    "required_env_vars, metadata, scope "
    'FROM "skill_system"."skills" WHERE enabled = TRUE AND namespace = %s'
)


def register_named(connection, name, more="", namespace="default"):
    return register(connection, BODY.format(name=name, more=more), namespace)


def state(connection, name):
    return connection.execute(
        "SELECT status, enabled, current_version FROM skill_system.skills WHERE skill_name = %s", [name]
    ).fetchone()


def set_status(connection, skill, status, **more):
    """Of the newest version, unless one is given."""
    arguments = "".join(f", {name} => %s" for name in more)
    if "version" not in more:
        arguments += ", version => (SELECT version FROM skill_system.skill_version_list(%s) LIMIT 1)"
        more["skill"] = skill
    return connection.execute(
        f"SELECT version, status, current_version FROM skill_system.set_skill_status(%s, %s{arguments})",
        [skill, status, *more.values()],
    ).fetchone()


def history(connection, name):
    return connection.execute(
        "SELECT action, previous_status, status FROM skill_system.skill_history WHERE skill_name = %s "
        "ORDER BY revision",
        [name],
    ).fetchall()


def sqlstate(call, *arguments, **more):
    with pytest.raises(psycopg.Error) as told:
        call(*arguments, **more)
    return told.value.sqlstate


@pytest.fixture
def signed(db, database):
    db.execute(f'ALTER DATABASE "{database}" SET skill_system.signed_approvals = on')
    db.execute("SET skill_system.signed_approvals = on")
    yield
    db.execute(f'ALTER DATABASE "{database}" RESET skill_system.signed_approvals')
    db.execute("RESET skill_system.signed_approvals")


def test_a_served_version_stays_until_the_next_is_approved(db):
    register_named(db, "life", "1")
    one = db.execute("SELECT current_version FROM skill_system.skills WHERE skill_name = 'life'").fetchone()[0]
    assert state(db, "life") == ("draft", False, one)
    assert db.execute(SCAN, ["default"]).fetchall() == []
    assert set_status(db, "life", "approved") == (one, "approved", one)
    assert state(db, "life") == ("approved", True, one)
    register_named(db, "life", "2")
    assert state(db, "life") == ("approved", True, one), "a draft took the place of what is approved"
    two = set_status(db, "life", "approved")[0]
    assert two != one and state(db, "life") == ("approved", True, two)
    assert "2" in db.execute("SELECT description FROM skill_system.skills WHERE skill_name = 'life'").fetchone()[0]
    # An earlier one again, by its version.
    assert set_status(db, "life", "approved", version=one) == (one, "approved", one)
    assert state(db, "life") == ("approved", True, one)
    assert set_status(db, "life", "disabled", version=one) == (one, "disabled", one)
    assert state(db, "life") == ("disabled", False, one)
    assert history(db, "life") == [
        ("registered", None, "draft"),
        ("status", "draft", "approved"),
        ("registered", None, "draft"),
        ("status", "draft", "approved"),
        ("current", "approved", "approved"),
        ("status", "approved", "disabled"),
    ]
    revisions = [
        row[0]
        for row in db.execute("SELECT revision FROM skill_system.skill_history WHERE namespace = 'default' ORDER BY 1")
    ]
    assert revisions == list(range(1, len(revisions) + 1))
    records = db.execute(
        "SELECT event_type, event_data->>'from', event_data->>'to' FROM skill_system.audit_logs "
        "WHERE event_data->>'skill_name' = 'life' ORDER BY (event_data->>'revision')::int"
    ).fetchall()
    assert records == [(f"skill.{action}", before, after) for action, before, after in history(db, "life")]


def test_the_same_content_is_the_same_version(db):
    assert register_named(db, "same")[-1] is True
    before = history(db, "same")
    again = register_named(db, "same")
    assert again[-1] is False and history(db, "same") == before
    assert db.execute(
        "SELECT count(*) FROM skill_system.skill_versions v "
        "JOIN skill_system.skill_heads h ON h.id = v.skill_id WHERE h.skill_name = 'same'"
    ).fetchone() == (1,)


def test_versions_and_history_do_not_change(db):
    register_named(db, "fixed")
    for sql in (
        "UPDATE skill_system.skill_versions SET body = 'x'",
        "UPDATE skill_system.skill_versions SET about = '{}'",
        "UPDATE skill_system.skill_history SET changed_by = 'x'",
        "DELETE FROM skill_system.skill_history",
        "TRUNCATE skill_system.skill_history",
        "UPDATE skill_system.skill_files SET path = 'x'",
    ):
        if "skill_files" in sql and db.execute("SELECT count(*) FROM skill_system.skill_files").fetchone() == (0,):
            db.execute(
                "SELECT skill_system.register_skill(%s, files => %s)",
                [BODY.format(name="with-file", more=""), '{"references/a.md": "a"}'],
            )
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            db.execute(sql)


def test_what_is_not_there(db):
    register_named(db, "there")
    assert sqlstate(set_status, db, "nowhere", "approved") == "SK404"
    assert sqlstate(set_status, db, "other-team/there", "approved") == "SK404"
    assert sqlstate(set_status, db, "01900000-0000-7000-8000-000000000001", "approved") == "SK404"
    assert sqlstate(set_status, db, "there", "approved", version="0123456789ab") == "SK405"
    assert sqlstate(set_status, db, "there", "Approved") == "22023"
    assert sqlstate(set_status, db, None, "approved") == "22023"
    assert sqlstate(set_status, db, "there", None) == "22023"
    # The states can be caught by their names in PL/pgSQL.
    db.execute(
        "DO $$ BEGIN PERFORM skill_system.skill_approval_text('nowhere'); "
        "RAISE 'not reached'; EXCEPTION WHEN SQLSTATE 'SK404' THEN NULL; END $$"
    )
    with db.transaction():
        assert (
            sqlstate(
                lambda: db.transaction().__enter__().connection.execute("SELECT skill_system.delete_skill('nowhere')")
            )
            == "SK404"
        )


def test_a_deleted_skill_leaves_its_history_and_its_name(db):
    register_named(db, "gone", "1")
    set_status(db, "gone", "approved")
    skill = db.execute("SELECT id FROM skill_system.skills WHERE skill_name = 'gone'").fetchone()[0]
    assert db.execute("SELECT skill_system.delete_skill('gone', 'replaced')").fetchone() == (True,)
    assert state(db, "gone") is None and sqlstate(set_status, db, "gone", "approved") == "SK404"
    assert sqlstate(set_status, db, str(skill), "approved") == "SK404"
    assert history(db, "gone")[-1] == ("deleted", "approved", None)
    register_named(db, "gone", "2")
    assert db.execute("SELECT id FROM skill_system.skills WHERE skill_name = 'gone'").fetchone()[0] != skill
    assert db.execute("SELECT count(*) FROM skill_system.skill_versions WHERE skill_id = %s", [skill]).fetchone() == (
        1,
    )


def sign(connection, key, skill, **more):
    text = connection.execute(
        "SELECT skill_system.skill_approval_text(%s, %s)", [skill, more.get("version")]
    ).fetchone()[0]
    return "v1:" + base64.urlsafe_b64encode(key.sign(text.encode())).decode().rstrip("=")


def test_signed_approvals(db, signed, connect, roles):
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key_id = db.execute("SELECT skill_system.add_skill_approver(%s, 'alice')", [pem]).fetchone()[0]
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    assert sqlstate(db.execute, "SELECT skill_system.add_skill_approver(%s, 'alice again')", [raw]) == "23505"
    register_named(db, "signed", "1")
    register_named(db, "twin", "1")
    reviewer = connect("test_reviewer")
    assert sqlstate(set_status, reviewer, "signed", "approved") == "SK403", "no signature"
    assert sqlstate(set_status, reviewer, "signed", "approved", signature=sign(db, other, "signed")) == "SK403", (
        "another key's signature"
    )
    assert sqlstate(set_status, reviewer, "signed", "approved", signature=sign(db, key, "twin")) == "SK403", (
        "the signature of another skill"
    )
    for broken in (
        "",
        "v1:",
        "v1:AAAA",
        "v3:" + sign(db, key, "signed")[3:],
        sign(db, key, "signed")[:-2],
        "v1:" + "A" * 86,
        "x" * 100_000,
    ):
        assert sqlstate(set_status, reviewer, "signed", "approved", signature=broken) == "SK403", broken[:20]
    good = sign(db, key, "signed")
    version = set_status(reviewer, "signed", "approved", signature=good)[0]
    assert state(db, "signed") == ("approved", True, version)
    assert db.execute(
        "SELECT approved_with, changed_by FROM skill_system.skill_history WHERE skill_name = 'signed' "
        "AND status = 'approved'"
    ).fetchone() == (f"{key_id} {good}", "test_reviewer")
    # The next version needs its own.
    register_named(db, "signed", "2")
    assert sqlstate(set_status, reviewer, "signed", "approved", signature=good) == "SK403"
    assert state(db, "signed")[2] == version
    # Also under a setting that does not ask for it a wrong signature approves nothing.
    db.execute("SET skill_system.signed_approvals = off")
    assert sqlstate(set_status, db, "signed", "approved", signature=good) == "SK403"
    assert set_status(db, "signed", "approved")[1] == "approved"
    # What is revoked signs no more; what it approved stays.
    register_named(db, "signed", "3")
    last = sign(db, key, "signed")
    assert db.execute("SELECT skill_system.revoke_skill_approver(%s)", [key_id]).fetchone() == (True,)
    assert db.execute("SELECT skill_system.revoke_skill_approver(%s)", [key_id]).fetchone() == (False,)
    assert sqlstate(set_status, reviewer, "signed", "approved", signature=last) == "SK403"
    assert sqlstate(db.execute, "SELECT skill_system.add_skill_approver(%s, 'alice')", [pem]) == "23505", (
        "a revoked key came back"
    )
    assert sqlstate(db.execute, "SELECT skill_system.revoke_skill_approver('0000000000000000')") == "42704"
    for bad in ("", "x", "00" * 31, "01" + "00" * 31, None):
        assert sqlstate(db.execute, "SELECT skill_system.add_skill_approver(%s, 'eve')", [bad]) == "22023", bad


def test_the_setting_is_a_superusers(db, database, signed, roles):
    """Also for a session that gives it a value before the library is loaded, when the server cannot yet refuse it."""
    for value in ("off", "default", "", "nonsense", "on"):
        with psycopg.connect(
            host=os.environ["PGHOST"],
            port=os.environ["PGPORT"],
            user="test_reviewer",
            dbname=database,
            autocommit=True,
            options=f"-c skill_system.signed_approvals={value}",
        ) as reviewer:
            for _ in range(2):
                with pytest.raises(errors.InsufficientPrivilege, match="signed_approvals"):
                    reviewer.execute("SELECT skill_system.set_skill_status('agents-own', 'approved')")
    with psycopg.connect(
        host=os.environ["PGHOST"], port=os.environ["PGPORT"], user="test_reviewer", dbname=database, autocommit=True
    ) as reviewer:
        reviewer.execute("BEGIN")
        reviewer.execute("SET LOCAL skill_system.signed_approvals = off")
        reviewer.execute("SELECT skill_system.current_tenant()")
        assert reviewer.execute("SHOW skill_system.signed_approvals").fetchone() == ("on",)
        reviewer.execute("ROLLBACK")
        assert reviewer.execute("SHOW skill_system.signed_approvals").fetchone() == ("on",)


def test_who_may_what(db, connect, roles):
    agent, reviewer, auditor, admin = (connect(role) for role in roles)
    register_named(agent, "agents-own", "1")
    for connection in (agent, auditor):
        with pytest.raises(errors.InsufficientPrivilege):
            set_status(connection, "agents-own", "approved")
    for connection in (agent, reviewer, auditor):
        for sql in (
            "SELECT skill_system.delete_skill('agents-own')",
            f"SELECT skill_system.add_skill_approver('{'11' * 32}', 'eve')",
            "SELECT skill_system.revoke_skill_approver('0000000000000000')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(sql)
    for connection in (agent, reviewer, auditor, admin):
        for table in (
            "skill_heads",
            "skill_versions",
            "skill_files",
            "skill_history",
            "skill_approvers",
            "skill_namespaces",
        ):
            connection.execute(f"SELECT count(*) FROM skill_system.{table}")
            for sql in (
                f"DELETE FROM skill_system.{table}",
                f"UPDATE skill_system.{table} SET tenant_id = 'x'",
                f"INSERT INTO skill_system.{table} DEFAULT VALUES",
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(sql)
    assert set_status(reviewer, "agents-own", "approved")[1] == "approved"
    assert db.execute(
        "SELECT changed_by FROM skill_system.skill_history WHERE skill_name = 'agents-own' ORDER BY revision"
    ).fetchall() == [("test_agent",), ("test_reviewer",)]
    assert admin.execute("SELECT skill_system.delete_skill('agents-own')").fetchone() == (True,)


def test_tenants_do_not_see_each_other(db, connect, roles):
    register_named(db, "mine")
    try:
        db.execute("SET skill_system.tenant = 'elsewhere'")
        assert db.execute(
            "SELECT count(*) FROM skill_system.skill_heads WHERE skill_name = 'mine' AND tenant_id = 'elsewhere'"
        ).fetchone() == (0,)
        assert sqlstate(set_status, db, "mine", "approved") == "SK404"
        register_named(db, "mine", "other")
        assert set_status(db, "mine", "approved")[1] == "approved"
        assert '"tenant":"elsewhere"' in db.execute("SELECT skill_system.skill_approval_text('mine')").fetchone()[0]
    finally:
        db.execute("RESET skill_system.tenant")
    agent = connect("test_agent")
    assert agent.execute("SELECT status FROM skill_system.skills WHERE skill_name = 'mine'").fetchall() == [("draft",)]


def test_two_at_once(connect, db):
    """Sixteen sessions register versions of two skills: each version once, revisions without gaps."""
    problems = []

    def work(n):
        try:
            connection = connections[n]
            for i in range(10):
                register_named(connection, f"race-{i % 2}", str(i), "race")
        except psycopg.Error as error:
            problems.append(error)

    connections = [connect() for _ in range(16)]
    threads = [threading.Thread(target=work, args=[n]) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert db.execute(
        "SELECT count(*), count(DISTINCT (skill_id, digest)), count(DISTINCT skill_id) "
        "FROM skill_system.skill_versions WHERE skill_id IN (SELECT id FROM skill_system.skill_heads "
        "WHERE namespace = 'race')"
    ).fetchone() == (10, 10, 2)
    revisions = [
        row[0]
        for row in db.execute("SELECT revision FROM skill_system.skill_history WHERE namespace = 'race' ORDER BY 1")
    ]
    assert revisions == list(range(1, len(revisions) + 1))


def test_a_scan_reads_no_body(db):
    big = "x" * 20_000
    for n in range(20):
        register_named(db, f"big-{n}", f"{n} {big}"[:900], "bodies")
        approve(db, f"bodies/big-{n}")
    plan = "\n".join(
        row[0] for row in db.execute("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) " + SCAN, ["bodies"])
    )
    assert "skill_heads" in plan and "skill_versions" not in plan
    body = db.execute(
        'SELECT body FROM "skill_system"."skills" '
        "WHERE id = (SELECT id FROM skill_system.skills WHERE skill_name = %s) AND namespace = %s",
        ["big-3", "bodies"],
    ).fetchone()[0]
    assert body.startswith("---\nname: big-3")
