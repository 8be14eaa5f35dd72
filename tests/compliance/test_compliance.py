"""Compliance: two sessions at once, rights, tenants, other people's validators, and the signed document."""

import json
import os
import random
import subprocess
import threading
import uuid

import jsonschema
import psycopg
import pytest
import regex
from conftest import ROOT
from psycopg import errors
from psycopg.types.json import Jsonb

from cluster import bindir, skill_verify_program

HERE = ROOT / "tests" / "compliance"


@pytest.fixture(scope="module")
def texas(db, database, roles):
    """300 entities of the demo's generator, its rules and templates."""
    done = subprocess.run(
        [f"{bindir()}/psql", "-Xq", "-d", database, "-v", "entities=300", "-f", str(ROOT / "demo" / "texas.sql")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return db


def begin(connection, domain="rule_37", entity=None):
    return connection.execute(
        "SELECT checklist_id FROM skill_system.create_checklist(%s, 'well', %s)",
        [entity or f"42-{uuid.uuid4().hex[:8]}", domain],
    ).fetchone()[0]


def complete(connection, checklist):
    for (index,) in connection.execute("SELECT item_index FROM skill_system.missing_items(%s)", [checklist]).fetchall():
        connection.execute("SELECT skill_system.update_checklist_item(%s, %s, 'complete')", [checklist, index])


def approve(connection, checklist):
    complete(connection, checklist)
    connection.execute("SELECT skill_system.submit_checklist(%s)", [checklist])
    connection.execute(
        "SELECT skill_system.review_checklist(id, 'approved', 'j.doe', expected_version => version) "
        "FROM skill_system.filing_checklists WHERE id = %s",
        [checklist],
    )


def publish(connection, identifier, data=None, date="2026-01-01"):
    return connection.execute(
        "SELECT version, stale_snapshots FROM skill_system.publish_rule(%s, 'spacing', %s, %s, 'manual')",
        [identifier, date, Jsonb(data or {"feet": random.random()})],
    ).fetchone()


def status(connection, checklist):
    return connection.execute(
        "SELECT status FROM skill_system.filing_checklists WHERE id = %s", [checklist]
    ).fetchone()[0]


class Later:
    """A statement in another session that is expected to wait."""

    def __init__(self, connection, sql, arguments=()):
        self.connection, self.error, self.row = connection, None, None

        def run():
            try:
                self.row = connection.execute(sql, arguments).fetchone()
            except psycopg.Error as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def waits(self, watcher):
        for _ in range(200):
            if watcher.execute(
                "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
                [self.connection.info.backend_pid],
            ).fetchone()[0]:
                return True
            if not self.thread.is_alive():
                return False
            threading.Event().wait(0.02)
        return False

    def end(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self


def test_versions_are_gapless_with_16_publishers(db, texas, connect):
    failed = []

    def work(connection):
        try:
            for _ in range(10):
                publish(connection, "RACE")
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(connect(),)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    versions = [
        row[0]
        for row in db.execute(
            "SELECT version FROM skill_system.rule_versions WHERE rule_identifier = 'RACE' ORDER BY version"
        )
    ]
    assert versions == list(range(1, 161))
    assert db.execute(
        "SELECT count(*) FROM skill_system.rule_versions WHERE rule_identifier = 'RACE' AND status = 'active'"
    ).fetchone() == (1,)
    # No two are in force on one day, for the constraint and for the functions.
    assert db.execute(
        "SELECT count(*) FROM skill_system.rule_versions a JOIN skill_system.rule_versions b ON a.id < b.id "
        "AND a.rule_identifier = b.rule_identifier "
        "AND daterange(a.effective_date, a.superseded_date) && daterange(b.effective_date, b.superseded_date)"
    ).fetchone() == (0,)


def test_the_constraint_tells_rules_and_tenants_apart_exactly(db, texas):
    insert = (
        "INSERT INTO skill_system.rule_versions (tenant_id, rule_type, rule_domain, rule_identifier, version, "
        "effective_date, source, rule_data, content_sha256) "
        "VALUES (%s, 'statewide', 'x', %s, 1, '2020-01-01', 'manual', '{}', 'x')"
    )
    for tenant, identifier in [
        ("t", "ab"),
        ("ta", "b"),
        ("t", "a"),
        ("t", "A"),
        ("t", "ab "),
        ("t", "é"),
        ("t", "e\u0301"),
        ("t", "\u0001"),
        ("t", "a" * 255),
        ("t", "a" * 254),
        ("t2", "ab"),
    ]:
        db.execute(insert, [tenant, identifier])
    with pytest.raises(errors.UniqueViolation):
        db.execute(insert, ["t", "ab"])
    for identifier in ("ab", "a" * 102, "a" * 103, "é" * 255, "a" * 255):
        with db.transaction(force_rollback=True):
            db.execute(insert + " ON CONFLICT DO NOTHING", ["t", identifier])
            # Any day but those before the first version is taken; another rule of the same length is not concerned.
            db.execute(insert.replace("1, '2020", "2, '2021"), ["t", identifier[:-1] + "z"])
            with pytest.raises(errors.ExclusionViolation):
                db.execute(insert.replace("1, '2020", "2, '2021"), ["t", identifier])


INSERT_VERSION = (
    "INSERT INTO skill_system.rule_versions (rule_type, rule_domain, rule_identifier, version, effective_date, "
    "superseded_date, status, source, rule_data, content_sha256) "
    "VALUES ('statewide', 'x', %s, %s, %s, %s, %s, 'manual', '{}', 'x') RETURNING version"
)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("length", [8, 255])
def test_the_constraint_holds_between_sessions(db, texas, connect, known, length):
    one, two = connect(), connect()
    identifier = uuid.uuid4().hex[:8] + "x" * (length - 8)
    if known:
        db.execute(INSERT_VERSION, [identifier, 1, "2000-01-01", "2001-01-01", "superseded"])
    # The second session waits for the first, whose number of the rule and whose period it needs, and is refused.
    with one.transaction():
        one.execute(INSERT_VERSION, [identifier, 2, "2020-01-01", "2022-01-01", "superseded"])
        overlap = Later(two, INSERT_VERSION, [identifier, 3, "2021-12-31", None, "active"])
        assert overlap.waits(db)
    assert overlap.end().error.sqlstate == "23P01"
    # A period that begins where the other ends is none of its business, nor is one of a draft; a rollback frees the days.
    with one.transaction(force_rollback=True):
        one.execute(INSERT_VERSION, [identifier, 4, "2022-01-01", "2023-01-01", "superseded"])
        two.execute(INSERT_VERSION, [identifier, 5, "2021-01-01", None, "draft"])
        overlap = Later(two, INSERT_VERSION, [identifier, 6, "2022-06-01", None, "active"])
        assert overlap.waits(db)
    assert overlap.end().error is None
    with pytest.raises(errors.ExclusionViolation):
        db.execute(
            "UPDATE skill_system.rule_versions SET status = 'active' WHERE rule_identifier = %s AND version = 5",
            [identifier],
        )


def test_the_number_of_a_rule_cannot_be_that_of_another(db, texas):
    with db.transaction(force_rollback=True):
        db.execute(INSERT_VERSION, ["NUMBER-A", 1, "2020-01-01", None, "active"])
        with pytest.raises(errors.ForeignKeyViolation), db.transaction():
            db.execute(
                "INSERT INTO skill_system.rule_versions SELECT (jsonb_populate_record(v, "
                "jsonb_build_object('id', skill_system.uuid_v7(), 'rule_identifier', 'NUMBER-B', 'status', 'draft'))).* "
                "FROM skill_system.rule_versions v WHERE rule_identifier = 'NUMBER-A'"
            )
        with pytest.raises(psycopg.Error) as told, db.transaction():
            db.execute("UPDATE skill_system.rule_versions SET rule_key = 1 WHERE rule_identifier = 'NUMBER-A'")
        assert told.value.sqlstate == "55000"


def test_two_people_do_not_lose_each_others_items(db, texas, connect):
    checklist = begin(db)
    connections = [connect() for _ in range(3)]

    def work(n):
        for i in range(20):
            connections[n].execute(
                "SELECT skill_system.update_checklist_item(%s, %s, 'in_progress', note => %s)",
                [checklist, n, f"note {i} of {n}"],
            )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items, version = db.execute(
        "SELECT items, version FROM skill_system.filing_checklists WHERE id = %s", [checklist]
    ).fetchone()
    assert [item.get("note") for item in items[:3]] == [f"note 19 of {n}" for n in range(3)]
    assert version == 61
    with pytest.raises(errors.SerializationFailure) as told:
        db.execute("SELECT skill_system.update_checklist_item(%s, 0, 'complete', expected_version => 60)", [checklist])
    assert "61" in str(told.value) and told.value.diag.message_hint


def test_submit_against_edit(db, texas, connect):
    one, two = connect(), connect()
    checklist = begin(db)
    complete(db, checklist)
    with one.transaction():
        one.execute("SELECT skill_system.update_checklist_item(%s, 0, 'blocked')", [checklist])
        submit = Later(two, "SELECT status FROM skill_system.submit_checklist(%s)", [checklist])
        assert submit.waits(db)
    # The submission sees the edit it waited for, and is refused.
    assert submit.end().error.sqlstate == "55000" and "blocked" in submit.error.diag.message_detail
    complete(db, checklist)
    with one.transaction():
        one.execute("SELECT skill_system.submit_checklist(%s)", [checklist])
        edit = Later(two, "SELECT status FROM skill_system.update_checklist_item(%s, 0, 'pending')", [checklist])
        assert edit.waits(db)
    assert edit.end().error.sqlstate == "55000"
    assert status(db, checklist) == "ready_for_review"


def test_publish_against_snapshot(db, texas, connect):
    publish(db, "SNAP", {"feet": 1})
    one, two = connect(), connect()
    stale = (
        "SELECT frozen_version, current_version FROM skill_system.stale_filings() WHERE checklist_id = %s "
        "AND rule_identifier = 'SNAP'"
    )
    # A filing that began before the new version was committed is marked by it.
    with one.transaction():
        checklist = begin(one)
        later = Later(
            two,
            "SELECT stale_snapshots FROM skill_system.publish_rule('SNAP', 'spacing', '2026-01-02', "
            "'{\"feet\": 2}', 'manual')",
        )
        assert later.waits(db)
    assert later.end().error is None
    assert db.execute(stale, [checklist]).fetchone() == (1, 2)
    # One that begins while a version is being published waits for it and freezes the new one.
    with one.transaction():
        publish(one, "SNAP", {"feet": 3}, "2026-01-03")
        later = Later(two, "SELECT checklist_id FROM skill_system.create_checklist('42-later', 'well', 'rule_37')")
        assert later.waits(db)
    checklist = later.end().row[0]
    assert db.execute(
        "SELECT v.version, s.is_current FROM skill_system.filing_rule_snapshots s "
        "JOIN skill_system.rule_versions v ON v.id = s.rule_version_id "
        "WHERE s.checklist_id = %s AND v.rule_identifier = 'SNAP'",
        [checklist],
    ).fetchall() == [(3, True)]


def test_acknowledge_against_publish(db, texas, connect):
    publish(db, "ACK", {"feet": 1})
    checklist = begin(db)
    publish(db, "ACK", {"feet": 2})
    snapshot = db.execute(
        "SELECT snapshot_id FROM skill_system.stale_filings(max_rows => 10000) WHERE checklist_id = %s "
        "AND rule_identifier = 'ACK'",
        [checklist],
    ).fetchone()[0]
    one, two = connect(), connect()
    with one.transaction():
        publish(one, "ACK", {"feet": 3})
        later = Later(two, "SELECT skill_system.acknowledge_stale(%s, 'ann', 'seen', 2)", [snapshot])
        assert later.waits(db)
    assert later.end().error.sqlstate == "40001"
    with one.transaction():
        one.execute("SELECT skill_system.acknowledge_stale(%s, 'ann', 'seen', 3)", [snapshot])
        later = Later(
            two,
            "SELECT version FROM skill_system.publish_rule('ACK', 'spacing', '2026-01-01', '{\"feet\": 4}', 'manual')",
        )
        assert later.waits(db)
    later.end()
    assert db.execute(
        "SELECT acknowledged, acknowledged_by FROM skill_system.filing_rule_snapshots WHERE id = %s", [snapshot]
    ).fetchone() == (False, None)


def test_file_against_publish(db, texas, connect):
    publish(db, "FILE", {"feet": 1})
    checklists = [begin(db), begin(db)]
    for checklist in checklists:
        approve(db, checklist)
    one, two = connect(), connect()
    with one.transaction():
        publish(one, "FILE", {"feet": 2})
        later = Later(two, "SELECT status FROM skill_system.file_checklist(%s)", [checklists[0]])
        assert later.waits(db)
    assert later.end().error.sqlstate == "55000" and "feet: 1 → 2" in later.error.diag.message_detail
    # Also when the filer's transaction began before, and does not see the new version.
    with two.transaction():
        two.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        two.execute("SELECT count(*) FROM skill_system.rule_versions")
        publish(db, "FILE", {"feet": 3})
        with pytest.raises(psycopg.Error) as told:
            with two.transaction():
                two.execute("SELECT skill_system.file_checklist(%s)", [checklists[1]])
        assert told.value.sqlstate in ("55000", "40001")
    assert [status(db, checklist) for checklist in checklists] == ["approved", "approved"]


def test_an_old_snapshot_freezes_nothing(db, texas, connect):
    publish(db, "OLD", {"feet": 1})
    one = connect()
    for change in (lambda: publish(db, "OLD", {"feet": 2}), lambda: publish(db, "NEW", {"feet": 1})):
        with pytest.raises(errors.SerializationFailure):
            with one.transaction():
                one.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                one.execute("SELECT count(*) FROM skill_system.rule_versions")
                change()
                begin(one)
    with one.transaction():
        one.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        checklist = begin(one)
    assert db.execute(
        "SELECT count(*) FROM skill_system.filing_rule_snapshots s "
        "JOIN skill_system.rule_versions v ON v.id = s.rule_version_id "
        "WHERE checklist_id = %s AND rule_identifier IN ('OLD', 'NEW')",
        [checklist],
    ).fetchone() == (2,)


def test_a_snapshot_that_would_be_too_large_is_refused(db, texas):
    checklist = begin(db)
    add = (
        "SELECT count(skill_system.add_artifact(%s, 0, 'plat_draft', 'plat.md', '# Plat', "
        "metadata => jsonb_build_object('x', repeat('x', 1000000)))) FROM generate_series(1, %s)"
    )
    db.execute(add, [checklist, 5])
    length = db.execute("SELECT length(skill_system.compliance_snapshot(%s)::text)", [checklist]).fetchone()[0]
    assert length > 5_000_000
    db.execute(add, [checklist, 70])
    with pytest.raises(errors.ProgramLimitExceeded, match="the snapshot would have 75"):
        db.execute("SELECT skill_system.compliance_snapshot(%s)", [checklist])


def test_two_filings_of_one_cell(db, texas, connect):
    one, two = connect(), connect()
    with one.transaction():
        first = begin(one, entity="42-cell")
        later = Later(two, "SELECT checklist_id FROM skill_system.create_checklist('42-cell', 'well', 'rule_37')")
        assert later.waits(db)
    second = later.end().row[0]
    approve(db, first)
    # The newest filing decides.
    assert db.execute(
        "SELECT status, checklist_id FROM skill_system.compliance_status WHERE entity_id = '42-cell'"
    ).fetchall() == [("action_needed", second)]
    db.execute("DELETE FROM skill_system.filing_checklists WHERE id = %s", [second])
    assert db.execute(
        "SELECT status, checklist_id FROM skill_system.compliance_status WHERE entity_id = '42-cell'"
    ).fetchall() == [("in_review", first)]
    db.execute("DELETE FROM skill_system.filing_checklists WHERE id = %s", [first])
    assert db.execute(
        "SELECT status, checklist_id FROM skill_system.compliance_status WHERE entity_id = '42-cell'"
    ).fetchall() == [("action_needed", None)]


def test_nothing_half_written(db, texas):
    counts = (
        "SELECT (SELECT count(*) FROM skill_system.filing_checklists), (SELECT count(*) "
        "FROM skill_system.rule_versions), (SELECT count(*) "
        "FROM skill_system.checklist_artifacts), (SELECT count(*) FROM skill_system.audit_logs)"
    )
    checklist = begin(db)
    before = db.execute(counts).fetchone()
    deep = "[" * 500 + "]" * 500
    for sql, arguments, state in [
        (
            "SELECT skill_system.create_checklist('x', 'well', 'rule_37', metadata => %s::jsonb)",
            [json.dumps({"a": json.loads(deep)})],
            "54000",
        ),
        ("SELECT skill_system.update_checklist_item(%s, 0, 'complete', data => %s::jsonb)", [checklist, deep], "54000"),
        (
            "SELECT skill_system.update_checklist_item(%s, 0, 'complete', data => %s)",
            [checklist, Jsonb("x" * 100_000)],
            "54000",
        ),
        (
            "SELECT skill_system.publish_rule('DEEP', 'x', '2026-01-01', %s::jsonb, 'manual')",
            ['{"a": ' + deep + "}"],
            "54000",
        ),
        (
            "SELECT skill_system.publish_rule('LARGE', 'x', '2026-01-01', %s, 'manual')",
            [Jsonb({"a": "x" * 2_000_000})],
            "54000",
        ),
        ("SELECT skill_system.add_artifact(%s, 0, 'document', 'x', %s)", [checklist, "x" * 10_485_760], "54000"),
        ("SELECT skill_system.add_artifact(%s, 0, 'document', 'x', 'x')", [uuid.uuid4()], "42704"),
        ("SELECT skill_system.create_checklist(NULL, 'well', 'rule_37')", [], "22023"),
        ("SELECT skill_system.submit_checklist(NULL)", [], "22023"),
        ("SELECT skill_system.create_checklist('x', 'well', 'rule_37', deadline => '-infinity')", [], "22023"),
    ]:
        with pytest.raises(psycopg.Error) as told:
            db.execute(sql, arguments)
        assert told.value.sqlstate == state, (sql, told.value)
    assert db.execute(counts).fetchone() == before


def test_rights(texas, connect):
    checklist = begin(connect("test_agent"))
    complete(connect("test_agent"), checklist)
    connect("test_agent").execute("SELECT skill_system.submit_checklist(%s)", [checklist])
    allowed = {
        "agent": [
            "SELECT skill_system.propose_rule('ROLE', 'x', '2026-01-01', '{}', 'rule_monitor_agent')",
            "SELECT * FROM skill_system.stale_filings()",
            "SELECT * FROM skill_system.compliance_matrix()",
        ],
        "reviewer": [
            (
                "SELECT skill_system.review_rule((SELECT id FROM skill_system.rule_versions "
                "WHERE rule_identifier = 'ROLE' ORDER BY version LIMIT 1), 'approved')"
            ),
            "SELECT skill_system.review_checklist(id, 'approved', expected_version => version) "
            f"FROM skill_system.filing_checklists WHERE id = '{checklist}'",
            f"SELECT skill_system.compliance_snapshot('{checklist}')",
        ],
        "auditor": [
            "SELECT * FROM skill_system.compliance_counts",
            "SELECT skill_system.compliance_report()",
            f"SELECT skill_system.compliance_snapshot('{checklist}')",
        ],
        "admin": [
            "SELECT skill_system.publish_rule('ROLE', 'x', '2026-01-01', '{}', 'manual')",
            "SELECT skill_system.create_template('new', '[{\"label\": \"x\"}]')",
            "INSERT INTO skill_system.entity_type_definitions (type_key, display_name) VALUES ('rig', 'Rig')",
            "SELECT skill_system.assess_compliance('default', 'e', 'well', 'form_pr', 'compliant')",
        ],
    }
    refused = {
        "agent": [
            "SELECT skill_system.publish_rule('ROLE', 'x', '2026-01-01', '{}', 'manual')",
            "SELECT skill_system.review_checklist(id, 'approved', expected_version => version) "
            f"FROM skill_system.filing_checklists WHERE id = '{checklist}'",
            f"SELECT skill_system.mark_exception('{checklist}', 'x')",
            "SELECT skill_system.acknowledge_stale(NULL, 'x', 'x')",
            "SELECT skill_system.assess_compliance('default', 'e', 'well', 'form_pr', 'compliant')",
            f"SELECT skill_system.compliance_snapshot('{checklist}')",
            "UPDATE skill_system.filing_checklists SET status = 'approved'",
            "INSERT INTO skill_system.rule_versions (rule_identifier) VALUES ('x')",
            "UPDATE skill_system.compliance_status SET status = 'compliant'",
            "DELETE FROM skill_system.filing_rule_snapshots",
            "INSERT INTO skill_system.entity_type_definitions (type_key, display_name) VALUES ('y', 'Y')",
        ],
        "reviewer": [
            "SELECT skill_system.publish_rule('ROLE', 'x', '2026-01-01', '{}', 'manual')",
            "UPDATE skill_system.filing_checklists SET status = 'filed'",
        ],
        "auditor": [
            "SELECT skill_system.create_checklist('x', 'well', 'rule_37')",
            "SELECT skill_system.propose_rule('ROLE', 'x', '2026-01-01', '{}', 'manual')",
        ],
        "admin": [
            "SELECT skill_system.review_checklist(id, 'approved', expected_version => version) "
            f"FROM skill_system.filing_checklists WHERE id = '{checklist}'",
            "UPDATE skill_system.rule_versions SET status = 'draft'",
            (
                "INSERT INTO skill_system.entity_type_definitions (type_key, display_name, created_at) "
                "VALUES ('z', 'Z', '2000-01-01')"
            ),
        ],
    }
    for role, statements in allowed.items():
        for statement in statements:
            connect(f"test_{role}").execute(statement)
    for role, statements in refused.items():
        for statement in statements:
            with pytest.raises(errors.InsufficientPrivilege):
                connect(f"test_{role}").execute(statement)


def test_a_signed_filing_has_only_records_of_the_module(db, texas, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    checklist = begin(agent)
    data = {"checklist_id": str(checklist), "action": "review_checklist", "from": "in_review", "to": "approved"}
    for event_type in (
        "filing.reviewed",
        "Filing.reviewed",
        "filing.\u200breviewed",
        " filing.reviewed",
        "compliance.x",
    ):
        for call in ("append_audit", "log_denial"):
            with pytest.raises(errors.InsufficientPrivilege):
                agent.execute(f"SELECT skill_system.{call}(%s, %s, 'j.doe', 'user')", [event_type, Jsonb(data)])
        with pytest.raises(errors.InsufficientPrivilege):
            agent.execute(
                "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES (%s, %s)",
                [event_type, Jsonb(data)],
            )
    # A record of another type may name the filing, and is not evidence of it.
    agent.execute("SELECT skill_system.append_audit('review', %s, 'j.doe', 'user')", [Jsonb(data)])
    agent.execute("SELECT skill_system.log_denial('review.denied', %s, 'j.doe', 'user')", [Jsonb(data)])
    document = reviewer.execute("SELECT skill_system.compliance_snapshot(%s)", [checklist]).fetchone()[0]
    assert [entry["record"]["event_type"] for entry in document["payload"]["audit"]] == ["filing.created"]


@pytest.mark.parametrize("zone", ["UTC", "<X>-167", "<X>+167", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_day_of_the_rules_is_the_servers(db, texas, connect, zone):
    """Versions begin yesterday, today and tomorrow by UTC: the session's clock shows another day, and the same rules."""
    one = connect("test_agent")
    identifier = f"ZONE-{zone}"
    for days in (-1, 0, 1):
        db.execute(
            "SELECT skill_system.publish_rule(%s, 'zones', (now() AT TIME ZONE 'UTC')::date + %s::int, %s, 'manual')",
            [identifier, days, Jsonb({"day": days})],
        )
    db.execute("SELECT skill_system.create_template('zones', '[{\"label\": \"x\"}]', rule_domains => '{zones}')")
    one.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    checklist = begin(one, "zones")
    for call in ("SELECT 1", f"SELECT skill_system.snapshot_rules('{checklist}')"):
        one.execute(call)
        assert db.execute(
            "SELECT s.rule_data_at_snapshot->'day' FROM skill_system.filing_rule_snapshots s "
            "JOIN skill_system.rule_versions v ON v.id = s.rule_version_id "
            "WHERE checklist_id = %s AND rule_identifier = %s",
            [checklist, identifier],
        ).fetchall() == [(0,)]
    assert one.execute("SELECT rule_data->'day' FROM skill_system.rule_as_of(%s)", [identifier]).fetchone() == (0,)


def test_evidence_ends_with_the_approval(db, texas, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    add = "SELECT skill_system.add_artifact(%s, 0, 'waiver', %s, 'text')"
    checklist = begin(agent)
    approve(db, checklist)
    before = db.execute("SELECT count(*) FROM skill_system.checklist_artifacts").fetchone()
    for statement in (
        add,
        "SELECT skill_system.snapshot_rules(%s), %s::text",
        "SELECT skill_system.update_checklist_item(%s, 0, 'complete', note => %s)",
        "SELECT skill_system.submit_checklist(%s, %s)",
    ):
        for session in (agent, reviewer, db):
            with pytest.raises(errors.ObjectNotInPrerequisiteState):
                session.execute(statement, [checklist, "late"])
    agent.execute("SELECT skill_system.file_checklist(%s)", [checklist])
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        agent.execute(add, [checklist, "later"])
    assert db.execute("SELECT count(*) FROM skill_system.checklist_artifacts").fetchone() == before
    # Also for one who waited for the approval.
    checklist = begin(agent)
    complete(agent, checklist)
    agent.execute("SELECT skill_system.submit_checklist(%s)", [checklist])
    agent.execute(add, [checklist, "in time"])
    with reviewer.transaction():
        reviewer.execute(
            "SELECT skill_system.review_checklist(id, 'approved', expected_version => version) "
            "FROM skill_system.filing_checklists WHERE id = %s",
            [checklist],
        )
        late = Later(agent, add, [checklist, "late"])
        assert late.waits(db)
    assert late.end().error.sqlstate == "55000"


@pytest.mark.parametrize("time", ["infinity", "-infinity", "0001-12-31 BC", "10000-01-01", "294276-12-31"])
def test_absurd_times_are_refused(db, texas, connect, time):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    checklist = begin(agent)
    for session, statement, arguments in [
        (agent, "SELECT skill_system.create_checklist('e', 'well', 'rule_37', deadline => %s)", [time]),
        (agent, "SELECT skill_system.add_artifact(%s, 0, 'waiver', 'n', 'x', expires_at => %s)", [checklist, time]),
        (
            reviewer,
            "SELECT skill_system.assess_compliance('default', 'e', 'well', 'form_pr', 'action_needed', %s)",
            [time],
        ),
        (db, "SELECT skill_system.publish_rule('TIME', 'spacing', %s, '{}', 'manual')", [time]),
        (agent, "SELECT skill_system.propose_rule('TIME', 'spacing', %s, '{}', 'manual')", [time]),
        (db, INSERT_VERSION, ["TIME", 1, time, None, "draft"]),
        (db, INSERT_VERSION, ["TIME", 1, "2020-01-01", time, "draft"]),
        (db, "UPDATE skill_system.filing_checklists SET deadline = %s WHERE id = %s", [time, checklist]),
        (
            db,
            "INSERT INTO skill_system.compliance_status (entity_id, entity_type, compliance_domain, status, deadline) "
            "VALUES ('e', 'well', 'time', 'action_needed', %s)",
            [time],
        ),
    ]:
        with pytest.raises(psycopg.Error) as told:
            session.execute(statement, arguments)
        assert told.value.sqlstate == "22023", (statement, told.value)


def test_tenants(db, texas, connect):
    mine = begin(db)
    snapshot = db.execute(
        "SELECT id FROM skill_system.filing_rule_snapshots WHERE checklist_id = %s LIMIT 1", [mine]
    ).fetchone()[0]
    rule = db.execute("SELECT id FROM skill_system.rule_versions LIMIT 1").fetchone()[0]
    for role in ("agent", "reviewer", "admin"):
        db.execute(f"DROP ROLE IF EXISTS other_{role}")
        db.execute(f"CREATE ROLE other_{role} LOGIN IN ROLE skill_system_{role}")
        db.execute(f"ALTER ROLE other_{role} SET skill_system.tenant = 'other'")
    try:
        agent, reviewer, admin = (connect(f"other_{role}") for role in ("agent", "reviewer", "admin"))
        for connection, sql in [
            (agent, f"SELECT skill_system.update_checklist_item('{mine}', 0, 'complete')"),
            (agent, f"SELECT skill_system.submit_checklist('{mine}')"),
            (agent, f"SELECT skill_system.snapshot_rules('{mine}')"),
            (agent, f"SELECT skill_system.add_artifact('{mine}', 0, 'document', 'x', 'x')"),
            (agent, f"SELECT skill_system.file_checklist('{mine}')"),
            (agent, f"SELECT skill_system.missing_items('{mine}')"),
            (agent, f"SELECT skill_system.snapshot_diff('{snapshot}')"),
            (agent, f"SELECT skill_system.refresh_snapshot('{snapshot}')"),
            (agent, f"SELECT skill_system.diff_rules('{rule}', '{rule}')"),
            (agent, f"SELECT skill_system.submit_rule('{rule}')"),
            (reviewer, f"SELECT skill_system.review_checklist('{mine}', 'approved', expected_version => 1)"),
            (reviewer, f"SELECT skill_system.mark_exception('{mine}', 'x')"),
            (reviewer, f"SELECT skill_system.review_rule('{rule}', 'approved')"),
            (reviewer, f"SELECT skill_system.acknowledge_stale('{snapshot}', 'x', 'x')"),
            (reviewer, f"SELECT skill_system.compliance_snapshot('{mine}')"),
            (agent, "SELECT * FROM skill_system.create_checklist('x', 'well', 'rule_37')"),
            (agent, "SELECT * FROM skill_system.validate_entity('well', '{}')"),
            (reviewer, "SELECT skill_system.assess_compliance('other', '42-cell')"),
        ]:
            with pytest.raises(errors.UndefinedObject):
                connection.execute(sql)
        with pytest.raises(errors.InsufficientPrivilege):
            reviewer.execute("SELECT skill_system.assess_compliance('default', 'x', 'well', 'form_pr', 'compliant')")
        for sql in (
            "SELECT * FROM skill_system.stale_filings()",
            "SELECT * FROM skill_system.compliance_matrix()",
            "SELECT * FROM skill_system.compliance_counts",
            "SELECT * FROM skill_system.due_filings(10000)",
            "SELECT * FROM skill_system.rule_as_of('SWR_37')",
            "SELECT * FROM skill_system.filing_checklists",
            "SELECT * FROM skill_system.checklist_templates",
        ):
            assert agent.execute(sql).fetchall() == [], sql
        assert json.loads(agent.execute("SELECT skill_system.compliance_report('json')").fetchone()[0])["cells"] == 0
        # The same names are free, and what is created with them is theirs.
        assert publish(admin, "SWR_37")[0] == 1
        admin.execute("SELECT skill_system.create_template('rule_37', '[{\"label\": \"x\"}]')")
        theirs = begin(agent)
        assert db.execute(
            "SELECT tenant_id FROM skill_system.filing_checklists WHERE id = %s", [theirs]
        ).fetchone() == ("other",)
        assert db.execute(
            "SELECT DISTINCT tenant_id FROM skill_system.filing_rule_snapshots WHERE checklist_id = %s", [theirs]
        ).fetchall() == [("other",)]
        assert {
            row[0]
            for row in db.execute(
                "SELECT tenant_id FROM skill_system.audit_logs WHERE session_user_name LIKE 'other\\_%'"
            )
        } == {"other"}
    finally:
        for role in ("agent", "reviewer", "admin"):
            db.execute(f"DROP OWNED BY other_{role}")
            db.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [f"other_{role}"]
            )
            db.execute(f"DROP ROLE other_{role}")


def test_validate_entity_agrees_with_json_schema(db, texas):
    """Another implementation of JSON Schema says of every sample what validate_entity() says."""
    rng = random.Random(37)
    schema = db.execute("SELECT skill_system.entity_json_schema('well')").fetchone()[0]
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    values = [
        None,
        "",
        " ",
        [],
        True,
        1,
        1.5,
        "42-501-20130",
        "4250120130",
        "42-501",
        "7C",
        "8120.5",
        "2026-02-28",
        "2026-02-30",
        "oil",
        "coal",
        {},
        ["oil"],
    ]
    relationships = [
        None,
        {},
        {"lease": ["1"]},
        {"lease": []},
        {"lease": ["1", "2"]},
        {"lease": [""]},
        {"lease": "1"},
        {"facility": ["1"]},
        [],
    ]
    agreed = {True: 0, False: 0}
    for _ in range(600):
        good = {"api_number": "42-501-20130", "district": "7C", "well_type": "oil", "relationships": {"lease": ["1"]}}
        for key in rng.sample(
            ["api_number", "district", "total_depth", "spud_date", "well_type", "colour"], rng.randint(0, 2)
        ):
            good[key] = rng.choice(values)
        if rng.random() < 0.2:
            good["relationships"] = rng.choice(relationships)
        if rng.random() < 0.1:
            good.pop(rng.choice(list(good)))
        ours = db.execute("SELECT * FROM skill_system.validate_entity('well', %s)", [Jsonb(good)]).fetchall()
        assert validator.is_valid(good) == (ours == []), (good, ours, [e.message for e in validator.iter_errors(good)])
        agreed[ours == []] += 1
    assert min(agreed.values()) > 100, "both answers must be common, or this proves little"


def test_map_import_of_a_source_record(db, texas):
    entity, unmapped, missing = db.execute(
        "SELECT * FROM skill_system.map_import('well', %s)",
        [
            Jsonb(
                {
                    "API_NO": " 4250120130",
                    "DISTRICT_NAME": "7C",
                    "TOTAL_DEPTH": "08120",
                    "SPUD_DATE": "01/31/2026",
                    "OPERATOR": "XTO",
                }
            )
        ],
    ).fetchone()
    assert entity == {"api_number": "4250120130", "district": "7C", "total_depth": 8120, "spud_date": "2026-01-31"}
    assert unmapped == {"OPERATOR": "XTO"} and missing == ["well_type"]


def test_oscal_is_valid(db, texas):
    checklist = begin(db, entity="42-oscal \u00e9 <&>")
    db.execute(
        "SELECT skill_system.add_artifact(%s, 0, 'document', ' a\nname ', 'text', 'text/plain; charset=utf-8')",
        [checklist],
    )
    db.execute(
        "SELECT skill_system.add_artifact(%s, 0, 'pdf', 'scan', NULL, 'x y/z', '/e v/\"x\".pdf', "
        "'sha256:' || repeat('a', 64), 5)",
        [checklist],
    )
    schema = json.loads((HERE / "oscal" / "oscal_assessment-results_schema-1.0.4.json").read_text())

    def pattern(validator, wanted, instance, _schema):
        # The schema's patterns use classes of Unicode that Python's own engine does not know.
        if isinstance(instance, str) and not regex.search(wanted, instance):
            yield jsonschema.ValidationError(f"{instance!r} does not match {wanted!r}")

    Validator = jsonschema.validators.extend(jsonschema.Draft7Validator, {"pattern": pattern})
    validator = Validator(schema)
    for call in (
        "",
        "entity_id => '42-oscal \u00e9 <&>'",
        "compliance_domain => 'form_pr', max_rows => 5",
        "entity_id => 'nobody'",
        "title => '  x '",
    ):
        document = db.execute(f"SELECT skill_system.oscal_assessment_results({call})").fetchone()[0]
        assert [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(document)][:5] == [], call
    one = db.execute(
        "SELECT skill_system.oscal_assessment_results('42-oscal \u00e9 <&>')->'assessment-results'"
    ).fetchone()[0]
    assert len(one["results"][0]["findings"]) == 1 and len(one["back-matter"]["resources"]) == 3
    # The validator can say no.
    broken = json.loads(json.dumps({"assessment-results": one}))
    broken["assessment-results"]["results"][0]["findings"][0]["target"]["status"]["state"] = "perhaps"
    assert list(validator.iter_errors(broken))


def verify(document, *arguments):
    return subprocess.run(
        [skill_verify_program(), "snapshot", "-", *arguments], input=document, capture_output=True, text=True
    )


def test_the_signed_document(db, texas):
    checklist = begin(db, entity="42-signed")
    db.execute("SELECT skill_system.add_artifact(%s, 0, 'document', 'plat', 'confidential text')", [checklist])
    approve(db, checklist)
    db.execute("SELECT skill_system.file_checklist(%s, 'j.doe', 'RRC 1')", [checklist])
    db.execute("SELECT * FROM skill_system.seal_audit()")
    db.execute("SELECT skill_system.audit_checkpoint()")
    key = db.execute("SELECT verifier_key FROM skill_system.audit_public_key() WHERE active").fetchone()[0]
    document = db.execute("SELECT skill_system.compliance_snapshot(%s)::text", [checklist]).fetchone()[0]
    parsed = json.loads(document)
    assert "confidential text" not in document and parsed["payload"]["entity"]["entity_id"] == "42-signed"
    assert [a["content_sha256"][:7] for a in parsed["payload"]["artifacts"]] == ["sha256:"]
    done = verify(document, "--key", key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "42-signed" in done.stdout and "is filed" in done.stdout
    records = len(parsed["payload"]["audit"])
    assert records >= 8 and f"{records} proven" in done.stdout
    assert verify(document).returncode == 3
    # Another order of the keys and other blanks do not change it; anything else is.
    assert verify(json.dumps(parsed, indent=3, sort_keys=True), "--key", key).returncode == 0
    rng = random.Random(1)

    def leaves(value, path=()):
        if isinstance(value, dict):
            for name, member in value.items():
                yield from leaves(member, path + (name,))
        elif isinstance(value, list):
            for i, member in enumerate(value):
                yield from leaves(member, path + (i,))
        else:
            yield path, value

    paths = [path for path, _ in leaves(parsed["payload"])]
    for path in rng.sample(paths, 40):
        changed = json.loads(document)
        at = changed["payload"]
        for step in path[:-1]:
            at = at[step]
        old = at[path[-1]]
        at[path[-1]] = (
            not old
            if isinstance(old, bool)
            else old + 1
            if isinstance(old, (int, float))
            else "x"
            if old is None
            else old + "x"
        )
        assert verify(json.dumps(changed), "--key", key).returncode in (1, 2), path
    for path in (["payload", "rules"], ["payload", "audit"], ["payload", "approvals"]):
        changed = json.loads(document)
        changed[path[0]][path[1]].pop()
        done = verify(json.dumps(changed), "--key", key)
        assert done.returncode == 1 and "payload_changed" in done.stdout
    for bad in (
        "",
        "{}",
        "[]",
        "null",
        '{"skill_system_compliance_snapshot": 2}',
        document[:-10],
        document.replace('"note"', '"nota"'),
    ):
        assert verify(bad, "--key", key).returncode == 2, bad[:50]


def test_before_sealing_the_document_says_so(db, texas):
    checklist = begin(db)
    key = db.execute("SELECT verifier_key FROM skill_system.audit_public_key() WHERE active").fetchone()[0]
    done = verify(
        db.execute("SELECT skill_system.compliance_snapshot(%s)::text", [checklist]).fetchone()[0], "--key", key
    )
    assert done.returncode == 0 and "unproven" in done.stdout


def test_a_dump_brings_everything_back(db, texas, database, fresh_database):
    target = fresh_database(extension=False)
    dump = subprocess.run([f"{bindir()}/pg_dump", "-Fc", database], capture_output=True, check=True).stdout
    done = subprocess.run([f"{bindir()}/pg_restore", "--exit-on-error", "-d", target], input=dump, capture_output=True)
    assert done.returncode == 0, done.stderr
    tables = [
        row[0]
        for row in db.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'skill_system'::regnamespace "
            "AND relkind = 'r' AND relname ~ '^(entity|rrc|validation|rule|checklist|filing|compliance)' "
            "ORDER BY 1"
        )
    ]
    assert len(tables) == 14
    other = psycopg.connect(
        host=os.environ["PGHOST"], port=os.environ["PGPORT"], user=os.environ["PGUSER"], dbname=target, autocommit=True
    )
    with other:
        for table in tables + ["audit_logs"]:
            sql = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)), count(*) FROM skill_system.{table} t"
            assert db.execute(sql).fetchone() == other.execute(sql).fetchone(), table
