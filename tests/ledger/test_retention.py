"""Legal holds and the retirement of old partitions: two persons, nothing young, held, unsealed or tampered with, and
proofs that hold before and after."""

import base64
import hashlib
import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors

import skr1
from ledger import includes, node

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def people(db, roles):
    db.execute("DROP ROLE IF EXISTS test_second_admin")
    db.execute("CREATE ROLE test_second_admin LOGIN IN ROLE skill_system_admin")
    yield
    db.execute("DROP ROLE test_second_admin")


class Log:
    """A fresh database with an old partition, 2024-03, whose records are signed truly and sealed."""

    def __init__(self, name, connect):
        self.name = name
        self.db = connect(dbname=name)
        self.first = connect("test_admin", dbname=name)
        self.second = connect("test_second_admin", dbname=name)
        self.db.execute("SELECT skill_system.append_audit('before', '{}')")
        self.log_id = str(self.db.execute("SELECT log_id FROM skill_system.audit_state").fetchone()[0])
        self.keyring = self.db.execute("SELECT pg_read_file('skill_system_keyring.json')").fetchone()[0]
        [self.key_id] = [
            key["kid"] for key in json.loads(self.keyring)["keys"] if key["kty"] == "oct" and key["active"]
        ]

    def month(self, month, records=600, start=0):
        self.db.execute("SELECT skill_system.create_audit_partition(%s)", [month + "-01"])
        day = datetime.fromisoformat(month + "-02T00:00:00+00:00")
        self.write([(day + timedelta(minutes=i), "old", json.dumps({"n": i})) for i in range(start, start + records)])

    def write(self, records, **values):
        """Records as a restore brings them: with their old times, signed with the log's own key. Returns their ids."""
        ring, ids = skr1.keys(self.keyring), []
        with self.db.transaction(), self.db.cursor() as cursor:
            transaction = cursor.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
            rows = []
            for when, event_type, data in records:
                milliseconds = int(when.timestamp() * 1000)
                id = str(
                    uuid.UUID(
                        int=(milliseconds << 80) | (7 << 76) | (uuid.uuid4().int & ~(-1 << 76) & ~(3 << 62)) | (2 << 62)
                    )
                )
                row = {
                    "id": id,
                    "tenant_id": "default",
                    "event_type": event_type,
                    "event_data": data,
                    "actor_id": None,
                    "actor_type": None,
                    "created_at": when.isoformat(),
                    "recorded_at": when.isoformat(),
                    "transaction_id": transaction,
                    "session_user_name": "somebody",
                    "current_user_name": "somebody",
                    "key_id": self.key_id,
                    **values,
                }
                row = tuple(row[name] for name in skr1.COLUMNS)
                rows.append((*row, skr1.signature(row, self.log_id, ring)))
                ids.append(id)
            cursor.executemany(
                f"INSERT INTO skill_system.audit_logs ({', '.join(skr1.COLUMNS)}, signature) "
                f"VALUES ({', '.join(['%s'] * 13)})",
                rows,
            )
        return ids

    def seal(self):
        self.db.execute("SELECT * FROM skill_system.seal_audit()")

    def checkpoint(self):
        return self.db.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0]

    def leaf(self, id):
        return self.db.execute("SELECT skill_system.audit_leaf_index(%s)", [id]).fetchone()[0]

    def retire(self, who, month="2024-03-15", reference="schedule 4.2"):
        return who.execute(
            "SELECT step, partition, records, root_hash, detail FROM skill_system.retire_audit_partition(%s, %s)",
            [month, reference],
        ).fetchone()

    def refused(self, who, match, error=errors.ObjectNotInPrerequisiteState, **arguments):
        with pytest.raises(error, match=match) as caught:
            self.retire(who, **arguments)
        assert self.db.execute("SELECT to_regclass('skill_system.audit_logs_2024_03') IS NOT NULL").fetchone()[0]
        return caught.value.diag

    def export(self, *arguments):
        lines = [
            json.loads(line)
            for (line,) in self.db.execute(
                f"SELECT * FROM skill_system.audit_export({', '.join(['%s::timestamptz'] * len(arguments))})", arguments
            )
        ]
        return lines[0], lines[1:-1], lines[-1]

    def tamper(self, table, *statements):
        """As an owner without scruples."""
        trigger = f"{'audit_logs' if table.startswith('audit_logs') else table}_no_change"
        self.db.execute("SET skill_system.allow_unprotected = on")
        self.db.execute(f"ALTER TABLE skill_system.{table} DISABLE TRIGGER {trigger}")
        for statement in statements:
            self.db.execute(statement)
        self.db.execute(f"ALTER TABLE skill_system.{table} ENABLE ALWAYS TRIGGER {trigger}")
        self.db.execute("RESET skill_system.allow_unprotected")


@pytest.fixture
def log(people, fresh_database, connect):
    log = Log(fresh_database(), connect)
    log.month("2024-03")
    log.db.execute("SELECT skill_system.append_audit('after', '{}')")
    log.seal()
    return log


# ---- RFC 6962, written from its text


def tree(start, end, known):
    """Root of the leaves [start, end); known: (start, end) -> hash, of leaves and of whole subtrees."""
    if (start, end) in known:
        return known[start, end]
    half = 1 << (end - start - 1).bit_length() - 1
    return node(tree(start, start + half, known), tree(start + half, end, known))


def root_of(hashes):
    return (
        tree(0, len(hashes), {(i, i + 1): hash for i, hash in enumerate(hashes)})
        if hashes
        else hashlib.sha256(b"").digest()
    )


def root_of_export(log, export):
    """Recomputed from the values of the records and the covers of what is retired."""
    first, lines, last = export
    known, at = {}, 0
    for line in lines:
        assert line["leaf"] == at
        if line.get("retired"):
            end, hashes = at + line["count"], [base64.b64decode(hash) for hash in line["hashes"]]
            while at < end:
                size = 1 << (end - at).bit_length() - 1
                while at % size:
                    size //= 2
                known[at, at + size] = hashes.pop(0)
                at += size
            assert hashes == []
            continue
        assert "missing" not in line
        row = tuple(
            json.dumps(line[name]) if name == "event_data" else None if line[name] is None else str(line[name])
            for name in skr1.COLUMNS
        )
        known[at, at + 1] = hashlib.sha256(b"\x00" + skr1.encode(row, log.log_id) + line["signature"].encode()).digest()
        at += 1
    assert at == first["size"]
    return tree(0, at, known), base64.b64decode(first["root"])


# ---- two persons


def test_two_persons_retire_a_partition_and_every_proof_still_holds(log):
    retired = [id for (id,) in log.db.execute("SELECT id FROM skill_system.audit_logs_2024_03 ORDER BY created_at")]
    kept = [
        id for (id,) in log.db.execute("SELECT id FROM skill_system.audit_logs WHERE event_type IN ('before', 'after')")
    ]
    assert (len(retired), len(kept)) == (600, 2)
    log.checkpoint()
    assert len(set(root_of_export(log, log.export()))) == 1
    leaves = dict(log.db.execute("SELECT record_id, leaf_hash FROM skill_system.audit_leaves()").fetchall())
    indexes = {id: leaf for leaf, id in log.db.execute("SELECT leaf_index, record_id FROM skill_system.audit_leaves()")}
    [(old_size,)] = log.db.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchall()

    step, partition, *_, detail = log.retire(log.first)
    assert (step, partition) == ("requested", "audit_logs_2024_03") and "second person" in detail
    assert log.retire(log.first)[0] == "waiting"
    assert log.db.execute("SELECT count(*) FROM skill_system.audit_logs_2024_03").fetchone() == (600,)
    step, _, records, root, detail = log.retire(log.second)
    assert (step, records) == ("retired", 600)
    assert "test_admin" in detail and "test_second_admin" in detail
    assert root == root_of([leaves[id] for id in sorted(retired, key=indexes.get)])
    assert log.db.execute("SELECT to_regclass('skill_system.audit_logs_2024_03')").fetchone() == (None,)

    # The record says it all, signed, and audit_retirements says the same.
    [(data, session)] = log.db.execute(
        "SELECT event_data, session_user_name FROM skill_system.audit_logs WHERE event_type = 'audit.partition_retired'"
    ).fetchall()
    start = min(indexes[id] for id in retired)
    assert session == "test_second_admin"
    assert {
        name: data[name]
        for name in (
            "partition",
            "since",
            "until",
            "leaves",
            "count",
            "root_hash",
            "policy_reference",
            "requested_by",
            "approved_by",
            "checkpoint_size",
            "key_ids",
        )
    } == {
        "partition": "audit_logs_2024_03",
        "since": "2024-03-01T00:00:00Z",
        "until": "2024-04-01T00:00:00Z",
        "leaves": f"{{[{start},{start + 600})}}",
        "count": 600,
        "root_hash": root.hex(),
        "policy_reference": "schedule 4.2",
        "requested_by": "test_admin",
        "approved_by": "test_second_admin",
        "checkpoint_size": old_size,
        "key_ids": [log.key_id],
    }
    assert log.first.execute(
        "SELECT partition, since::date::text, leaves::text, records, root_hash, requested_by, approved_by "
        "FROM skill_system.audit_retirements"
    ).fetchall() == [("audit_logs_2024_03", "2024-03-01", data["leaves"], 600, root, "test_admin", "test_second_admin")]

    # Before the retirement record is sealed, and after it.
    for _ in range(2):
        first, lines, last = log.export()
        assert [line for line in lines if line.get("missing")] == []
        [run] = [line for line in lines if line.get("retired")]
        assert (run["leaf"], run["count"], last["retired"], last["missing"]) == (start, 600, 600, 0)
        assert len(set(root_of_export(log, (first, lines, last)))) == 1
        log.seal()
        log.checkpoint()
    # A part of the log: the retired run is clipped to it, and a time in the retired month leads to it.
    first, lines, _ = log.export("2024-03-05", "2024-03-06")
    assert (first["start"], first["end"], [line["leaf"] for line in lines]) == (start, start + 600, [start])
    assert log.export("2024-04-01", "2024-04-02")[1] == []

    assert log.db.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    for id in [*retired[::50], retired[-1], *kept]:
        index, size, leaf, root, proof = log.db.execute(
            "SELECT leaf_index, tree_size, leaf_hash, root_hash, hashes FROM skill_system.audit_inclusion_proof(%s)",
            [id],
        ).fetchone()
        assert (index, leaf) == (indexes[id], leaves[id]) and size > old_size
        assert includes(leaf, index, size, proof, root)
        assert not includes(leaf, index ^ 1, size, proof, root)
    old_root, new_root = log.db.execute(
        "SELECT old_root_hash, new_root_hash FROM skill_system.audit_consistency_proof(%s)", [old_size]
    ).fetchone()
    assert (
        old_root
        == log.db.execute("SELECT root_hash FROM skill_system.audit_checkpoints ORDER BY tree_size LIMIT 1").fetchone()[
            0
        ]
        != new_root
    )
    # The month is over: it cannot be retired twice.
    with pytest.raises(errors.UndefinedObject, match="no partition for 2024-03"):
        log.retire(log.first)


def test_neighbouring_retirements_are_one_run(log):
    log.month("2024-04", 300)
    log.month("2024-05", 300)
    log.seal()
    for month in ("2024-03-01", "2024-05-01", "2024-04-01"):
        log.retire(log.first, month=month)
        assert log.retire(log.second, month=month)[0] == "retired"
    log.seal()
    export = log.export()
    runs = [(line["leaf"], line["count"]) for line in export[1] if line.get("retired")]
    # 'after' was sealed between March and April.
    assert [count for _, count in runs] == [600, 600]
    assert len(set(root_of_export(log, export))) == 1
    assert log.db.execute("SELECT count(*) FROM skill_system.audit_retirements").fetchone() == (3,)


def test_who_may_and_who_counts_as_second(log, connect):
    for who in ("test_agent", "test_reviewer", "test_auditor"):
        with connect(who, dbname=log.name) as connection, pytest.raises(errors.InsufficientPrivilege):
            log.retire(connection)
    log.retire(log.first)
    # The same person with another session, another role in force, or somebody else's name.
    with connect("test_admin", dbname=log.name) as connection:
        assert log.retire(connection)[0] == "waiting"
        connection.execute("SET ROLE skill_system_admin")
        assert log.retire(connection)[0] == "waiting"
    with connect(dbname=log.name) as superuser:
        superuser.execute("SET SESSION AUTHORIZATION test_second_admin")
        log.refused(superuser, "SET SESSION AUTHORIZATION", errors.InsufficientPrivilege)
    # A role that is not an administrator does not become one through another role's function.
    log.db.execute(
        "CREATE FUNCTION public.lent() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$SELECT step "
        "FROM skill_system.retire_audit_partition('2024-03-01', 'schedule 4.2')$$"
    )
    with (
        connect("test_agent", dbname=log.name) as connection,
        pytest.raises(errors.InsufficientPrivilege, match="test_agent"),
    ):
        connection.execute("SELECT public.lent()")
    # The request is of somebody who has left.
    log.db.execute("REVOKE skill_system_admin FROM test_admin")
    try:
        log.refused(log.second, "test_admin", errors.InsufficientPrivilege)
    finally:
        log.db.execute("GRANT skill_system_admin TO test_admin")
    # Administrators of one tenant do not decide over the records of all.
    log.db.execute("ALTER ROLE test_second_admin SET skill_system.tenant = 'acme'")
    try:
        with connect("test_second_admin", dbname=log.name) as connection:
            log.refused(connection, "all tenants", errors.InsufficientPrivilege)
            for call in (
                "set_legal_hold('2024-01-01', NULL, 'x')",
                "release_legal_hold(1, 'x')",
                "withdraw_audit_retirement('2024-03-01', 'x')",
                "rotate_audit_key()",
            ):
                with pytest.raises(errors.InsufficientPrivilege, match="all tenants"):
                    connection.execute(f"SELECT skill_system.{call}")
    finally:
        log.db.execute("ALTER ROLE test_second_admin RESET skill_system.tenant")
    assert log.retire(log.second)[0] == "retired"


def test_the_two_must_mean_the_same(log):
    log.retire(log.first)
    diagnosis = log.refused(log.second, "another policy reference", reference="schedule 5")
    assert "schedule 4.2" in diagnosis.message_detail
    # Another month is another request.
    log.month("2024-04", 1)
    log.seal()
    assert log.retire(log.second, month="2024-04-01")[0] == "requested"
    log.second.execute("SELECT skill_system.withdraw_audit_retirement('2024-03-31', 'not yet')")
    with pytest.raises(errors.UndefinedObject):
        log.second.execute("SELECT skill_system.withdraw_audit_retirement('2024-03-31', 'not yet')")
    assert log.retire(log.second, reference="schedule 5")[0] == "requested"
    assert log.retire(log.first, reference="schedule 5")[0] == "retired"
    assert log.retire(log.first, month="2024-04-01")[0] == "retired"
    assert [
        kind
        for (kind,) in log.db.execute(
            "SELECT event_type FROM skill_system.audit_logs WHERE event_type LIKE 'audit.%%ret%%' ORDER BY recorded_at",
            [],
        )
    ] == [
        "audit.retirement_requested",
        "audit.retirement_requested",
        "audit.retirement_withdrawn",
        "audit.retirement_requested",
        "audit.partition_retired",
        "audit.partition_retired",
    ]


def request_of_another(log, age, **values):
    """A request as the first person made it some time ago."""
    data = json.dumps({"partition": "audit_logs_2024_03", "policy_reference": "schedule 4.2"})
    [id] = log.write([(NOW - age, "audit.retirement_requested", data)], session_user_name="test_admin", **values)
    log.db.execute(
        "INSERT INTO skill_system.audit_kept SELECT "
        f"{', '.join(c.name for c in log.db.execute('SELECT * FROM skill_system.audit_kept').description)} "
        "FROM skill_system.audit_logs WHERE id = %s",
        [id],
    )
    return id


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("days, step", [(6, "retired"), (8, "requested")])
def test_a_request_ends_after_seven_days(log, days, step, sealed):
    request_of_another(log, timedelta(days=days))
    if sealed:
        log.seal()
    assert log.retire(log.second)[0] == step


def test_a_request_that_only_stands_in_the_table_is_none(log):
    """Neither one that nobody signed, nor a signed one that never became part of the log."""
    id = request_of_another(log, timedelta(days=1))
    log.tamper("audit_kept", f"UPDATE skill_system.audit_kept SET session_user_name = 'test_agent' WHERE id = '{id}'")
    assert log.retire(log.second)[0] == "requested"
    log.second.execute("SELECT skill_system.withdraw_audit_retirement('2024-03-31', 'x')")
    log.seal()
    id = request_of_another(log, timedelta(days=1), transaction_id="5")
    log.tamper("audit_logs", f"DELETE FROM skill_system.audit_logs WHERE id = '{id}'")
    assert log.retire(log.second)[0] == "requested"


def test_nobody_else_writes_records_of_the_log_about_itself(log, connect):
    for who in (log.db, log.first, connect("test_agent", dbname=log.name)):
        with pytest.raises(errors.InsufficientPrivilege, match="audit\\."):
            who.execute("SELECT skill_system.append_audit('audit.partition_retired', '{}')")
        with pytest.raises(errors.InsufficientPrivilege, match="audit\\."):
            who.execute(
                "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('audit.key_rotated', '{}')"
            )
        who.execute("SELECT skill_system.append_audit('auditor.came', '{}')")


# ---- what is refused


def test_young_months_are_refused(log):
    log.db.execute("SELECT * FROM skill_system.maintain()")
    for date in (NOW, NOW + timedelta(days=40), NOW - timedelta(days=180)):
        month = date.strftime("%Y-%m-01")
        log.db.execute("SELECT skill_system.create_audit_partition(%s)", [month]) if date < NOW - timedelta(
            days=60
        ) else None
        diagnosis = log.refused(log.first, "at least 183 days", month=month)
        assert "Act" in diagnosis.message_detail
    # The month is long over, but the record came later; recorded_at cannot be chosen by anybody.
    log.db.execute(
        "INSERT INTO skill_system.audit_logs (event_type, event_data, created_at) VALUES ('late', '{}', '2024-03-20')"
    )
    log.seal()
    log.retire(log.first)
    log.refused(log.second, "less than 183 days")


def test_the_youngest_month_that_may_go(people, fresh_database, connect):
    """The last record of the month must be 183 days old, to the day."""

    def first_of(month):
        return month.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    over = first_of(NOW - timedelta(days=183))  # the month that began before this ended at least 183 days ago
    allowed = first_of(over - timedelta(days=1))
    log = Log(fresh_database(), connect)
    for month in (allowed, over):
        log.month(month.strftime("%Y-%m"), 3)
    log.seal()
    assert log.retire(log.first, month=allowed.date())[0] == "requested"
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="183 days"):
        log.retire(log.first, month=over.date())
    assert log.retire(log.second, month=allowed.date())[2] == 3


def test_the_default_partition_is_never_retired(log):
    log.write([(datetime(2024, 2, 10, tzinfo=UTC), "stray", "{}")])
    log.seal()
    with pytest.raises(errors.UndefinedObject, match="no partition for 2024-02") as caught:
        log.retire(log.first, month="2024-02-01")
    assert "audit_logs_default" in caught.value.diag.message_detail


@pytest.mark.parametrize(
    "month, reference",
    [
        (None, "x"),
        ("infinity", "x"),
        ("-infinity", "x"),
        ("2024-03-01", None),
        ("2024-03-01", " "),
        ("2024-03-01", "x" * 1001),
    ],
)
def test_bad_arguments(log, month, reference):
    with pytest.raises(errors.InvalidParameterValue):
        log.retire(log.first, month, reference)


def test_unusual_months_are_only_unknown(log):
    for month in ("0044-03-15 BC", "0001-01-01"):
        with pytest.raises(errors.UndefinedObject):
            log.retire(log.first, month)
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="183 days"):
        log.retire(log.first, "12000-01-01")
    with pytest.raises(psycopg.Error):
        log.retire(log.first, "5874897-12-31")


def test_what_is_not_sealed_stays(log):
    log.write([(datetime(2024, 3, 20, tzinfo=UTC), "more", "{}")])
    log.retire(log.first)
    log.refused(log.second, "is not sealed")
    log.seal()
    assert log.retire(log.second)[2] == 601


TAMPERING = {
    "a value": (
        "audit_logs_2024_03",
        "UPDATE skill_system.audit_logs_2024_03 SET event_data = '{}' WHERE event_data = '{\"n\": 300}'",
        "not as it was signed: signature_mismatch",
    ),
    "a value and its signature": ("audit_logs_2024_03", "resign", "not as it was sealed"),
    "a missing record": (
        "audit_logs_2024_03",
        "DELETE FROM skill_system.audit_logs_2024_03 WHERE event_data = '{\"n\": 300}'",
        "missing",
    ),
    "a leaf": (
        "audit_tiles",
        (
            "UPDATE skill_system.audit_tiles SET hashes = set_byte(hashes, 3200, get_byte(hashes, 3200) # 1) "
            "WHERE (level, n) = (0, 1)"
        ),
        "root of the sealed tree",
    ),
    "an inner hash": (
        "audit_seal_state",
        "UPDATE skill_system.audit_seal_state SET root_hash = sha256(''), written_by = pg_current_xact_id()::text::bigint",
        "root of the sealed tree",
    ),
    "a checkpoint": (
        "audit_checkpoints",
        "UPDATE skill_system.audit_checkpoints SET root_hash = sha256('')",
        "checkpoint",
    ),
    "another server": (
        "audit_seal_state",
        "UPDATE skill_system.audit_seal_state SET system_identifier = 1",
        "sealed elsewhere",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_evidence_of_tampering_is_not_removed(log, what):
    table, statement, message = TAMPERING[what]
    log.checkpoint()
    log.retire(log.first)
    if statement == "resign":
        # By somebody who has the key.
        names = ", ".join(f"{name}::text" for name in skr1.COLUMNS)
        row = list(
            log.db.execute(
                f"SELECT {names} FROM skill_system.audit_logs_2024_03 WHERE event_data = '{{\"n\": 300}}'"
            ).fetchone()
        )
        row[skr1.COLUMNS.index("event_data")] = "{}"
        log.tamper(
            table,
            f"UPDATE skill_system.{table} SET event_data = '{{}}', "
            f"signature = '{skr1.signature(row, log.log_id, skr1.keys(log.keyring))}' WHERE id = '{row[0]}'",
        )
        assert (
            log.db.execute(
                "SELECT problem FROM skill_system.verify_audit() WHERE problem LIKE 'signature%%'", []
            ).fetchall()
            == []
        )
    else:
        log.tamper(table, statement)
    error = errors.ObjectNotInPrerequisiteState if what == "another server" else errors.DataCorrupted
    log.refused(log.second, message, error)


def test_a_retirement_that_nobody_signed_hides_nothing(log):
    """Rows that are gone are missing, whatever a table says."""
    log.retire(log.first)
    log.retire(log.second)
    log.seal()
    start = log.leaf(log.db.execute("SELECT id FROM skill_system.audit_logs WHERE event_type = 'after'").fetchone()[0])
    log.tamper("audit_logs", "DELETE FROM skill_system.audit_logs WHERE event_type = 'after'")
    assert log.export()[2]["missing"] == 1
    columns = [c.name for c in log.db.execute("SELECT * FROM skill_system.audit_kept").description]
    # A copy of a true retirement with other leaves, and one whose record never was in the log, signed with the stolen
    # key.
    forged = [
        c
        if c not in ("id", "event_data")
        else {"id": "gen_random_uuid()", "event_data": f'event_data || \'{{"leaves": "{{[{start},{start + 1})}}"}}\''}[
            c
        ]
        for c in columns
    ]
    log.db.execute(
        f"INSERT INTO skill_system.audit_kept SELECT {', '.join(forged)} FROM skill_system.audit_kept "
        "WHERE event_type = 'audit.partition_retired'"
    )
    assert log.export()[2]["missing"] == 1
    row = {
        **dict.fromkeys(skr1.COLUMNS),
        "id": str(uuid.uuid4()),
        "tenant_id": "default",
        "event_type": "audit.partition_retired",
        "event_data": json.dumps({"leaves": f"{{[{start},{start + 1})}}", "partition": "x"}),
        "created_at": NOW.isoformat(),
        "recorded_at": NOW.isoformat(),
        "transaction_id": "5",
        "session_user_name": "x",
        "current_user_name": "x",
        "key_id": log.key_id,
    }
    signature = skr1.signature(tuple(row.values()), log.log_id, skr1.keys(log.keyring))
    log.db.execute(
        f"INSERT INTO skill_system.audit_kept ({', '.join(row)}, signature) VALUES ({', '.join(['%s'] * 13)})",
        [*row.values(), signature],
    )
    assert log.export()[2]["missing"] == 1
    # The true one still counts, also when the record itself has gone the way of its partition.
    assert log.export()[2]["retired"] == 600
    log.tamper("audit_logs", "DELETE FROM skill_system.audit_logs WHERE event_type = 'audit.partition_retired'")
    assert (log.export()[2]["retired"], log.export()[2]["missing"]) == (600, 2)


def test_a_writer_in_the_middle_of_something_is_not_run_over(log, connect):
    """The lock that the removal needs stops every writer, so it is not waited for long."""
    log.retire(log.first)
    writer = connect("test_agent", dbname=log.name)
    with writer.transaction():
        writer.execute("SELECT skill_system.append_audit('busy', '{}')")
        started = time.monotonic()
        log.refused(log.second, "lock timeout", errors.LockNotAvailable)
        assert 4 < time.monotonic() - started < 15
    assert log.db.execute("SELECT count(*) FROM skill_system.audit_retirements").fetchone() == (0,)
    assert log.retire(log.second)[0] == "retired"


def test_a_rollback_takes_it_all_back(log):
    log.retire(log.first)
    with pytest.raises(ZeroDivisionError), log.second.transaction():
        assert log.retire(log.second)[0] == "retired"
        raise ZeroDivisionError
    assert log.db.execute("SELECT count(*) FROM skill_system.audit_logs_2024_03").fetchone() == (600,)
    assert log.db.execute("SELECT count(*) FROM skill_system.audit_retirements").fetchone() == (0,)
    assert log.export()[2]["retired"] == 0
    # What was let through for the removal is closed again.
    for statement in (
        "DELETE FROM skill_system.audit_logs_2024_03",
        "DELETE FROM skill_system.audit_kept",
        "UPDATE skill_system.audit_kept SET event_type = 'x'",
        "TRUNCATE skill_system.audit_kept",
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="append-only"):
            log.db.execute(statement)
    assert log.retire(log.second)[0] == "retired"


def test_the_partition_of_the_first_leaf_can_go(people, fresh_database, connect):
    """The log's first key stays known."""
    log = Log(fresh_database(), connect)
    log.db.execute("SELECT skill_system.create_audit_partition('2024-03-01')")
    # transaction_id 3 is before all others, so these are sealed first.
    log.write([(datetime(2024, 3, day, tzinfo=UTC), "old", "{}") for day in range(1, 9)], transaction_id="3")
    log.seal()
    log.retire(log.first)
    log.retire(log.second)
    assert log.db.execute("SELECT leaves::text FROM skill_system.audit_retirements").fetchone() == ("{[0,8)}",)
    assert log.db.execute(
        "SELECT event_data->>'first_key_id' FROM skill_system.audit_kept WHERE event_type = 'audit.partition_retired'"
    ).fetchone() == (log.key_id,)
    log.seal()
    assert log.db.execute("SELECT status FROM skill_system.health() WHERE \"check\" = 'keyring'").fetchone() == ("ok",)
    assert log.db.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    assert log.export()[1][0] == {**log.export()[1][0], "leaf": 0, "count": 8, "retired": True}


# ---- legal holds

HOLDS = [
    ("2024-03-31 23:59:59.999999+00", None, True),
    ("-infinity", None, True),
    ("-infinity", "infinity", True),
    ("2024-03-10", "2024-03-11", True),
    ("-infinity", "2024-03-01 00:00:00.000001+00", True),
    ("0001-03-15", "2024-04-01+00", True),
    ("2000-01-01", "2030-01-01", True),
    ("2000-01-01", "9999-12-31", True),
    ("2024-04-01 00:00:00+00", None, False),
    ("-infinity", "2024-03-01 00:00:00+00", False),
    ("0001-01-01 00:00:00+00", "2024-02-01+00", False),
]


def test_a_hold_keeps_each_month_that_it_touches(log):
    for n, (since, until, held) in enumerate(HOLDS, start=1):
        assert log.first.execute(
            "SELECT skill_system.set_legal_hold(%s, %s, 'matter 17')", [since, until]
        ).fetchone() == (n,)
        if held:
            diagnosis = log.refused(log.first, f"legal hold {n}\n")
            assert "matter 17" in diagnosis.message_detail and "test_admin" in diagnosis.message_detail
            log.second.execute("SELECT skill_system.release_legal_hold(%s, 'closed')", [n])
        assert log.retire(log.first)[0] == "requested"
        log.first.execute("SELECT skill_system.withdraw_audit_retirement('2024-03-01', 'next case')")
    # A hold between request and approval counts too.
    log.retire(log.first)
    late = len(HOLDS) + 1
    assert log.first.execute("SELECT skill_system.set_legal_hold('2024-03-01', NULL, 'matter 18')").fetchone() == (
        late,
    )
    log.refused(log.second, f"legal hold {late}")
    log.first.execute("SELECT skill_system.release_legal_hold(%s, 'closed')", [late])
    assert log.retire(log.second)[0] == "retired"


@pytest.mark.parametrize(
    ("since", "until", "what"),
    [
        ("4713-01-01 BC", None, "since"),
        ("0001-12-31 23:59+00 BC", "2024-01-01", "since"),
        ("10000-01-01 00:00+00", None, "since"),
        ("2024-01-01", "294276-12-31", "until"),
        ("-infinity", "10000-01-01 00:00+00", "until"),
    ],
)
def test_a_hold_has_times_of_the_years_1_to_9999(log, since, until, what):
    with pytest.raises(errors.InvalidParameterValue) as caught:
        log.first.execute("SELECT skill_system.set_legal_hold(%s, %s, 'x')", [since, until])
    assert caught.value.diag.message_primary == f"{what} must be a time in the years 1 to 9999"


def test_holds_are_recorded(log, connect):
    log.first.execute("SELECT skill_system.set_legal_hold('2024-03-01 01:00+01', '2024-05-01+00', ' matter 17 ')")
    log.first.execute("SELECT skill_system.set_legal_hold('-infinity', 'infinity', 'all')")
    log.second.execute("SELECT skill_system.release_legal_hold(1, 'settled')")
    for who in (log.first, connect("test_auditor", dbname=log.name)):
        who.execute("SET TIME ZONE 'UTC'")
        assert who.execute(
            "SELECT hold_id, since::text, until::text, reason, set_by, released_at IS NOT NULL, released_by, "
            "release_reason FROM skill_system.audit_legal_holds ORDER BY hold_id"
        ).fetchall() == [
            (
                1,
                "2024-03-01 00:00:00+00",
                "2024-05-01 00:00:00+00",
                "matter 17",
                "test_admin",
                True,
                "test_second_admin",
                "settled",
            ),
            (2, None, None, "all", "test_admin", False, None, None),
        ]
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="already released"):
        log.first.execute("SELECT skill_system.release_legal_hold(1, 'x')")
    with pytest.raises(errors.UndefinedObject, match="legal hold 3 does not exist"):
        log.first.execute("SELECT skill_system.release_legal_hold(3, 'x')")
    assert log.db.execute(
        "SELECT event_type, event_data->>'hold', session_user_name FROM skill_system.audit_logs "
        "WHERE event_type LIKE 'audit.legal%%' ORDER BY recorded_at",
        [],
    ).fetchall() == [
        ("audit.legal_hold_set", "1", "test_admin"),
        ("audit.legal_hold_set", "2", "test_admin"),
        ("audit.legal_hold_released", "1", "test_second_admin"),
    ]


@pytest.mark.parametrize(
    "since, until, reason",
    [
        (None, None, "x"),
        ("2024-01-02", "2024-01-01", "x"),
        ("2024-01-02", "2024-01-02", "x"),
        ("infinity", None, "x"),
        ("2024-01-01", None, None),
        ("2024-01-01", None, ""),
    ],
)
def test_bad_holds(log, since, until, reason):
    with pytest.raises(errors.InvalidParameterValue):
        log.first.execute("SELECT skill_system.set_legal_hold(%s, %s, %s)", [since, until, reason])


def test_bad_releases(log):
    log.first.execute("SELECT skill_system.set_legal_hold('2024-01-01', NULL, 'x')")
    for id, reason in ((None, "x"), (1, None), (1, " ")):
        with pytest.raises(errors.InvalidParameterValue):
            log.first.execute("SELECT skill_system.release_legal_hold(%s, %s)", [id, reason])


def test_a_damaged_hold_holds_and_a_forged_release_releases_nothing(log):
    log.first.execute("SELECT skill_system.set_legal_hold('2024-03-01', NULL, 'x')")
    columns = [c.name for c in log.db.execute("SELECT * FROM skill_system.audit_kept").description]
    forged = [{"id": "gen_random_uuid()", "event_type": "'audit.legal_hold_released'"}.get(c, c) for c in columns]
    log.db.execute(f"INSERT INTO skill_system.audit_kept SELECT {', '.join(forged)} FROM skill_system.audit_kept")
    log.refused(log.first, "legal hold 1")
    log.tamper(
        "audit_kept", "UPDATE skill_system.audit_kept SET signature = 'x' WHERE event_type = 'audit.legal_hold_set'"
    )
    log.refused(log.first, "legal hold 1")


CALL = "SELECT step FROM skill_system.retire_audit_partition('2024-03-01', 'schedule 4.2')"
BY_OTHERS = {
    "a view that calls": f"CREATE VIEW trap.v AS {CALL}",
    "a view over a function": "CREATE VIEW trap.v AS SELECT trap.f()",
    "a view with a subquery": "CREATE VIEW trap.v AS SELECT id FROM skill_system.runs WHERE (SELECT trap.f()) IS NOT NULL "
    "UNION ALL SELECT 1 WHERE (SELECT trap.f()) IS NOT NULL",
    "an inlined function": f"CREATE FUNCTION trap.v() RETURNS text LANGUAGE sql STABLE AS $${CALL}$$",
    "an inlined table function": f"CREATE FUNCTION trap.v() RETURNS TABLE (step text) LANGUAGE sql STABLE AS $${CALL}$$",
    "a definer's function": f"CREATE FUNCTION trap.v() RETURNS text LANGUAGE sql SECURITY DEFINER AS $${CALL}$$",
    "a cursor in a function": "CREATE FUNCTION trap.v() RETURNS text LANGUAGE plpgsql AS $$DECLARE r record; BEGIN "
    f"FOR r IN {CALL} LOOP END LOOP; RETURN ''; END$$",
    "dynamic SQL": f"CREATE FUNCTION trap.v() RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE $q${CALL}$q$; RETURN ''; END$$",
    "an operator": "CREATE FUNCTION trap.o(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT trap.f() > 0'; "
    "CREATE OPERATOR trap.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.o); CREATE VIEW trap.v AS SELECT 1 OPERATOR(trap.+) 1",
    "an aggregate": "CREATE FUNCTION trap.o(int, int) RETURNS int LANGUAGE sql AS 'SELECT trap.f()'; "
    "CREATE AGGREGATE trap.a(int) (SFUNC = trap.o, STYPE = int, INITCOND = '0'); CREATE VIEW trap.v AS SELECT trap.a(1)",
    "a trigger": "CREATE TABLE trap.v (x int); GRANT ALL ON trap.v TO PUBLIC; CREATE FUNCTION trap.t() RETURNS trigger LANGUAGE "
    "plpgsql AS $$BEGIN PERFORM trap.f(); RETURN NULL; END$$; CREATE TRIGGER t BEFORE INSERT ON trap.v EXECUTE FUNCTION trap.t()",
    "a default": "CREATE TABLE trap.v (x int DEFAULT trap.f(), y int); GRANT ALL ON trap.v TO PUBLIC",
    "a policy": "CREATE TABLE trap.v (x int); INSERT INTO trap.v VALUES (1); GRANT ALL ON trap.v TO PUBLIC; "
    "ALTER TABLE trap.v ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON trap.v USING (trap.f() > 0)",
}
USES = ("SELECT * FROM trap.v", "SELECT trap.v()", "SELECT * FROM trap.v()", "INSERT INTO trap.v VALUES (DEFAULT)")


def test_nothing_that_the_first_person_wrote_approves_for_the_second(log):
    log.db.execute("CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap TO PUBLIC")
    assert log.retire(log.first)[0] == "requested"
    log.first.execute(
        f"CREATE FUNCTION trap.f() RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM step FROM ({CALL}) c; RETURN 1; END$$"
    )
    for what, statements in BY_OTHERS.items():
        log.first.execute(statements)
        log.first.execute("DO $$BEGIN GRANT SELECT ON trap.v TO PUBLIC; EXCEPTION WHEN OTHERS THEN NULL; END$$")
        refused = []
        for use in USES:
            try:
                log.second.execute(use)
            except errors.InsufficientPrivilege as error:
                refused.append(error.diag.message_primary)
            except (errors.UndefinedTable, errors.UndefinedFunction, errors.ObjectNotInPrerequisiteState):
                pass
        assert any(
            "retire_audit_partition() must be called by a statement of the client" in text for text in refused
        ), (what, refused)
        log.first.execute(
            "DO $$BEGIN DROP VIEW IF EXISTS trap.v CASCADE; EXCEPTION WHEN OTHERS THEN DROP TABLE trap.v; END$$; "
            "DROP FUNCTION IF EXISTS trap.v, trap.t; DROP OPERATOR IF EXISTS trap.+ (int, int); "
            "DROP AGGREGATE IF EXISTS trap.a(int); DROP FUNCTION IF EXISTS trap.o"
        )
    # Forms that are the person's, but not seen to be.
    log.second.execute(f"PREPARE retire AS {CALL}")
    for statement in (
        f"DO $$BEGIN PERFORM step FROM ({CALL}) c; END$$",
        "EXECUTE retire",
        f"CREATE TEMP TABLE t AS {CALL}",
        f"EXPLAIN ANALYZE {CALL}",
        f"WITH t AS (INSERT INTO pg_temp.none SELECT 1) {CALL}",
        f"SELECT step, (SELECT count(*) FROM pg_class) FROM ({CALL}) c",
        "FETCH c",
    ):
        log.second.execute("BEGIN")
        log.second.execute(f"DECLARE c CURSOR FOR {CALL}")
        with pytest.raises((errors.InsufficientPrivilege, errors.UndefinedTable)):
            log.second.execute(statement)
        log.second.execute("ROLLBACK")
    assert log.db.execute("SELECT count(*) FROM skill_system.audit_retirements").fetchone() == (0,)
    assert log.second.execute(f"{CALL} WHERE true LIMIT 1").fetchone() == ("retired",)


def test_a_legal_hold_is_released_by_a_statement_of_the_client(log):
    hold = log.first.execute("SELECT skill_system.set_legal_hold('2024-01-01', NULL, 'case')").fetchone()[0]
    log.db.execute(f"CREATE VIEW public.trap AS SELECT skill_system.release_legal_hold({hold}, 'x')::text")
    log.db.execute("GRANT SELECT ON public.trap TO PUBLIC")
    with pytest.raises(errors.InsufficientPrivilege, match="must be called by a statement of the client"):
        log.first.execute("SELECT * FROM public.trap")
    log.first.execute("SELECT skill_system.release_legal_hold(%s, 'closed')", [hold])


def test_a_standby_and_read_only_transactions_are_refused(log):
    log.first.execute("SET default_transaction_read_only = on")
    for call in (
        "retire_audit_partition('2024-03-01', 'x')",
        "set_legal_hold('2024-01-01', NULL, 'x')",
        "release_legal_hold(1, 'x')",
        "withdraw_audit_retirement('2024-03-01', 'x')",
        "rotate_audit_key()",
    ):
        with pytest.raises(errors.ReadOnlySqlTransaction):
            log.first.execute(f"SELECT skill_system.{call}")
