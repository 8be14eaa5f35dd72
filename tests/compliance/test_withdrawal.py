"""Filings, rules, evidence and templates that should not have been, and filings that are begun twice."""

import threading

import pytest
from psycopg import errors

from sessions import refused

BEGIN = "SELECT checklist_id, status, version FROM skill_system.create_checklist(%s, 'well', 'rule_37', {})"


def one(connection, statement, *arguments):
    return connection.execute(statement, arguments).fetchone()[0]


@pytest.fixture(scope="module")
def people(db, roles):
    db.execute("CREATE ROLE test_agent_two LOGIN IN ROLE skill_system_agent")
    db.execute("SELECT skill_system.create_template('rule_37', '[{\"label\": \"Plat\"}]', '[0]', '{spacing}')")
    return db


def begin(connection, entity, more="NULL"):
    return connection.execute(BEGIN.format(more), [entity]).fetchone()


def records(db, event, checklist):
    return one(
        db,
        "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = %s AND event_data->>'checklist_id' = %s",
        event,
        str(checklist),
    )


# ---- begun twice


def test_a_repeated_call_returns_the_filing_that_it_began(people, connect):
    agent, other = connect("test_agent"), connect("test_agent_two")
    key = "NULL, now() + interval '1 day', metadata => '{\"a\": 1, \"b\": 2}', idempotency_key => 'k1'"
    agent.execute("BEGIN")  # now() is the same.
    first = begin(agent, "twice", key)
    assert begin(agent, "twice", key) == first
    assert begin(agent, "twice", key.replace('"a": 1, "b": 2', '"b":2, "a":1')) == first
    # Three columns, one filing.
    assert agent.execute(
        "SELECT (skill_system.create_checklist('columns', 'well', 'rule_37', idempotency_key => 'k2')).*"
    ).fetchone()
    agent.execute("COMMIT")
    assert (
        one(people, "SELECT count(*) FROM skill_system.filing_checklists WHERE entity_id IN ('twice', 'columns')") == 2
    )
    assert records(people, "filing.created", first[0]) == 1
    # It is the filing as it is now, also when its deadline has passed meanwhile.
    agent.execute("SELECT skill_system.update_checklist_item(%s, 0, 'complete')", [first[0]])
    people.execute("UPDATE skill_system.filing_checklists SET deadline = '2020-01-01' WHERE entity_id = 'columns'")
    again = agent.execute(
        "SELECT status FROM skill_system.create_checklist('columns', 'well', 'rule_37', idempotency_key => 'k2')"
    ).fetchone()
    assert again == ("draft",)
    # The key is the role's and the actor's.
    assert begin(other, "twice", "idempotency_key => 'k1'")[0] != first[0]
    assert begin(agent, "twice", "actor_id => 'another', idempotency_key => 'k1'")[0] != first[0]
    # Another content under the same key is a mistake.
    for entity, more in (
        ("else", "idempotency_key => 'k2'"),
        ("columns", "'a name', idempotency_key => 'k2'"),
        ("columns", "NULL, now() + interval '1 day', idempotency_key => 'k2'"),
        ("columns", "entity_field => 'F', idempotency_key => 'k2'"),
        ("columns", "entity_district => '8A', idempotency_key => 'k2'"),
        ("columns", "metadata => '{\"a\": 1}', idempotency_key => 'k2'"),
    ):
        error = refused(agent, "22023", BEGIN.format(more), [entity])
        assert "idempotency_key" in error.diag.message_primary and error.diag.message_hint
    refused(agent, "22023", BEGIN.format("idempotency_key => ''"), ["x"])
    refused(agent, "22023", BEGIN.format("idempotency_key => repeat('x', 201)"), ["x"])
    # Without one, each call is another filing.
    assert begin(agent, "free")[0] != begin(agent, "free")[0]


def test_two_sessions_begin_one_filing(people, connect):
    one_session, other = connect("test_agent"), connect("test_agent")
    one_session.execute("BEGIN")
    first = begin(one_session, "race", "idempotency_key => 'race'")
    got = []
    thread = threading.Thread(target=lambda: got.append(begin(other, "race", "idempotency_key => 'race'")))
    thread.start()
    one_session.execute("COMMIT")
    thread.join(20)
    assert got == [first]


def test_an_entity_type_is_one_of_those_that_are_defined(people, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    call = "SELECT skill_system.create_checklist('typed', %s, 'rule_37')"
    agent.execute(call, ["anything at all"])
    people.execute("INSERT INTO skill_system.entity_type_definitions (type_key, display_name) VALUES ('well', 'Well')")
    try:
        agent.execute(call, ["well"])
        assess = "SELECT skill_system.assess_compliance('default', 'typed too', %s, 'form_pr', 'compliant')"
        reviewer.execute(assess, ["well"])
        for wrong in ("wel", "Well", "WELL", "well ", "anything at all"):
            for session, statement in ((agent, call), (reviewer, assess)):
                error = refused(session, "42704", statement, [wrong])
                assert f'entity type "{wrong}" does not exist' == error.diag.message_primary and error.diag.message_hint
    finally:
        people.execute("DELETE FROM skill_system.entity_type_definitions")


# ---- withdrawn


def submit(connection, checklist):
    connection.execute("SELECT skill_system.update_checklist_item(%s, 0, 'complete')", [checklist])
    connection.execute("SELECT skill_system.submit_checklist(%s)", [checklist])


def approve(connection, checklist):
    connection.execute(
        "SELECT skill_system.review_checklist(id, 'approved', expected_version => version) "
        "FROM skill_system.filing_checklists WHERE id = %s",
        [checklist],
    )


def test_its_author_withdraws_a_filing_until_it_is_approved(people, connect):
    agent, other, reviewer = connect("test_agent"), connect("test_agent_two"), connect("test_reviewer")
    withdraw = "SELECT status FROM skill_system.withdraw_checklist(%s, {})"
    draft, submitted, approved, claimed = (begin(agent, name, "actor_id => 'me'")[0] for name in "abcd")
    for checklist in (submitted, approved):
        submit(agent, checklist)
    approve(reviewer, approved)
    # Neither another role nor another actor, even with the same reason.
    for session, more in ((other, "'r', 'me'"), (agent, "'r', 'you'"), (agent, "'r'")):
        error = refused(session, "42501", withdraw.format(more), [claimed])
        assert error.diag.message_detail and error.diag.message_hint
    refused(agent, "42501", withdraw.format("'r', 'me'"), [approved])
    refused(agent, "40001", withdraw.format("NULL, 'me', 7"), [draft])
    for checklist in (draft, submitted):
        assert one(agent, withdraw.format("NULL, 'me'"), checklist) == "withdrawn"
    # A reviewer with a reason, also what was approved.
    refused(reviewer, "22023", withdraw.format("NULL"), [approved])
    refused(reviewer, "22023", withdraw.format("' '"), [approved])
    for checklist in (approved, claimed):
        assert one(reviewer, withdraw.format("'filed on paper', 'j.doe'"), checklist) == "withdrawn"
    found = one(people, "SELECT metadata->'withdrawal' FROM skill_system.filing_checklists WHERE id = %s", approved)
    assert (found["by"], found["reason"]) == ("j.doe", "filed on paper")
    assert people.execute(
        "SELECT event_data->>'from', event_data->>'to', event_data->>'reason', actor_id FROM skill_system.audit_logs "
        "WHERE event_type = 'filing.withdrawn' AND event_data->>'checklist_id' = %s",
        [str(approved)],
    ).fetchall() == [("approved", "withdrawn", "filed on paper", "j.doe")]
    # It has ended.
    for statement in (
        "SELECT skill_system.withdraw_checklist(%s, 'again')",
        "SELECT skill_system.update_checklist_item(%s, 0, 'pending')",
        "SELECT skill_system.add_artifact(%s, 0, 'document', 'x', 'x')",
        "SELECT skill_system.file_checklist(%s)",
        "SELECT skill_system.snapshot_rules(%s)",
    ):
        refused(reviewer, "55000", statement, [draft])
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        people.execute("UPDATE skill_system.filing_checklists SET status = 'draft' WHERE id = %s", [draft])
    refused(agent, "42704", withdraw.format("NULL"), ["01900000-0000-7000-8000-000000000000"])
    refused(agent, "22023", withdraw.format("NULL"), [None])


def test_what_was_filed_stays_filed(people, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    checklist = begin(agent, "filed")[0]
    submit(agent, checklist)
    approve(reviewer, checklist)
    reviewer.execute("SELECT skill_system.file_checklist(%s)", [checklist])
    for session in (agent, reviewer):
        refused(session, "55000", "SELECT skill_system.withdraw_checklist(%s, 'too late')", [checklist])


def test_the_filing_before_decides_again(people, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")

    def cell():
        return people.execute(
            "SELECT status, checklist_id, details->>'checklist_status' FROM skill_system.compliance_status "
            "WHERE entity_id = 'cell'"
        ).fetchone()

    first = begin(agent, "cell")[0]
    submit(agent, first)
    approve(reviewer, first)
    reviewer.execute("SELECT skill_system.file_checklist(%s)", [first])
    assert cell() == ("compliant", first, "filed")
    second = begin(agent, "cell")[0]
    assert cell() == ("action_needed", second, "draft")
    agent.execute("SELECT skill_system.withdraw_checklist(%s)", [second])
    assert cell() == ("compliant", first, "filed")
    # With nothing before, something is to be done.
    only = begin(agent, "cell two")[0]
    submit(agent, only)
    agent.execute("SELECT skill_system.withdraw_checklist(%s)", [only])
    assert people.execute(
        "SELECT status, checklist_id FROM skill_system.compliance_status WHERE entity_id = 'cell two'"
    ).fetchone() == ("action_needed", None)
    # And a person may say what.
    reviewer.execute(
        "SELECT skill_system.assess_compliance('default', 'cell two', 'well', 'rule_37', 'not_applicable')"
    )


def test_its_author_withdraws_a_rule_before_it_is_in_force(people, connect):
    agent, other, reviewer = connect("test_agent"), connect("test_agent_two"), connect("test_reviewer")

    def propose(more=""):
        return one(
            agent,
            "SELECT rule_version_id FROM skill_system.propose_rule('WITHDRAWN', 'x', '2026-01-01', '{}', 'manual', "
            f"actor_id => 'me'{more})",
        )

    withdraw = "SELECT status FROM skill_system.withdraw_rule(%s, {})"
    pending, draft, rejected = propose(), propose(", draft => true"), propose()
    reviewer.execute("SELECT skill_system.review_rule(%s, 'rejected', 'j.doe', 'wrong docket')", [rejected])
    for session, more in ((other, "'r', 'me'"), (agent, "'r', 'you'"), (agent, "'r'")):
        refused(session, "42501", withdraw.format(more), [pending])
    assert [one(agent, withdraw.format("NULL, 'me'"), id) for id in (pending, draft)] == ["withdrawn"] * 2
    refused(reviewer, "22023", withdraw.format("NULL"), [rejected])
    assert one(reviewer, withdraw.format("'no such docket', 'j.doe'"), rejected) == "withdrawn"
    assert people.execute(
        "SELECT status, withdrawn_by, withdrawn_at IS NOT NULL, withdrawal_reason FROM skill_system.rule_versions WHERE id = %s",
        [rejected],
    ).fetchone() == ("withdrawn", "j.doe", True, "no such docket")
    assert people.execute(
        "SELECT event_data->>'from', event_data->>'reason', actor_id FROM skill_system.audit_logs "
        "WHERE event_type = 'rule.withdrawn' AND event_data->>'rule_identifier' = 'WITHDRAWN' ORDER BY recorded_at"
    ).fetchall() == [("pending_review", None, "me"), ("draft", None, "me"), ("draft", "no such docket", "j.doe")]
    for session, statement in (
        (agent, "SELECT skill_system.submit_rule(%s)"),
        (reviewer, "SELECT skill_system.review_rule(%s, 'approved')"),
        (agent, "SELECT skill_system.withdraw_rule(%s, 'again', 'me')"),
    ):
        refused(session, "55000", statement, [draft])
    # Its number is not used again, and nothing is in force.
    assert (
        one(agent, "SELECT version FROM skill_system.propose_rule('WITHDRAWN', 'x', '2026-01-01', '{}', 'manual')") == 4
    )
    assert people.execute("SELECT * FROM skill_system.rule_as_of('WITHDRAWN')").fetchall() == []


def test_a_rule_published_for_a_wrong_day_does_not_block_those_after_it(people, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")

    def publish(date, feet):
        return people.execute(
            "SELECT rule_version_id, version FROM skill_system.publish_rule('SWR_37', 'spacing', %s, "
            "jsonb_build_object('feet', %s::integer), 'manual')",
            [date, feet],
        ).fetchone()

    in_force, _ = publish("2020-01-01", 467)
    untouched, refreshed = begin(agent, "waits")[0], begin(agent, "takes over")[0]
    wrong, _ = publish("2120-01-01", 330)
    with pytest.raises(errors.InvalidParameterValue):
        publish("2026-01-01", 330)
    frozen = {
        checklist: snapshot
        for checklist, snapshot in agent.execute(
            "SELECT checklist_id, snapshot_id FROM skill_system.stale_filings() WHERE rule_identifier = 'SWR_37'"
        )
    }
    assert {untouched, refreshed} == set(frozen)
    agent.execute("SELECT skill_system.refresh_snapshot(%s)", [frozen[refreshed]])
    refused(agent, "42501", "SELECT skill_system.withdraw_rule(%s, 'wrong day')", [wrong])
    refused(reviewer, "22023", "SELECT skill_system.withdraw_rule(%s)", [wrong])
    error = refused(reviewer, "55000", "SELECT skill_system.withdraw_rule(%s, 'x')", [in_force])
    assert "superseded" in error.diag.message_primary
    assert reviewer.execute(
        "SELECT status, stale_snapshots FROM skill_system.withdraw_rule(%s, 'wrong day')", [wrong]
    ).fetchone() == ("withdrawn", 1)
    error = refused(reviewer, "55000", "SELECT skill_system.withdraw_rule(%s, 'x')", [in_force])
    assert "in force" in error.diag.message_primary and "publish_rule" in error.diag.message_hint
    # The one before is in force for good, what froze it is current, what froze the withdrawn one is not.
    assert people.execute(
        "SELECT version, status, superseded_date FROM skill_system.rule_versions WHERE rule_identifier = 'SWR_37' ORDER BY 1"
    ).fetchall()[0] == (1, "active", None)
    assert one(people, "SELECT version FROM skill_system.rule_as_of('SWR_37', '2200-01-01')") == 1
    stale = agent.execute(
        "SELECT checklist_id, frozen_version, current_version FROM skill_system.stale_filings() WHERE rule_identifier = 'SWR_37'"
    ).fetchall()
    assert stale == [(refreshed, 2, 1)]
    # The next version may begin any day.
    assert publish("2026-01-01", 330)[1] == 3
    later, _ = publish("2121-01-01", 300)
    reviewer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    refused(reviewer, "55000", "SELECT skill_system.withdraw_rule(%s, 'x')", [later])
    reviewer.execute("ROLLBACK")


def test_evidence_is_superseded_or_withdrawn_and_stays(people, connect):
    agent, reviewer = connect("test_agent"), connect("test_reviewer")
    checklist, other = begin(agent, "evidence")[0], begin(agent, "other evidence")[0]

    def add(to, name, content="x"):
        return one(
            agent, "SELECT artifact_id FROM skill_system.add_artifact(%s, 0, 'document', %s, %s)", to, name, content
        )

    wrong, right, elsewhere = add(checklist, "wrong"), add(checklist, "right"), add(other, "elsewhere")
    withdraw = "SELECT version FROM skill_system.withdraw_artifact(%s, %s, %s, 'me')"
    for bad in (elsewhere, wrong):
        refused(agent, "22023", withdraw, [wrong, "wrong scale", bad])
    refused(agent, "42704", withdraw, [wrong, "wrong scale", checklist])
    refused(agent, "22023", withdraw, [wrong, None, None])
    before = one(people, "SELECT version FROM skill_system.filing_checklists WHERE id = %s", checklist)
    # A reviewer who has read the version before approves another one.
    assert one(agent, withdraw, wrong, "wrong scale", right) == before + 1
    refused(agent, "55000", withdraw, [wrong, "again", None])
    refused(agent, "22023", withdraw, [right, "a withdrawn one takes no place", wrong])
    assert people.execute(
        "SELECT name, withdrawn_by, withdrawal_reason, superseded_by, content FROM skill_system.checklist_artifacts "
        "WHERE checklist_id = %s ORDER BY id",
        [checklist],
    ).fetchall() == [("wrong", "me", "wrong scale", right, "x"), ("right", None, None, None, "x")]
    assert people.execute(
        "SELECT event_data->>'artifact_id', event_data->>'superseded_by' FROM skill_system.audit_logs "
        "WHERE event_type = 'filing.artifact_withdrawn'"
    ).fetchall() == [(str(wrong), str(right))]
    shown = one(people, "SELECT skill_system.compliance_report('json')::jsonb->'evidence'")
    assert {row["name"] for row in shown} == {"right", "elsewhere"}
    assert "wrong" not in str(one(people, "SELECT skill_system.oscal_assessment_results('evidence')"))
    # The signed document has both.
    snapshot = one(reviewer, "SELECT skill_system.compliance_snapshot(%s)", checklist)
    assert {row["name"]: row["superseded_by"] for row in snapshot["payload"]["artifacts"]} == {
        "wrong": str(right),
        "right": None,
    }
    # What was approved is what the reviewer saw.
    submit(agent, checklist)
    approve(reviewer, checklist)
    refused(reviewer, "55000", withdraw, [right, "too late", None])
    with pytest.raises(errors.ObjectNotInPrerequisiteState):
        people.execute("UPDATE skill_system.checklist_artifacts SET content = 'y' WHERE id = %s", [right])


def test_a_retired_template_begins_no_filing(people, connect):
    agent, admin = connect("test_agent"), connect("test_admin")
    admin.execute("SELECT skill_system.create_template('old', '[{\"label\": \"x\"}]')")
    open_one = one(
        agent, "SELECT checklist_id FROM skill_system.create_checklist('e', 'well', 'old', idempotency_key => 'r')"
    )
    refused(agent, "42501", "SELECT skill_system.retire_template('old')")
    assert one(admin, "SELECT version FROM skill_system.retire_template('old', 'reported elsewhere')") == 1
    error = refused(agent, "55000", "SELECT skill_system.create_checklist('e', 'well', 'old')")
    assert "create_template" in error.diag.message_hint
    # What was begun goes on, and a repeated call begins none.
    assert (
        one(agent, "SELECT checklist_id FROM skill_system.create_checklist('e', 'well', 'old', idempotency_key => 'r')")
        == open_one
    )
    agent.execute("SELECT skill_system.submit_checklist(%s)", [open_one])
    refused(admin, "55000", "SELECT skill_system.retire_template('old')")
    refused(admin, "42704", "SELECT skill_system.retire_template('none such')")
    refused(admin, "22023", "SELECT skill_system.retire_template(NULL)")
    # Nothing else about a template in use changes.
    refused(
        admin,
        "55000",
        "UPDATE skill_system.checklist_templates SET items = '[{\"label\": \"y\"}]' WHERE compliance_domain = 'old'",
    )
    assert people.execute(
        "SELECT event_data->'new'->>'retirement_reason' FROM skill_system.audit_logs WHERE event_type = 'row.updated' "
        "AND event_data->>'table' = 'skill_system.checklist_templates'"
    ).fetchall() == [("reported elsewhere",)]
    assert one(admin, "SELECT version FROM skill_system.create_template('old', '[{\"label\": \"x\"}]')") == 2
    agent.execute("SELECT skill_system.create_checklist('e', 'well', 'old')")


# ---- terms


def test_terms_are_the_tenants(people, connect):
    """Without terms any; with them those; with those of Texas the contract's."""
    admin, agent = connect("test_admin"), connect("test_agent")
    propose = "SELECT version FROM skill_system.propose_rule('TERMS', 'x', '2026-01-01', '{\"field\": \"f\"}', %s, %s)"
    add = "SELECT size_bytes FROM skill_system.add_artifact(%s, 0, %s, 'a', 'b')"
    checklist = begin(agent, "terms")[0]
    agent.execute(propose, ["Bundesanzeiger", "Verordnung"])
    agent.execute(add, [checklist, "Lageplan"])
    for bad in ("", " ", "x" * 51, None):
        refused(agent, "22023", propose, [bad, "statewide"])
        refused(agent, "22023", propose, ["manual", bad])
        refused(agent, "22023", add, [checklist, bad])
    admin.execute("INSERT INTO skill_system.compliance_terms (kind, term) VALUES ('rule_source', 'Bundesanzeiger')")
    agent.execute(propose, ["Bundesanzeiger", "anything"])
    error = refused(agent, "22023", propose, ["Bundesanzeigr", "Verordnung"])
    assert "Bundesanzeiger" in error.diag.message_detail and "compliance_terms" in error.diag.message_hint
    installed = admin.execute("SELECT kind, name FROM skill_system.install_texas_rrc()").fetchall()
    assert admin.execute("SELECT kind, name FROM skill_system.install_texas_rrc()").fetchall() == []
    # What AEGIS lists is all there.
    for kind, terms, statement in (
        ("rule_type", ("statewide", "field_specific", "notice"), lambda term: agent.execute(propose, ["manual", term])),
        (
            "rule_source",
            ("rrc_ingestion", "rule_monitor_agent", "manual", "docket_hearing"),
            lambda term: agent.execute(propose, [term, "notice"]),
        ),
        (
            "artifact_type",
            ("document", "pdf", "plat_draft", "data_export", "waiver", "form_draft"),
            lambda term: agent.execute(add, [checklist, term]),
        ),
    ):
        assert {name for found, name in installed if found == kind} == set(terms)
        for term in terms:
            statement(term)
    agent.execute(propose, ["Bundesanzeiger", "notice"])
    refused(agent, "22023", propose, ["manual", "Verordnung"])
    refused(agent, "22023", add, [checklist, "Lageplan"])
    assert (
        one(
            admin,
            'SELECT count(*) FROM skill_system.validate_entity(\'well\', \'{"api_number": "42-501-20130", '
            '"district": "8A", "well_type": "oil", "relationships": {"lease": ["60481"]}}\')',
        )
        == 0
    )
    assert one(admin, "SELECT entity FROM skill_system.map_import('well', '{\"API_NO\": \"4250120130\"}')") == {
        "api_number": "4250120130"
    }
    # Terms are written by administrators, and taken back.
    for statement in (
        "INSERT INTO skill_system.compliance_terms (kind, term) VALUES ('rule_source', 'mine')",
        "SELECT skill_system.install_texas_rrc()",
    ):
        refused(agent, "42501", statement)
    refused(admin, "23514", "INSERT INTO skill_system.compliance_terms (kind, term) VALUES ('colour', 'red')")
    assert (
        one(admin, "SELECT skill_system.delete_rows('skill_system.compliance_terms', '{\"kind\": \"artifact_type\"}')")
        == 6
    )
    agent.execute(add, [checklist, "Lageplan"])


def test_a_client_of_the_contract_writes_its_terms_without_install(people):
    """The tables of AEGIS take what it lists, and do not restrict it."""
    for rule_type, source in (
        ("statewide", "rrc_ingestion"),
        ("field_specific", "docket_hearing"),
        ("notice", "manual"),
    ):
        people.execute(
            "INSERT INTO skill_system.rule_versions (rule_type, rule_domain, rule_identifier, version, effective_date, source, "
            "rule_data, content_sha256) VALUES (%s, 'spacing', %s, 1, '2020-01-01', %s, '{}', 'sha256:' || repeat('0', 64))",
            [rule_type, f"contract {rule_type}", source],
        )
