"""Audited and append-only tables: changes of the key, partitions and children that come later, the writer's settings."""

import pytest

from sessions import refused

SETTINGS = {
    "TimeZone": "America/St_Johns",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
    "lc_time": "C.UTF-8",
    "quote_all_identifiers": "on",
    "search_path": "public, pg_catalog",
    "xmlbinary": "hex",
}


def records(db, table):
    """Type and data of the records about a table since the schema was created, oldest first."""
    return db.execute(
        "SELECT event_type, event_data - 'table' FROM skill_system.audit_logs WHERE event_data->>'table' = %s "
        "AND event_type NOT IN ('table.audited', 'table.append_only') AND recorded_at > "
        "(SELECT max(recorded_at) FROM skill_system.audit_logs WHERE event_type = 'stage') ORDER BY recorded_at, id",
        [table],
    ).fetchall()


@pytest.fixture
def owner(db, roles, connect):
    """An ordinary role with no right in the extension, and a schema that it owns."""
    if db.execute("SELECT FROM pg_roles WHERE rolname = 'test_owner'").fetchone() is None:
        db.execute("CREATE ROLE test_owner LOGIN")
    db.execute("CREATE SCHEMA stage AUTHORIZATION test_owner")
    db.execute("SELECT skill_system.append_audit('stage', '{}')")
    yield connect("test_owner")
    db.execute("DROP SCHEMA stage CASCADE")


# ---- the key


def test_a_row_is_followed_when_its_key_changes(db, owner):
    owner.execute("CREATE TABLE stage.wells (a int, b text, v int, w int, PRIMARY KEY (a, b))")
    owner.execute("INSERT INTO stage.wells VALUES (1, 'x', 10, 0)")
    db.execute("SELECT skill_system.audit_table('stage.wells', columns => '{v}')")
    for change in ("a = -1", "w = 5", "v = 666", "b = 'y', v = 7", "a = 1, b = 'x'", "a = a"):
        owner.execute(f"UPDATE stage.wells SET {change}")
    assert records(db, "stage.wells") == [
        ("row.updated", {"key": key, "old": {"v": old}, "new": {"v": new}} | ({"old_key": before} if before else {}))
        for key, old, new, before in [
            ({"a": -1, "b": "x"}, 10, 10, {"a": 1, "b": "x"}),
            ({"a": -1, "b": "x"}, 10, 666, None),
            ({"a": -1, "b": "y"}, 666, 7, {"a": -1, "b": "x"}),
            ({"a": 1, "b": "x"}, 7, 7, {"a": -1, "b": "y"}),
        ]
    ]


def test_a_key_changed_by_a_foreign_key_or_a_swap(db, owner):
    owner.execute(
        "CREATE TABLE stage.p (id int PRIMARY KEY); CREATE TABLE stage.c (id int PRIMARY KEY DEFERRABLE "
        "REFERENCES stage.p ON UPDATE CASCADE, v int); INSERT INTO stage.p VALUES (1), (2); "
        "INSERT INTO stage.c VALUES (1, 1), (2, 2)"
    )
    db.execute("SELECT skill_system.audit_table('stage.c', ignored_columns => '{id}')")
    owner.execute("UPDATE stage.p SET id = 9 WHERE id = 2")
    owner.execute("INSERT INTO stage.p VALUES (3)")
    owner.execute("UPDATE stage.c SET id = CASE id WHEN 1 THEN 9 ELSE 1 END")
    moves = [(data["old_key"]["id"], data["key"]["id"]) for _, data in records(db, "stage.c")]
    assert moves[0] == (2, 9) and sorted(moves[1:]) == [(1, 9), (9, 1)]


def test_another_primary_key_is_taken_from_then_on(db, owner):
    owner.execute(
        "CREATE TABLE stage.t (a int PRIMARY KEY, b int NOT NULL, v int); INSERT INTO stage.t VALUES (1, 2, 3)"
    )
    db.execute("SELECT skill_system.audit_table('stage.t', columns => '{v}')")
    owner.execute("ALTER TABLE stage.t DROP CONSTRAINT t_pkey; ALTER TABLE stage.t ADD PRIMARY KEY (b)")
    owner.execute("UPDATE stage.t SET b = 5")
    assert records(db, "stage.t") == [
        ("row.updated", {"key": {"b": 5}, "old_key": {"b": 2}, "old": {"v": 3}, "new": {"v": 3}})
    ]


def test_a_chosen_column_that_is_renamed_is_not_lost(db, owner):
    owner.execute("CREATE TABLE stage.t (id int PRIMARY KEY, v int, w int); INSERT INTO stage.t VALUES (1, 1, 1)")
    db.execute("SELECT skill_system.audit_table('stage.t', columns => '{v}')")
    owner.execute("ALTER TABLE stage.t RENAME v TO hidden")
    for statement in ("UPDATE stage.t SET hidden = 2", "INSERT INTO stage.t VALUES (2)", "DELETE FROM stage.t"):
        error = refused(owner, "55000", statement)
        assert '"v"' in error.diag.message_primary and "audit_table()" in error.diag.message_hint
    db.execute("SELECT skill_system.audit_table('stage.t', columns => '{hidden}')")
    owner.execute("UPDATE stage.t SET hidden = 2")
    assert records(db, "stage.t")[0][1]["new"] == {"hidden": 2}


# ---- partitions and children

LATE = [
    "CREATE TABLE stage.late PARTITION OF stage.{parent} FOR VALUES IN (2)",
    "CREATE TABLE stage.late PARTITION OF stage.{parent} DEFAULT",
    "CREATE TABLE stage.late (LIKE stage.{parent}); ALTER TABLE stage.{parent} ATTACH PARTITION stage.late FOR VALUES IN (2)",
    "CREATE TABLE stage.sub PARTITION OF stage.{parent} FOR VALUES IN (2) PARTITION BY LIST (v); "
    "CREATE TABLE stage.late PARTITION OF stage.sub DEFAULT",
    "CREATE TABLE stage.sub (LIKE stage.{parent}) PARTITION BY LIST (v); "
    "CREATE TABLE stage.late PARTITION OF stage.sub DEFAULT; "
    "ALTER TABLE stage.{parent} ATTACH PARTITION stage.sub FOR VALUES IN (2)",
]
CHILD = [
    "CREATE TABLE stage.late (more text) INHERITS (stage.{parent})",
    "CREATE TABLE stage.late (LIKE stage.{parent}); ALTER TABLE stage.late INHERIT stage.{parent}",
    "CREATE TABLE stage.middle () INHERITS (stage.{parent}); CREATE TABLE stage.late () INHERITS (stage.middle)",
    "CREATE TABLE stage.middle (LIKE stage.{parent}); CREATE TABLE stage.late () INHERITS (stage.middle); "
    "ALTER TABLE stage.middle INHERIT stage.{parent}",
]
WAYS = [(how, "PARTITION BY LIST (id)") for how in LATE] + [(how, "") for how in CHILD]


def run(db, owner, script, when):
    """Creates the child, as the owner of the table, who has no right in the extension."""
    session = db if when == "replica" else owner
    if when == "replica":
        session.execute("SET session_replication_role = replica")
    session.execute(script.format(parent="t"))
    if when == "replica":
        session.execute("RESET session_replication_role")


@pytest.mark.parametrize("when", ["before", "after", "replica"])
@pytest.mark.parametrize(("how", "partitioned"), WAYS)
def test_audited_children(db, owner, how, partitioned, when):
    owner.execute(f"CREATE TABLE stage.t (id int, v int) {partitioned}")
    if when == "before":
        run(db, owner, how, when)
    db.execute("SELECT skill_system.audit_table('stage.t', columns => '{v}')")
    if when != "before":
        run(db, owner, how, when)
    through = "t" if partitioned else "late"
    db.execute(f"INSERT INTO stage.{through} (id, v) VALUES (2, 1)")
    db.execute("UPDATE stage.t SET v = 6")
    db.execute("DELETE FROM stage.t")
    db.execute("SET session_replication_role = replica")
    db.execute(f"INSERT INTO stage.{through} (id, v) VALUES (2, 2)")
    db.execute("RESET session_replication_role")
    db.execute("TRUNCATE stage.late")
    found = records(db, "stage.late")
    assert [event for event, _ in found] == [
        "row.inserted",
        "row.updated",
        "row.deleted",
        "row.inserted",
        "table.truncated",
    ]
    assert found[1][1] == {"key": {}, "old": {"v": 1}, "new": {"v": 6}}


@pytest.mark.parametrize("when", ["before", "after", "replica"])
@pytest.mark.parametrize(("how", "partitioned"), WAYS)
def test_append_only_children(db, owner, how, partitioned, when):
    owner.execute(f"CREATE TABLE stage.t (id int, v int) {partitioned}")
    if when == "before":
        run(db, owner, how, when)
    db.execute("SELECT skill_system.make_append_only('stage.t')")
    if when != "before":
        run(db, owner, how, when)
    db.execute(f"INSERT INTO stage.{'t' if partitioned else 'late'} (id, v) VALUES (2, 2)")
    for role in ("origin", "replica"):
        db.execute(f"SET session_replication_role = {role}")
        for statement in (
            "TRUNCATE stage.late",
            "TRUNCATE stage.t",
            "DELETE FROM stage.t",
            "UPDATE stage.t SET v = 3",
            "DELETE FROM stage.late",
            "UPDATE stage.late SET v = 3",
        ):
            refused(db, "55000", statement)
    db.execute("RESET session_replication_role")
    assert db.execute("SELECT v FROM stage.t").fetchall() == [(2,)]


@pytest.mark.parametrize("row", ['"Audit, now"', None])
@pytest.mark.parametrize("truncate", ["z", None])
@pytest.mark.parametrize(("how", "partitioned"), WAYS)
def test_triggers_are_known_by_what_they_do(db, owner, how, partitioned, truncate, row):
    """Whatever the owner calls them: children get both, and another call creates no second one."""
    owner.execute(f"CREATE TABLE stage.t (id int, v int) {partitioned}")
    call = "SELECT skill_system.audit_table('stage.t', columns => '{v}')"
    db.execute(call)
    for trigger, name in (("skill_system_audit", row), ("skill_system_audit_truncate", truncate)):
        if name:
            owner.execute(f"ALTER TRIGGER {trigger} ON stage.t RENAME TO {name}")
    run(db, owner, how, "after")
    db.execute(call)
    db.execute(f"INSERT INTO stage.{'t' if partitioned else 'late'} (id, v) VALUES (2, 1)")
    db.execute("UPDATE stage.t SET v = 6")
    db.execute("TRUNCATE stage.late")
    db.execute("SET session_replication_role = replica; TRUNCATE stage.late; RESET session_replication_role")
    assert [event for event, _ in records(db, "stage.late")] == [
        "row.inserted",
        "row.updated",
        "table.truncated",
        "table.truncated",
    ]


@pytest.mark.parametrize(("how", "partitioned"), WAYS)
def test_append_only_triggers_are_known_by_what_they_do(db, owner, how, partitioned):
    owner.execute(f"CREATE TABLE stage.t (id int, v int) {partitioned}")
    db.execute("SELECT skill_system.make_append_only('stage.t')")
    owner.execute("ALTER TRIGGER skill_system_no_change ON stage.t RENAME TO a")
    owner.execute("ALTER TRIGGER skill_system_no_truncate ON stage.t RENAME TO b")
    run(db, owner, how, "after")
    db.execute(f"INSERT INTO stage.{'t' if partitioned else 'late'} (id, v) VALUES (2, 1)")
    for statement in ("TRUNCATE stage.late", "TRUNCATE stage.t", "DELETE FROM stage.late", "UPDATE stage.t SET v = 3"):
        refused(db, "55000", statement)


@pytest.mark.parametrize(
    ("call", "function"), [("audit_table", "capture_change"), ("make_append_only", "refuse_change")]
)
def test_each_owner_of_a_protected_table_creates_partitions(db, owner, connect, call, function):
    """The server asks the creator of a partition for EXECUTE on the functions of the triggers that it gets."""
    for name in ("test_heir", "test_stranger"):
        if db.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
            db.execute(f"CREATE ROLE {name} LOGIN")
    db.execute("GRANT ALL ON SCHEMA stage TO test_heir; GRANT test_heir TO test_owner")
    heir, stranger = connect("test_heir"), connect("test_stranger")
    owner.execute("CREATE TABLE stage.t (id int, v int) PARTITION BY LIST (id)")
    refused(heir, "42501", "CREATE TABLE stage.no PARTITION OF stage.t FOR VALUES IN (0)")
    db.execute(f"SELECT skill_system.{call}('stage.t')")
    owner.execute("CREATE TABLE stage.t1 PARTITION OF stage.t FOR VALUES IN (1)")
    owner.execute(
        "CREATE TABLE stage.t2 (LIKE stage.t); ALTER TABLE stage.t ATTACH PARTITION stage.t2 FOR VALUES IN (2)"
    )
    # A part of it that another role divides further, the whole in another role's hands, and in many hands at once.
    owner.execute("CREATE TABLE stage.t3 PARTITION OF stage.t FOR VALUES IN (3) PARTITION BY LIST (v)")
    owner.execute("ALTER TABLE stage.t3 OWNER TO test_heir")
    heir.execute("CREATE TABLE stage.t31 PARTITION OF stage.t3 DEFAULT")
    db.execute(f"REVOKE EXECUTE ON FUNCTION skill_system.{function}() FROM test_heir")
    owner.execute("ALTER TABLE stage.t OWNER TO test_heir")
    heir.execute("CREATE TABLE stage.t4 PARTITION OF stage.t FOR VALUES IN (4)")
    db.execute(f"REVOKE EXECUTE ON FUNCTION skill_system.{function}() FROM test_owner, test_heir")
    db.execute("REASSIGN OWNED BY test_heir TO test_owner")
    missing = "SELECT detail FROM skill_system.health() WHERE \"check\" = 'privileges' AND status = 'error'"
    wanted = f"EXECUTE on skill_system.{function}() for test_owner, who owns a protected table"
    assert db.execute(missing).fetchall() == [(f"missing: {wanted}",)]
    assert db.execute("SELECT * FROM skill_system.repair()").fetchall() == [(wanted, "done")]
    assert db.execute(missing).fetchall() == []
    owner.execute("CREATE TABLE stage.t5 PARTITION OF stage.t FOR VALUES IN (5)")
    # The trigger is of no use to others: with the right to it, any role could fill the audit trail.
    refused(
        stranger,
        "42501",
        "CREATE TEMP TABLE mine (a int); CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW "
        f"EXECUTE FUNCTION skill_system.{function}()",
    )
    for role in ("test_owner", "test_heir"):
        db.execute(f"REVOKE EXECUTE ON FUNCTION skill_system.{function}() FROM {role}")


def test_auditing_ends_with_all_below(db, owner, connect):
    """One DROP TRIGGER left TRUNCATE and the children recorded."""
    owner.execute("CREATE TABLE stage.t (id int, v int) PARTITION BY LIST (id)")
    owner.execute("CREATE TABLE stage.t1 PARTITION OF stage.t FOR VALUES IN (1)")
    owner.execute("CREATE TABLE stage.t2 PARTITION OF stage.t FOR VALUES IN (2) PARTITION BY LIST (v)")
    owner.execute("CREATE TABLE stage.t21 PARTITION OF stage.t2 DEFAULT")
    owner.execute("CREATE TABLE stage.p (id int); CREATE TABLE stage.q (id int)")
    owner.execute("CREATE TABLE stage.c () INHERITS (stage.p); CREATE TABLE stage.both () INHERITS (stage.p, stage.q)")
    owner.execute("CREATE TABLE stage.below () INHERITS (stage.both); CREATE TABLE stage.plain (id int)")
    for table in ("stage.t", "stage.p", "stage.q"):
        db.execute("SELECT skill_system.audit_table(%s)", [table])
    triggers = (
        "SELECT c.relname::text, count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE t.tgname LIKE 'skill\\_system\\_audit%' AND c.relnamespace = 'stage'::regnamespace GROUP BY 1 ORDER BY 1"
    )
    granted = "SELECT has_function_privilege('test_owner', 'skill_system.capture_change()', 'EXECUTE')"
    assert db.execute(granted).fetchone() == (True,)
    # A part alone cannot end, nor what is not audited, nor the record of the extension's own tables.
    error = refused(db, "55000", "SELECT skill_system.stop_audit_table('stage.t2')")
    assert "stage.t" in error.diag.message_hint
    refused(db, "55000", "SELECT skill_system.stop_audit_table('stage.c')")
    refused(db, "55000", "SELECT skill_system.stop_audit_table('stage.plain')")
    refused(db, "22023", "SELECT skill_system.stop_audit_table('skill_system.policy_profiles')")
    refused(db, "22023", "SELECT skill_system.stop_audit_table(NULL)")
    refused(connect("test_admin"), "42501", "SELECT skill_system.stop_audit_table('stage.t')")
    refused(owner, "42501", "SELECT skill_system.stop_audit_table('stage.t')")
    db.execute("SELECT skill_system.stop_audit_table('stage.t', 'moved')")
    assert db.execute(granted).fetchone() == (False,)
    db.execute("SELECT skill_system.stop_audit_table('stage.p')")
    # What has another audited parent is recorded for that one.
    assert db.execute(triggers).fetchall() == [("below", 2), ("both", 2), ("q", 2)]
    for table in ("t", "t1", "t2", "t21"):
        owner.execute(f"INSERT INTO stage.t VALUES (1, 1), (2, 2); UPDATE stage.t SET v = 3; TRUNCATE stage.{table}")
        assert records(db, f"stage.{table}")[:-1] == [] and (
            table != "t" or records(db, "stage.t")[0][0] == "table.audit_stopped"
        )
    owner.execute("CREATE TABLE stage.t4 PARTITION OF stage.t FOR VALUES IN (4); INSERT INTO stage.t VALUES (4, 4)")
    assert records(db, "stage.t4") == []
    owner.execute("INSERT INTO stage.below VALUES (1)")
    assert [kind for kind, _ in records(db, "stage.below")] == ["row.inserted"]
    db.execute("SELECT skill_system.stop_audit_table('stage.q')")
    assert db.execute(triggers).fetchall() == []
    assert db.execute(
        "SELECT event_data FROM skill_system.audit_logs WHERE event_type = 'table.audit_stopped' AND event_data ? 'reason' "
        "AND event_data->>'table' = 'stage.t' ORDER BY recorded_at DESC LIMIT 1"
    ).fetchone() == ({"table": "stage.t", "reason": "moved"},)
    # And begins again.
    db.execute("SELECT skill_system.audit_table('stage.t')")
    owner.execute("INSERT INTO stage.t VALUES (1, 9)")
    assert [kind for kind, _ in records(db, "stage.t1")] == ["row.inserted"]


DETACHED = {
    "plainly": ("CREATE TABLE stage.late PARTITION OF stage.t FOR VALUES IN (2)", "DETACH PARTITION stage.late"),
    "at the same time": (
        "CREATE TABLE stage.late PARTITION OF stage.t FOR VALUES IN (2)",
        "DETACH PARTITION stage.late CONCURRENTLY",
    ),
    "by its name alone": ("CREATE TABLE stage.late PARTITION OF stage.t DEFAULT", "DETACH PARTITION late"),
    "with partitions": (
        "CREATE TABLE stage.sub PARTITION OF stage.t FOR VALUES IN (2) PARTITION BY LIST (v); "
        "CREATE TABLE stage.late PARTITION OF stage.sub DEFAULT",
        "DETACH PARTITION stage.sub",
    ),
    "attached before": (
        "CREATE TABLE stage.late (LIKE stage.t); ALTER TABLE stage.t ATTACH PARTITION stage.late FOR VALUES IN (2)",
        "DETACH PARTITION stage.late",
    ),
}


@pytest.mark.parametrize("how", DETACHED)
def test_a_detached_partition_stays_protected(db, owner, how):
    create, detach = DETACHED[how]
    owner.execute("SET search_path = stage; CREATE TABLE t (id int, v int) PARTITION BY LIST (id)")
    for when in ("before", "after"):
        if when == "after":
            db.execute("SELECT skill_system.audit_table('stage.t', columns => '{v}')")
            db.execute("SELECT skill_system.make_append_only('stage.t')")
        owner.execute(create)
        owner.execute("INSERT INTO t VALUES (2, 1)")
        owner.execute(f"ALTER TABLE t {detach}")
        if when == "before":
            owner.execute("DELETE FROM late")
            owner.execute("DROP TABLE IF EXISTS sub, late CASCADE")
    owner.execute("INSERT INTO late VALUES (2, 7)")
    for role in ("origin", "replica"):
        db.execute(f"SET session_replication_role = {role}")
        for statement in ("DELETE FROM stage.late", "UPDATE stage.late SET v = 3", "TRUNCATE stage.late"):
            refused(db, "55000", statement)
    db.execute("RESET session_replication_role")
    assert [data["new"] for _, data in records(db, "stage.late")] == [{"v": 1}, {"v": 7}]
    # What is no longer needed can go, as a whole.
    owner.execute("DROP TABLE late")


@pytest.mark.parametrize("setting", ["on", "off"])
@pytest.mark.parametrize("call", ["audit_table", "make_append_only"])
@pytest.mark.parametrize("table", ["runs", "policy_profiles", "audit_logs", "audit_logs_default", "audit_state"])
def test_tables_of_the_extension_are_refused(db, table, call, setting):
    db.execute(f"SET quote_all_identifiers = {setting}")
    error = refused(db, "22023", f"SELECT skill_system.{call}('skill_system.{table}')")
    db.execute("RESET quote_all_identifiers")
    assert error.diag.message_primary == f"skill_system.{table} is a table of the extension"


def test_a_choice_made_again_holds_for_children(db, owner):
    owner.execute("CREATE TABLE stage.t (id int, v int, w int); CREATE TABLE stage.late () INHERITS (stage.t)")
    db.execute("SELECT skill_system.audit_table('stage.t', columns => '{v}')")
    db.execute("SELECT skill_system.audit_table('stage.t', ignored_columns => '{v,id}')")
    owner.execute("CREATE TABLE stage.later (x int) INHERITS (stage.t)")
    for table in ("late", "later"):
        owner.execute(f"INSERT INTO stage.{table} (id, v, w) VALUES (1, 2, 3)")
    assert [data["new"] for _, data in records(db, "stage.late")] == [{"w": 3}]
    assert [data["new"] for _, data in records(db, "stage.later")] == [{"w": 3, "x": None}]


def test_a_schema_statement_brings_a_child(db, owner):
    owner.execute("CREATE TABLE stage.t (id int)")
    db.execute("SELECT skill_system.make_append_only('stage.t')")
    db.execute("CREATE SCHEMA stage2 CREATE TABLE kid () INHERITS (stage.t)")
    db.execute("INSERT INTO stage2.kid VALUES (1)")
    for statement in ("TRUNCATE stage2.kid", "DELETE FROM stage.t"):
        refused(db, "55000", statement)
    db.execute("DROP SCHEMA stage2 CASCADE")


def test_other_tables_are_left_alone(db, owner):
    """Also by a role without any right in the extension, in one transaction with a failure."""
    with owner.transaction():
        owner.execute("CREATE TABLE stage.p (id int) PARTITION BY LIST (id)")
        owner.execute("CREATE TABLE stage.p1 PARTITION OF stage.p DEFAULT")
        owner.execute("CREATE TEMP TABLE x (a int)")
        refused(owner, "42P07", "CREATE TABLE stage.p (id int)")
        owner.execute("ALTER TABLE stage.p ADD v int")
    assert db.execute(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('stage.p'::regclass, 'stage.p1'::regclass)"
    ).fetchone() == (0,)
    refused(owner, "42501", "SELECT skill_system.make_append_only('stage.p')")


def test_casts_of_others_are_not_run(db, owner):
    """to_jsonb() runs the casts to json of a type's owner, with the rights of the session that writes the row."""
    owner.execute(
        "CREATE TYPE stage.state AS ENUM ('open', 'closed'); CREATE TYPE stage.pair AS (a stage.state, b int); "
        "CREATE DOMAIN stage.always AS stage.state; CREATE TYPE stage.span AS RANGE (subtype = int); "
        "CREATE FUNCTION stage.forge(stage.state) RETURNS json LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'run as %', current_user; END $$; "
        "CREATE FUNCTION stage.forge(stage.span) RETURNS json LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'run as %', current_user; END $$; "
    )
    db.execute(
        "CREATE TABLE stage.t (id stage.state PRIMARY KEY, d stage.always, l stage.state[], p stage.pair, "
        "pl stage.pair[], s stage.span, m stage.span_multirange) "
    )
    db.execute("SELECT skill_system.audit_table('stage.t')")
    # Also those made after the choice.
    owner.execute(
        "CREATE CAST (stage.state AS json) WITH FUNCTION stage.forge(stage.state); "
        "CREATE CAST (stage.span AS json) WITH FUNCTION stage.forge(stage.span)"
    )
    refused(db, "P0001", "SELECT to_jsonb('open'::stage.state)")
    db.execute(
        "INSERT INTO stage.t VALUES ('open', 'closed', '{open,NULL}', '(open,1)', '{\"(open,1)\"}', '[1,2)', '{[1,2)}')"
    )
    db.execute("UPDATE stage.t SET id = 'closed'")
    row = {"d": "closed", "l": "{open,NULL}", "p": "(open,1)", "pl": '{"(open,1)"}', "s": "[1,2)", "m": "{[1,2)}"}
    inserted, updated = records(db, "stage.t")
    assert inserted == ("row.inserted", {"key": {"id": "open"}, "new": {"id": "open"} | row})
    assert updated[1]["old_key"] == {"id": "open"} and updated[1]["key"] == {"id": "closed"}


def test_other_statements_add_no_triggers(db, owner):
    """A restore creates partitions, then each of the triggers: none of its statements may do the work of a later one."""
    for call, kind in (("make_append_only", "no_change"), ("audit_table", "audit")):
        name = f"stage.{kind}"
        db.execute(f"CREATE TABLE {name} (id int) PARTITION BY LIST (id)")
        db.execute(f"CREATE TABLE {name}_1 PARTITION OF {name} DEFAULT")
        db.execute(f"CREATE TABLE {name}_up (id int)")
        db.execute(f"CREATE TABLE {name}_down () INHERITS ({name}_up)")
        for table in (name, f"{name}_up"):
            db.execute(f"SELECT skill_system.{call}('{table}')")
        made = (
            "SELECT tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid), tgparentid <> 0 FROM pg_trigger "
            f"WHERE tgrelid::regclass::text LIKE '{name}%' AND tgname LIKE 'skill_system%' ORDER BY 1, 2"
        )
        before = db.execute(made).fetchall()
        assert len(before) == 8
        for table, trigger, _, is_cloned in reversed(before):
            if not is_cloned:
                db.execute(f"DROP TRIGGER {trigger} ON {table}")
        assert db.execute(made).fetchall() == []
        for table, trigger, definition, is_cloned in before:
            if not is_cloned:
                db.execute(definition)
            db.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
        assert db.execute(made).fetchall() == before


# ---- the writer's settings


def test_values_do_not_depend_on_the_settings_of_the_writer(db, owner, connect):
    """What is stored is one value; what is recorded of it is one text."""
    owner.execute("CREATE TYPE stage.pair AS (at timestamptz, took interval)")
    columns = {
        "at": ("timestamptz", "'2026-07-01 12:00:00.5+00'"),
        "local": ("timestamp", "'2026-07-01 12:00:00.5'"),
        "day": ("date", "'2026-07-01'"),
        "hour": ("timetz", "'12:00:00+02'"),
        "took": ("interval", "'1 year 2 days -03:04:05.5'"),
        "depth": ("float8", "0.1::float8 + 0.2::float8"),
        "small": ("float4", "0.1::float4"),
        "raw": ("bytea", r"'\x00ff5c'"),
        "fee": ("money", "'12.34'::numeric::money"),
        "number": ("numeric", "1234567.890"),
        "what": ("regclass", "'skill_system.audit_logs'::regclass"),
        "kind": ("regtype", "'timestamptz'::regtype"),
        "times": ("timestamptz[]", "ARRAY['2026-01-01 00:00+00'::timestamptz]"),
        "period": ("tstzrange", "tstzrange('2026-01-01 00:00+00', '2026-07-01 00:00+00')"),
        "floats": ("float8[]", "ARRAY[0.1::float8 + 0.2::float8]"),
        "pair": ("stage.pair", "ROW('2026-01-01 00:00+00', '1 day 02:00:00')::stage.pair"),
        "document": ("json", "'{\"a\": 1.50}'"),
        "page": ("xml", "xmlelement(name a, xmlattributes(1 AS b))"),
    }
    definitions = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    owner.execute(f"CREATE TABLE stage.t (id timestamptz, {definitions}, PRIMARY KEY (id, what))")
    db.execute("SELECT skill_system.audit_table('stage.t')")
    values = ", ".join(value for _, value in columns.values())
    insert = f"INSERT INTO stage.t VALUES ('2026-01-01 00:00:00+00', {values})"
    change = "UPDATE stage.t SET id = id + interval '1 microsecond'"
    changes = []
    for name, value in [("application_name", "plain"), *SETTINGS.items()]:
        writer = connect()
        writer.execute("SET lc_monetary = 'C'")
        # Read under the settings of all, so that only the writing differs.
        writer.execute(f"PREPARE fill AS {insert}")
        writer.execute("SELECT set_config(%s, %s, false)", [name, value])
        for statement in ("EXECUTE fill", change, "DELETE FROM stage.t"):
            writer.execute(statement)
        assert writer.execute("SELECT current_setting(%s)", [name]).fetchone()[0].startswith(value.split(",")[0])
        changes.append(records(db, "stage.t")[-3:])
    assert [event for event, _ in changes[0]] == ["row.inserted", "row.updated", "row.deleted"]
    for name, found in zip(SETTINGS, changes[1:], strict=True):
        assert found == changes[0], name
    new = changes[0][0][1]["new"]
    assert new["at"] == "2026-07-01T12:00:00.5+00:00" and new["raw"] == "\\x00ff5c"
    assert new["what"] == "skill_system.audit_logs" and new["depth"] == 0.30000000000000004
    assert new["period"] == '["2026-01-01 00:00:00+00","2026-07-01 00:00:00+00")'


def test_types_and_children_that_meet_in_many_ways_are_looked_at_once(db, owner):
    """Followed along every way, each level would double the work."""
    owner.execute("CREATE TYPE stage.t0 AS (a int)")
    for level in range(1, 20):
        owner.execute(f"CREATE TYPE stage.t{level} AS (a stage.t{level - 1}, b stage.t{level - 1})")
    owner.execute("CREATE TABLE stage.wide (id int PRIMARY KEY, v stage.t19)")
    for level in range(20):
        above = f"() INHERITS (stage.a{level - 1}, stage.b{level - 1})" if level else "(id int)"
        for side in "ab":
            owner.execute(f"CREATE TABLE stage.{side}{level} {above}")
    db.execute("SET statement_timeout = '2s'")
    db.execute("SELECT skill_system.audit_table('stage.wide'); SELECT skill_system.audit_table('stage.a0')")
    db.execute("RESET statement_timeout")
    owner.execute("SET statement_timeout = '1s'")
    owner.execute("INSERT INTO stage.wide VALUES (1, NULL)")
    owner.execute("INSERT INTO stage.b19 VALUES (1)")
    assert [event for event, _ in records(db, "stage.wide") + records(db, "stage.b19")] == ["row.inserted"] * 2
