"""The client API of skillscript's SkillStore: its contract, who may approve, the store's token, two sessions
at once, vectors of other programs."""

import base64
import hashlib
import json
import os
import re
import threading
import time
import uuid
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import errors
from psycopg.types.json import Jsonb

from skills import approve

DRAFT = '# Skill: hello\n# Status: Draft\n# Description: Says hi\nt:\n    emit(text="hi")\ndefault: t\n'
APPROVED = '# Skill: hello\n# Status: Approved\nt:\n    emit(text="hi")\ndefault: t\n'
EMPTY = "e3b0c44298fc1c14"
TIMES = {"created_at", "updated_at", "status_changed_at", "changed_at"}
CLASSES = {
    "SK404": "SkillNotFoundError",
    "SK405": "VersionNotFoundError",
    "SK409": "StorageConflictError",
    "SK403": "ApprovalRejectedError",
}


class Store:
    """The contract's methods over a connection; a fresh namespace unless one is given."""

    def __init__(self, connection, namespace=None):
        self.connection, self.namespace = connection, namespace or f"ns-{uuid.uuid4().hex}"

    def __getattr__(self, method):
        def call(*arguments):
            arguments = [Jsonb(a) if isinstance(a, (dict, list)) else a for a in arguments]
            places = ", ".join(["%s"] * len(arguments) + ["namespace => %s"])
            return self.connection.execute(
                f"SELECT skill_system.skill_store_{method}({places})", [*arguments, self.namespace]
            ).fetchone()[0]

        return call

    def update_status(self, name, status, version=None):
        """An approval names the version that is served, unless another is given."""
        if status == "Approved" and version is None:
            version = self.metadata(name)["version"]
        return self.connection.execute(
            "SELECT skill_system.skill_store_update_status(%s, %s, %s, %s)", [name, status, self.namespace, version]
        ).fetchone()[0]

    def history(self):
        return self.connection.execute(
            "SELECT action, previous_status, status, version, changed_by, approved_with "
            "FROM skill_system.skill_history WHERE namespace = %s ORDER BY revision",
            [self.namespace],
        ).fetchall()


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def token_of(*skills):
    return hashlib.sha256(
        "\n".join(f"{n}:{s}:{v}" for n, s, v in sorted(skills, key=lambda x: x[0].encode())).encode()
    ).hexdigest()[:16]


def store_refuses(sqlstate, call, *arguments):
    with pytest.raises(psycopg.Error) as caught:
        call(*arguments)
    assert caught.value.sqlstate == sqlstate, caught.value
    if sqlstate in CLASSES:
        detail = json.loads(caught.value.diag.message_detail)
        assert (detail["error"], detail["connector_type"], detail["implementation"]) == (
            CLASSES[sqlstate],
            "skill_store",
            "SkillSystemStore",
        )
        return detail
    return caught.value.diag


@pytest.fixture
def store(db):
    return Store(db)


@pytest.fixture(scope="module")
def approver(db):
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    db.execute(
        "SELECT skill_system.add_skill_approver(%s, 'vectors')",
        [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()],
    )
    return key


@pytest.fixture
def secured(connect):
    connection = connect()
    connection.execute("SET skill_system.signed_approvals = on")
    return Store(connection)


def accept_signatures(store):
    store.connection.execute("SELECT skill_system.accept_store_signatures(%s, true)", [store.namespace])


def canonical(body):
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line for line in lines if not re.match(r"\s*#\s*(status|tags)\s*:", line, re.I))


def signed(key, body):
    signature = base64.urlsafe_b64encode(key.sign(canonical(body).encode())).decode().rstrip("=")
    return re.sub(r"(?m)^# Status:.*?(?=\r?$)", f"# Status: Approved v3:{signature}", body, count=1)


# --- The contract ---


def test_what_the_store_says_of_itself(db, store):
    capabilities = db.execute("SELECT skill_system.skill_store_static_capabilities()").fetchone()[0]
    assert {k: v for k, v in capabilities.items() if k != "features"} == {
        "connector_type": "skill_store",
        "implementation": "SkillSystemStore",
        "contract_version": "1.0.0",
    }
    assert capabilities["features"] == dict.fromkeys(
        [
            "supports_writes",
            "supports_versioning",
            "supports_tag_filter",
            "supports_audit_trail",
            "supports_atomic_status_transitions",
        ],
        True,
    )
    manifest = store.manifest()
    assert manifest["capabilities_version"] == "1" and (
        manifest["manifest"]["kind"],
        manifest["manifest"]["namespace"],
    ) == ("postgresql", store.namespace)


def test_types_are_the_contracts(store):
    before = int(time.time()) - 5
    info = store.store(
        "a", DRAFT, {"author": "alice", "metadata_bag": {"tags": ["x"], "n": 1.5, "none": None}, "tags": ["ignored"]}
    )
    assert info == {
        "name": "a",
        "version": sha(DRAFT)[:12],
        "content_hash": sha(DRAFT),
        "status": "Draft",
        "changed_at": info["changed_at"],
        "changed_by": "alice",
    }
    meta = store.metadata("a")
    assert set(meta) == {
        "name",
        "version",
        "content_hash",
        "status",
        "created_at",
        "updated_at",
        "status_changed_at",
        "description",
        "author",
        "metadata_bag",
    }
    assert meta["metadata_bag"] == {"tags": ["x"], "n": 1.5, "none": None, "author": "alice"}
    assert (
        all(type(meta[key]) is int and before <= meta[key] <= time.time() + 5 for key in TIMES & set(meta))
        and type(info["changed_at"]) is int
    )
    source = store.load("a")
    assert set(source) == {"name", "version", "content_hash", "source", "metadata"} and source["metadata"] == meta
    assert set(store.store("b", "t:\n")) == {"name", "version", "content_hash", "status", "changed_at", "changed_by"}
    assert set(store.metadata("b")) == {
        "name",
        "version",
        "content_hash",
        "status",
        "created_at",
        "updated_at",
        "status_changed_at",
    }
    assert store.connection.execute("SELECT skill_system.skill_store_delete('b', %s)", [store.namespace]).fetchone()[
        0
    ] in ("", None)


def test_bodies_come_back_byte_for_byte(store):
    for number, body in enumerate(
        [
            "",
            "\r\n\r",
            "\ufeff# Skill: x\r\n# Status: Disabled \u2028\n",
            "日本語 \U0001f680 e\u0301\t ",
            DRAFT * 3000,
            "\x01\x7f\n\n\n",
        ]
    ):
        info = store.store(f"b{number}", body)
        assert (info["content_hash"], info["version"]) == (sha(body), sha(body)[:12])
        assert store.load(f"b{number}")["source"] == body
    store_refuses("54000", store.store, "large", "x" * ((16 << 20) + 1))


def test_an_old_version_has_old_bytes_and_new_metadata(store):
    old = store.store("a", DRAFT, {"author": "alice", "metadata_bag": {"k": 1}})["version"]
    store.store("a", APPROVED, {"description": "new"})
    meta = store.metadata("a")
    # Replaced, not merged.
    assert "metadata_bag" not in meta and "author" not in meta and meta["description"] == "new"
    loaded = store.load("a", old)
    assert (loaded["source"], loaded["version"], loaded["content_hash"]) == (DRAFT, old, sha(DRAFT))
    assert loaded["metadata"] == meta and meta["version"] == sha(APPROVED)[:12]


def test_every_transition_is_there(store):
    words = ["Draft", "Approved", "Disabled"]
    store.store("a", DRAFT, {"author": "alice", "metadata_bag": {"k": 1}})
    previous = "Draft"
    for status in [b for a in words for b in (words + [a])]:
        info = store.update_status("a", status)
        loaded = store.load("a")
        assert (info["status"], info["previous_status"], loaded["metadata"]["status"]) == (status, previous, status)
        assert loaded["source"] == DRAFT.replace("Draft", status) and info["version"] == sha(loaded["source"])[:12]
        assert (
            loaded["metadata"]["metadata_bag"] == {"k": 1, "author": "alice"}
            and loaded["metadata"]["description"] == "Says hi"
        )
        previous = status
    assert len(store.versions("a")) == 3
    changes = [row for row in store.history() if row[0] != "registered"]
    assert changes and all(row[1] != row[2] for row in changes), (
        "a transition to the same status with the same body changes nothing"
    )


def test_versions_are_in_the_order_of_seconds_and_then_as_they_came(store):
    bodies = [f"# Skill: a\n# Status: Draft\n{n}\n" for n in range(4)]
    came = [store.store("a", body)["version"] for body in bodies]
    time.sleep(1.1)
    store.store("a", bodies[1])
    listed = store.versions("a")
    assert listed == sorted(listed, key=lambda info: (info["changed_at"], came.index(info["version"])))
    assert listed[-1]["version"] == came[1] and len(listed) == 4 and "previous_status" not in listed[-1]
    time.sleep(1.1)
    # The same again changes nothing.
    revision = len(store.history())
    assert store.store("a", bodies[1])["changed_at"] == listed[-1]["changed_at"] and len(store.history()) == revision


def test_errors_map_to_the_contracts_classes(store):
    store.store("a", DRAFT)
    for call, arguments in (
        (store.load, ("nope",)),
        (store.load, ("nope", "ffffffffffff")),
        (store.metadata, ("nope",)),
        (store.versions, ("nope",)),
        (store.delete, ("nope",)),
        (store.update_status, ("nope", "Draft")),
    ):
        assert store_refuses("SK404", call, *arguments)["name"] == "nope"
    store_refuses("SK405", store.load, "a", "ffffffffffff")
    for name in ("", "x" * 201, "a\nb"):
        store_refuses("SK409", store.store, name, DRAFT)
    for name in ("a", "nope"):
        for status in ("draft", "Bogus", None):
            store_refuses("22023", store.update_status, name, status)
    for call, arguments in (
        (store.store, ("a", None)),
        (store.store, (None, "x")),
        (store.load, (None,)),
        (store.store, ("a", "x", {"status": "Bogus"})),
        (store.store, ("a", "x", [1])),
    ):
        store_refuses("22023", call, *arguments)
    store_refuses("22023", Store(store.connection, "No Namespace").version)
    store.connection.execute(
        "UPDATE skill_system.skill_heads SET pinned = true WHERE namespace = %s", [store.namespace]
    )
    store_refuses("SK409", store.store, "a", APPROVED)
    store_refuses("SK409", store.update_status, "a", "Disabled")
    assert store.load("a")["source"] == DRAFT


def test_filters(store):
    for name, status, bag in (
        ("b", "Draft", {"tags": ["x", "y"]}),
        ("B", "Approved", {"tags": "x"}),
        ("a1", "Disabled", {"tags": {"x": "x"}}),
        ("a2", "Draft", {"tags": [1, None]}),
        ("é", "Draft", {}),
        ("a", "Approved", {"tags": ["x"]}),
    ):
        store.store(name, "t:\n", {"status": status, "metadata_bag": bag, "author": name * 2})

    def names(**conditions):
        return [meta["name"] for meta in store.query(conditions)]

    everything = ["B", "a", "a1", "a2", "b", "é"]
    assert names() == [meta["name"] for meta in store.query()] == everything
    assert (
        names(status="Draft") == ["a2", "b", "é"]
        and names(status=["Approved", "Disabled"]) == ["B", "a", "a1"]
        and names(status=[]) == names(status="bogus") == []
    )
    assert (
        names(tag="x") == ["B", "a", "b"]
        and names(tag=["x", "y"]) == ["b"]
        and names(tag=[]) == everything
        and names(tag="k' OR true") == []
    )
    assert (
        names(author="BB") == ["B"]
        and names(author="b") == []
        and names(type="data", unknown=1, limit=None) == everything
    )
    assert names(since=time.time() - 60) == everything and names(since=time.time() + 60) == []
    assert (
        names(limit=0) == []
        and names(limit=2, offset=3) == ["a2", "b"]
        and names(offset=4) == ["b", "é"]
        and names(offset=99) == []
    )
    # First the pattern, then the page.
    assert names(name_pattern="a") == ["a", "a1", "a2"] and names(name_pattern="A") == []
    assert (
        names(name_pattern="a", limit=1) == ["a"]
        and names(name_pattern="a", offset=1, limit=1) == ["a1"]
        and names(name_pattern="^..$", tag="x") == []
    )
    assert names(name_pattern="[0-9]$", status="Draft") == ["a2"]
    store_refuses("22023", store.query, {"name_pattern": "(?<=a)1"})
    store_refuses("22023", store.query, {"limit": -1})
    store_refuses("54000", store.query, {"name_pattern": "(x{999}){999}"})
    store.store("a" * 200, "t:\n")
    began = time.monotonic()
    assert names(name_pattern="(a*)*(a|aa)+b$") == []
    assert time.monotonic() - began < 5, "a backtracking engine would never end"


def test_the_other_client_apis_see_the_same_skill(db):
    store = Store(db, "skillscript")
    name = "name with spaces/../日本"
    store.store(name, "# Skill: x\n# Tags: ops, morning\n# Description: d\n", {"metadata_bag": {"tags": ["extra"]}})
    row = db.execute(
        "SELECT status, description, body, domain_tags, current_version FROM skill_system.skills "
        "WHERE namespace = 'skillscript' AND skill_name = %s",
        [name],
    ).fetchone()
    assert row[:2] == ("draft", "d") and row[2].startswith("# Skill: x") and set(row[3]) == {"extra", "ops", "morning"}
    assert approve(db, f"skillscript/{name}").status == "approved"
    assert store.metadata(name)["status"] == "Approved"
    assert db.execute("SELECT skill_system.skill_store_load(%s)->>'name'", [name]).fetchone()[0] == name
    store.delete(name)


def test_delete_leaves_history_and_audit(db, store):
    store.store("a", DRAFT)
    store.update_status("a", "Approved")
    skill = db.execute("SELECT id FROM skill_system.skill_heads WHERE namespace = %s", [store.namespace]).fetchone()[0]
    store.delete("a")
    store_refuses("SK404", store.versions, "a")
    assert (
        db.execute("SELECT count(*) FROM skill_system.skill_versions WHERE skill_id = %s", [skill]).fetchone()[0] == 0
    )
    assert [row[0] for row in store.history()] == ["registered", "registered", "deleted"]
    records = db.execute(
        "SELECT event_type FROM skill_system.audit_logs WHERE event_data->>'namespace' = %s ORDER BY recorded_at, id",
        [store.namespace],
    ).fetchall()
    assert records == [("skill.registered",), ("skill.registered",), ("skill.deleted",)]
    store.store("a", DRAFT)
    assert len(store.versions("a")) == 1


# --- Who approves ---


def agent_error(store, name, status):
    """The message for a change of status that names no version."""
    with pytest.raises(psycopg.Error) as refused:
        store.connection.execute(
            "SELECT skill_system.skill_store_update_status(%s, %s, %s)", [name, status, store.namespace]
        )
    assert refused.value.sqlstate == "SK403"
    return refused.value.diag.message_primary


def test_an_agent_cannot_approve(connect, roles, store):
    agent, reviewer, auditor = (
        Store(connect(f"test_{role}"), store.namespace) for role in ("agent", "reviewer", "auditor")
    )
    for number, (body, metadata) in enumerate(
        [
            (APPROVED, None),
            ("t:\n", {"status": "Approved"}),
            (APPROVED, {"status": "Draft"}),
            (" # Status: Approved\nt:\n", None),
            ("#\nStatus: Approved\n", None),
            ("# Status:\nApproved\n", None),
            ("x\u2028# Status: Approved\n", None),
            ("\ufeff# Status: Approved\n", {"status": "Draft"}),
        ]
    ):
        assert agent.store(f"a{number}", body, metadata)["status"] == "Draft"
        # A runtime that reads only the body must not find Approved as the first status.
        assert (
            re.search(
                r"(?m)^\s*#\s*Status\s*:\s*(\S+)",
                agent.load(f"a{number}")["source"].replace("\u2028", "\n").replace("\ufeff", ""),
            )[1]
            == "Draft"
        )
        store_refuses("SK403", agent.update_status, f"a{number}", "Approved")
    assert (
        agent.store("b", APPROVED, {"status": "Disabled"})["status"] == "Disabled"
        and "Approved" not in agent.load("b")["source"]
    )
    assert agent.store("c", DRAFT)["status"] == "Draft" and agent.load("c")["source"] == DRAFT
    assert reviewer.update_status("c", "Approved")["status"] == "Approved"
    assert reviewer.store("d", APPROVED)["status"] == "Approved" and reviewer.load("d")["source"] == APPROVED
    # Once approved it stays served, and an agent's new body waits as a draft.
    waiting = agent.store("d", APPROVED + "more\n")
    assert waiting["status"] == "Draft" and agent.load("d")["source"] == APPROVED
    for status in ("Disabled", "Draft"):
        store_refuses("SK409", agent.update_status, "c", status)
    assert reviewer.update_status("c", "Disabled")["previous_status"] == "Approved"
    for status in ("Draft", "Disabled"):
        store_refuses("SK409", agent.update_status, "c", status)
    assert auditor.load("c")["metadata"]["status"] == "Disabled" and len(auditor.query()) == 11
    # Which one is approved is said by its version.
    assert "version" in agent_error(reviewer, "d", "Approved")
    assert reviewer.update_status("d", "Approved", waiting["version"])["status"] == "Approved"
    assert reviewer.load("d")["source"] == APPROVED + "more\n"
    for call, arguments in (
        (auditor.store, ("c", DRAFT)),
        (auditor.update_status, ("c", "Draft")),
        (agent.delete, ("c",)),
        (reviewer.delete, ("c",)),
        (auditor.delete, ("c",)),
    ):
        store_refuses("42501", call, *arguments)
    Store(connect("test_admin"), store.namespace).delete("c")


def test_a_document_is_changed_in_the_registry_only(connect, roles, store):
    agent, reviewer = (Store(connect(f"test_{role}"), store.namespace) for role in ("agent", "reviewer"))
    body = "---\nname: doc\ndescription: A skill of another client API.\n---\n\nDo it.\n"
    agent.connection.execute("SELECT skill_system.register_skill(%s, %s)", [body, store.namespace])
    assert reviewer.update_status("doc", "Approved")["previous_status"] == "Draft"
    # Its front matter stays at the top.
    assert (
        store.load("doc")["source"] == body
        and store.metadata("doc")["status"] == "Approved"
        and len(store.versions("doc")) == 1
    )
    # What is served stays served, as with register_skill().
    store_refuses("SK409", agent.store, "doc", DRAFT)
    store_refuses("SK409", agent.update_status, "doc", "Disabled")
    assert store.metadata("doc")["status"] == "Approved"
    store.connection.execute("SET skill_system.signed_approvals = on")
    store.update_status("doc", "Draft")
    store_refuses("SK403", store.update_status, "doc", "Approved")
    store.connection.execute("RESET skill_system.signed_approvals")
    assert reviewer.store("doc", DRAFT)["status"] == "Draft"


def test_in_secured_mode_a_signature_approves(db, connect, roles, secured, approver):
    store = secured
    good = signed(approver, DRAFT)
    # Such a signature names nothing, so it counts only where an administrator has said so.
    assert store.store("a", good)["status"] == "Draft"
    accept_signatures(store)
    assert store.store("a", good)["status"] == "Approved" and store.load("a")["source"] == good
    key_id = hashlib.sha256(approver.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
    assert store.history()[-1][5].startswith(f"{key_id} v3:")
    # Line ends and tags are not signed, everything else is.
    assert store.store("b", good.replace("\n", "\r\n") + "# Tags: x")["status"] == "Draft", (
        "a line came behind the last line end"
    )
    assert store.store("b", good.replace("\n", "\r\n").replace("# Desc", "# Tags: x\r\n# Desc"))["status"] == "Approved"
    for body in (
        good.replace("hi", "ho"),
        good.replace("# Description", "#  Description"),
        signed(Ed25519PrivateKey.generate(), DRAFT),
        APPROVED,
    ):
        assert store.store("c", body)["status"] == "Draft"
        assert store.load("c")["source"] == re.sub("# Status: .*", "# Status: Draft", body)
        assert "reason" in store_refuses("SK403", store.update_status, "c", "Approved")
    assert store.store("d", DRAFT, {"status": "Approved"})["status"] == "Draft"
    # (a) of the notes: what was signed stays signed.
    assert store.update_status("a", "Approved")["version"] == sha(good)[:12] and store.load("a")["source"] == good
    # The word of the metadata can hold an approval back, and update_status() gives it.
    assert store.store("e", good, {"status": "Draft"})["status"] == "Draft"
    info = store.update_status("e", "Approved")
    assert (info["status"], info["previous_status"], store.load("e")["source"]) == ("Approved", "Draft", good)
    # Taken back, the token is gone, and only the signed body brings it again.
    assert store.update_status("a", "Draft")["previous_status"] == "Approved" and store.load("a")["source"] == DRAFT
    store_refuses("SK403", store.update_status, "a", "Approved")
    # An agent delivers no approval, no matter who signed it, and cannot switch the mode off.
    agent = connect("test_agent")
    assert Store(agent, store.namespace).store("f", good)["status"] == "Draft"
    with pytest.raises(errors.InsufficientPrivilege):
        agent.execute("SET skill_system.signed_approvals = off")
    # A key of another tenant, or a revoked one, approves nothing.
    store.connection.execute("SET skill_system.tenant = 'other'")
    accept_signatures(store)
    assert store.store("a", good)["status"] == "Draft"
    assert store_refuses("SK403", store.update_status, "a", "Approved")["reason"] == "the body does not say Approved"
    store.store("a", good, {"status": "Draft"})
    assert store_refuses("SK403", store.update_status, "a", "Approved")["reason"] == "no approver is registered"
    store.connection.execute("RESET skill_system.tenant")
    other = Ed25519PrivateKey.generate()
    other_id = db.execute(
        "SELECT skill_system.add_skill_approver(%s, 'leaves')",
        [other.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()],
    ).fetchone()[0]
    assert store.store("g", signed(other, DRAFT))["status"] == "Approved"
    db.execute("SELECT skill_system.revoke_skill_approver(%s)", [other_id])
    assert store.metadata("g")["status"] == "Approved" and store.store("h", signed(other, DRAFT))["status"] == "Draft"


def test_without_secured_mode_a_valid_signature_is_kept_too(store, approver):
    accept_signatures(store)
    good = signed(approver, DRAFT)
    store.store("a", good)
    assert store.update_status("a", "Approved")["version"] == sha(good)[:12]
    store.store("b", good.replace("hi", "ho"))
    store.update_status("b", "Approved")
    assert "v3:" not in store.load("b")["source"]


def test_a_store_of_one_user_follows_the_contract(connect, database, db, roles, store):
    db.execute(f'ALTER DATABASE "{database}" SET skill_system.single_user_store = on')
    try:
        agent, reviewer = (Store(connect(f"test_{role}"), store.namespace) for role in ("agent", "reviewer"))
        reviewer.store("a", APPROVED)
        # The newest is served, whatever its status; approving stays the reviewer's.
        assert agent.store("a", DRAFT)["status"] == "Draft" and agent.load("a")["source"] == DRAFT
        update = "SELECT skill_system.skill_store_update_status('a', %s, %s)->>'status'"
        with pytest.raises(psycopg.Error) as refused:
            agent.connection.execute(update, ["Approved", store.namespace])
        assert refused.value.sqlstate == "SK403"
        for who, status in ((reviewer, "Approved"), (agent, "Disabled"), (agent, "Draft")):
            assert who.connection.execute(update, [status, store.namespace]).fetchone() == (status,)
    finally:
        db.execute(f'ALTER DATABASE "{database}" RESET skill_system.single_user_store')
    Store(connect("test_reviewer"), store.namespace).store("a", APPROVED)
    session = connect("test_agent")
    store_refuses("SK409", Store(session, store.namespace).update_status, "a", "Disabled")
    with pytest.raises(errors.InsufficientPrivilege):
        session.execute("SET skill_system.single_user_store = on")
    # Nor does a session switch it on before the library is loaded.
    with psycopg.connect(
        dbname=database, user="test_agent", autocommit=True, options="-c skill_system.single_user_store=on"
    ) as session:
        store_refuses("42501", Store(session, store.namespace).update_status, "a", "Disabled")


# --- The token ---


def test_the_token_moves_with_every_change(store):
    assert store.version() == EMPTY
    versions = {}
    for name in ("b", "B", "é", "a:b"):
        versions[name] = store.store(name, DRAFT)["version"]
        assert store.version() == token_of(*((n, "Draft", v) for n, v in versions.items()))
    before = store.version()
    store.store("b", DRAFT, {"metadata_bag": {"k": 1}})
    assert store.version() == before, "neither status nor version"
    store.update_status("b", "Disabled")
    assert store.version() not in (before, EMPTY)
    store.update_status("b", "Draft")
    assert store.version() == before
    for name in versions:
        store.delete(name)
    assert store.version() == EMPTY


def test_the_token_is_never_that_of_what_was_rolled_back(connect, store):
    one, two = store, Store(connect(), store.namespace)
    one.store("a", DRAFT)
    start = one.version()
    assert two.version() == start
    # Both sessions use the same revision for different contents.
    one.connection.execute("BEGIN")
    one.store("x", DRAFT)
    assert one.version() != start and two.version() == start
    one.connection.execute("ROLLBACK")
    assert one.version() == start
    info = two.store("y", DRAFT)
    expected = token_of(("a", "Draft", sha(DRAFT)[:12]), ("y", "Draft", info["version"]))
    assert one.version() == two.version() == expected
    # The same within one transaction.
    with one.connection.transaction():
        one.connection.execute("SAVEPOINT s")
        one.store("p", DRAFT)
        inner = one.version()
        one.connection.execute("ROLLBACK TO s")
        assert one.version() == expected
        one.connection.execute("SAVEPOINT s")
        one.store("q", DRAFT)
        assert one.version() not in (inner, expected)
        one.connection.execute("ROLLBACK TO s")
        one.connection.execute("RELEASE s")
        one.store("r", DRAFT)
        mine = one.version()
        assert mine == token_of(
            ("a", "Draft", info["version"]), ("y", "Draft", info["version"]), ("r", "Draft", info["version"])
        )
        assert two.version() == expected
    assert one.version() == two.version() == mine


def test_an_older_snapshot_has_the_older_token(connect, store):
    old, new = Store(connect(), store.namespace), store
    new.store("a", DRAFT)
    with old.connection.transaction():
        old.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        first = old.version()
        new.update_status("a", "Approved")
        assert new.version() != first and old.version() == first and old.metadata("a")["status"] == "Draft"
    assert old.version() == new.version() != first
    # Found in the cache by the old snapshot after the new one was computed, and the other way round.
    for _ in range(2):
        assert old.version() == new.version()


def test_tokens_of_tenants_and_namespaces_stay_apart(connect, store):
    connection = store.connection = connect()
    store.store("a", DRAFT)
    mine = store.version()
    connection.execute("SET skill_system.tenant = 'other'")
    assert store.version() == EMPTY
    with pytest.raises(psycopg.Error) as caught:
        store.load("a")
    assert caught.value.sqlstate == "SK404"
    store.store("b", DRAFT)
    assert store.version() not in (mine, EMPTY)
    connection.execute("RESET skill_system.tenant")
    assert store.version() == mine
    # More namespaces than are kept.
    others = [Store(connection) for _ in range(70)]
    for other in others:
        other.store("a", APPROVED)
        assert other.version() == token_of(("a", "Approved", sha(APPROVED)[:12]))
    assert store.version() == mine


def test_an_extension_created_again_has_separate_tokens(connect, fresh_database):
    store = Store(connect(dbname=fresh_database()))
    store.store("a", DRAFT)
    before = store.version()
    store.connection.execute("DROP EXTENSION skill_system")
    store.connection.execute("CREATE EXTENSION skill_system")
    store.store("b", DRAFT)
    assert store.version() == token_of(("b", "Draft", sha(DRAFT)[:12])) != before


def test_a_polled_token_costs_little(connect, store):
    db = store.connection
    db.execute(
        "SELECT count(skill_system.skill_store_store('s' || i, '# Skill: s', namespace => %s)) "
        "FROM generate_series(1, 500) i",
        [store.namespace],
    )
    for connection in (db, connect()):
        expected = connection.execute("SELECT skill_system.skill_store_version(%s)", [store.namespace]).fetchone()[0]
        began = time.monotonic()
        same = connection.execute(
            "SELECT count(DISTINCT skill_system.skill_store_version(%s || left(i::text, 0))), "
            "min(skill_system.skill_store_version(%s)) FROM generate_series(1, 2000) i",
            [store.namespace, store.namespace],
        ).fetchone()
        assert same == (1, expected)
        assert (time.monotonic() - began) / 2000 < 0.001


# --- Two at once ---


class Later:
    """A call in another session that is expected to wait."""

    def __init__(self, call, *arguments):
        self.result = self.error = None

        def run():
            try:
                self.result = call(*arguments)
            except psycopg.Error as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def waits(self, watcher, connection):
        for _ in range(500):
            if watcher.execute(
                "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
            ).fetchone()[0]:
                return True
            if not self.thread.is_alive():
                return False
            time.sleep(0.01)
        return False

    def end(self):
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self


def test_two_sessions_store_the_same_new_name(db, connect):
    one = Store(connect())
    two = Store(connect(), one.namespace)
    one.connection.execute("BEGIN")
    one.store("a", DRAFT)
    later = Later(two.store, "a", APPROVED)
    assert later.waits(db, two.connection)
    one.connection.execute("COMMIT")
    assert later.end().result["status"] == "Approved"
    assert len(one.versions("a")) == 2 and one.load("a")["source"] == APPROVED
    assert [row[0] for row in one.history()] == ["registered", "registered"]


def test_status_changes_follow_one_another(db, connect, store):
    store.store("a", DRAFT)
    two = Store(connect(), store.namespace)
    store.connection.execute("BEGIN")
    store.update_status("a", "Approved")
    later = Later(two.update_status, "a", "Disabled")
    assert later.waits(connect(), two.connection)
    store.connection.execute("COMMIT")
    assert later.end().result["previous_status"] == "Approved"
    assert [row[1:3] for row in store.history()] == [(None, "draft"), ("draft", "approved"), ("approved", "disabled")]
    # A change that is rolled back leaves nothing.
    store.connection.execute("BEGIN")
    store.update_status("a", "Draft")
    later = Later(two.update_status, "a", "Approved")
    assert later.waits(connect(), two.connection)
    store.connection.execute("ROLLBACK")
    assert later.end().result["previous_status"] == "Disabled"


def test_a_deleted_and_remade_skill_is_found_by_who_waited(connect, store):
    store.store("a", DRAFT)
    two = Store(connect(), store.namespace)
    for remade, sqlstate in ((True, None), (False, "SK404")):
        store.connection.execute("BEGIN")
        store.delete("a")
        if remade:
            store.store("a", APPROVED)
        later = Later(two.update_status, "a", "Disabled")
        assert later.waits(connect(), two.connection)
        store.connection.execute("COMMIT")
        later.end()
        assert (later.error and later.error.sqlstate) == sqlstate
        if remade:
            assert later.result["previous_status"] == "Approved"


def test_repeatable_read_refuses_to_overwrite_what_it_has_not_seen(connect, store):
    store.store("a", DRAFT)
    old = Store(connect(), store.namespace)
    old.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old.metadata("a")
    store.update_status("a", "Approved")
    with pytest.raises(errors.SerializationFailure):
        old.update_status("a", "Disabled")
    old.connection.execute("ROLLBACK")
    assert store.metadata("a")["status"] == "Approved"


def test_many_writers_lose_nothing(connect, store):
    stores = [Store(connect(), store.namespace) for _ in range(4)]
    failures = []

    def work(mine, number):
        try:
            for i in range(25):
                mine.store("shared", f"# Skill: s\n# Status: Draft\n{number} {i}\n")
                mine.update_status("shared", ("Approved", "Disabled", "Draft")[i % 3])
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(mine, number)) for number, mine in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    loaded, versions = store.load("shared"), store.versions("shared")
    assert (
        sha(loaded["source"]) == loaded["content_hash"]
        and f"# Status: {loaded['metadata']['status']}" in loaded["source"]
    )
    assert len({info["version"] for info in versions}) == len(versions) >= 100
    revisions = [
        row[0]
        for row in store.connection.execute(
            "SELECT revision FROM skill_system.skill_history WHERE namespace = %s ORDER BY 1", [store.namespace]
        )
    ]
    assert revisions == list(range(1, len(revisions) + 1))


# --- Vectors of skillscript's own program ---


@pytest.fixture(scope="module")
def vectors():
    folder = os.environ.get("SKILL_VECTORS")
    if not folder:
        # tests/run has said aloud that the cross-checks are left out.
        pytest.skip("no vectors on this machine")
    return json.loads((Path(folder) / "skillstore.json").read_text())


# Rewriting the header changes its line and nothing else. The program behind the vectors takes the white space behind it
# along: a carriage return, a blank line, or after an empty header the whole next line. The signed text would change.
ONE_LINE = {
    "lower_draft": "# Skill: conf\n# Status: {}\n\nt:\n    ! hi\n\ndefault: t\n",
    "empty_status": "# Skill: conf\n# Status: {}\n# Description: d\nt:\n    ! hi\ndefault: t\n",
    "crlf": '# Skill: w\r\n# Status: {}\r\n# Description: win  \r\nt:\r\n    emit(text="hi")\r\ndefault: t\r\n',
    "signed_crlf": "# Skill: hello\r\n# Status: {}\r\n# Description: Says hi\r\n"
    't:\r\n    emit(text="hi")\r\ndefault: t\r\n',
}
# update_status(Approved) of a validly signed body leaves it signed; there, the signature is lost and the body refused.
STAYS_SIGNED = {"signed", "signed_crlf", "signed_tags_edited", "signed_two_status", "signed_no_status"}
REASONS = {
    "has no `# Status:`": "the body does not say Approved",
    "status is '": "the body does not say Approved",
    "no valid approval signature": "the body says Approved without a signature",
    "is not accepted": "only approval tokens of the version v3 are accepted",
    "is reserved": "the version v0 of approval tokens is reserved",
    "invalid shape": "the approval's token is not of the form vN:token",
    "signature is invalid": "no registered approver signed this text",
}


def attempt(user, call, *arguments):
    """As the vectors write a result. changed_by is always there: who logged in, where the caller names no author."""
    try:
        result = call(*arguments)
    except psycopg.Error as error:
        return {"error": CLASSES.get(error.sqlstate, "Error" if error.sqlstate == "22023" else error.sqlstate)}

    def plain(value):
        if isinstance(value, list):
            return [plain(one) for one in value]
        if not isinstance(value, dict):
            return value
        assert not TIMES & set(value) or all(type(value[key]) is int for key in TIMES & set(value))
        return {
            key: plain(one)
            for key, one in value.items()
            if key not in TIMES and not (key == "changed_by" and one == user)
        }

    return {"ok": plain(result) if result != "" else None}


def there(result):
    return {"error": result["error"]} if "error" in result else {"ok": result["ok"]}


@pytest.mark.parametrize("mode", ["unsecured", "secured"])
def test_vectors_of_bodies(connect, fresh_database, vectors, mode):
    connection = connect(dbname=fresh_database())
    connection.execute(f"SET skill_system.signed_approvals = {'on' if mode == 'secured' else 'off'}")
    connection.execute(
        "SELECT skill_system.add_skill_approver(%s, 'vectors')",
        [vectors["test_key"]["public_pem"]]
        if mode == "secured"
        else [Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()],
    )
    user, differ, compared = os.environ["PGUSER"], set(), 0
    assert len(vectors["bodies"]) == 31
    for name, case in vectors["bodies"].items():
        body = case["body"]
        assert canonical(body) == case["canonical_for_signing"]
        for said, expected in case[f"store_{mode}"].items():
            store = Store(connection)
            accept_signatures(store)
            info = attempt(user, store.store, "n", body, *([] if said == "none" else [{"status": said}]))
            loaded = attempt(user, store.load, "n")
            wanted = {"info": there(expected["info"]), "loaded": there(expected["loaded"])}
            forced = expected["loaded"]["ok"]["source"] != body
            if name in ONE_LINE and forced:
                source = ONE_LINE[name].format(expected["info"]["ok"]["status"])
                about = {"version": sha(source)[:12], "content_hash": sha(source)}
                described = {"description": "d"} if name == "empty_status" else {}
                ours = {
                    "info": {"ok": {**wanted["info"]["ok"], **about}},
                    "loaded": {
                        "ok": {
                            **wanted["loaded"]["ok"],
                            **about,
                            "source": source,
                            "metadata": {**wanted["loaded"]["ok"]["metadata"], **about, **described},
                        }
                    },
                }
                assert ours != wanted
                differ.add((name, "store"))
                wanted = ours
            assert {"info": info, "loaded": loaded} == wanted, (mode, name, said)
            compared += 1
            if said == "none":
                assert (
                    info["ok"]["version"] == case["version"] and info["ok"]["content_hash"] == case["sha256"]
                ) is not forced
                # The gate says yes exactly to what is stored as approved.
                assert case[f"gate_{mode}"]["ok"] is (info["ok"]["status"] == "Approved"), (mode, name)
        for status, expected in case[f"update_status_{mode}"].items():
            store = Store(connection)
            accept_signatures(store)
            # In secured mode an unsigned Approved gets into the store only with another word in the metadata.
            store.connection.execute("SET skill_system.signed_approvals = off")
            store.store("n", body)
            store.connection.execute(f"SET skill_system.signed_approvals = {'on' if mode == 'secured' else 'off'}")
            ours = {"info": attempt(user, store.update_status, "n", status), "source_after": store.load("n")["source"]}
            wanted = {"info": there(expected["info"]), "source_after": expected["source_after"]}
            if "error" not in wanted["info"]:
                kept = mode == "secured" and status == "Approved" and name in STAYS_SIGNED
                if kept or name in ONE_LINE:
                    source = body if kept else ONE_LINE[name].format(status)
                    different = {
                        "info": {
                            "ok": {**wanted["info"]["ok"], "version": sha(source)[:12], "content_hash": sha(source)}
                        },
                        "source_after": source,
                    }
                    assert different != wanted, (mode, name, status)
                    differ.add((name, "stays signed" if kept else "update_status"))
                    wanted = different
            else:
                reason = next(ours_ for theirs, ours_ in REASONS.items() if theirs in case["gate_secured"]["reason"])
                assert store_refuses("SK403", store.update_status, "n", status)["reason"] == reason, name
            assert ours == wanted, (mode, name, status)
            compared += 1
        if mode == "secured":
            # What the program itself stamped is approved.
            assert f"v3:{case['v3_token_seed0']}" in case["stamped_seed0"]
            store = Store(connection)
            accept_signatures(store)
            assert attempt(user, store.store, "n", case["stamped_seed0"])["ok"]["status"] == "Approved", name
    assert compared == 31 * 7
    assert differ == {(name, "update_status") for name in ONE_LINE} | (
        {(name, "store") for name in ONE_LINE if name != "signed_crlf"}
        | {(name, "stays signed") for name in STAYS_SIGNED}
        if mode == "secured"
        else set()
    )


def info(name, body, status, **more):
    return {"name": name, "version": sha(body)[:12], "content_hash": sha(body), "status": status, **more}


def source(name, body, status, **more):
    return {
        **{key: value for key, value in info(name, body, status).items() if key != "status"},
        "source": body,
        "metadata": info(name, body, status, **more),
    }


def foo(name, tags):
    return info(name, DRAFT, "Draft", description="Says hi", metadata_bag={"tags": tags})


SCALAR = info("c", APPROVED, "Approved", metadata_bag={"tags": "foo"})
DISABLED = DRAFT.replace("Draft", "Disabled")
SAYS_HI = {"description": "Says hi"}
# (sequences, number, step): our result, and why it is another one.
EXPECTED = {
    # A tag that is one string counts as one; there, it makes every such query fail.
    ("sqlite", 2, 4): [foo("B", ["foo"]), foo("a", ["foo", "bar"]), SCALAR],
    ("sqlite", 2, 5): [foo("a", ["foo", "bar"])],
    # The pattern comes before the page; there, it looks at the page only.
    ("sqlite", 2, 13): [foo("a", ["foo", "bar"])],
    # The filesystem store keeps the status and the author of what is there, and writes the status of the metadata into
    # the body. Here the store does what the one with a database does.
    ("filesystem", 0, 1): info("p3", APPROVED, "Approved"),
    ("filesystem", 0, 2): source("p3", APPROVED, "Approved"),
    ("filesystem", 0, 3): [info("p3", DRAFT, "Draft", changed_by="alice"), info("p3", APPROVED, "Approved")],
    ("filesystem", 0, 4): info("p3", DRAFT, "Approved"),
    ("filesystem", 0, 5): source("p3", DRAFT, "Approved", **SAYS_HI),
    ("filesystem", 0, 6): info("p3", DRAFT, "Draft", changed_by="mallory"),
    ("filesystem", 0, 7): info("p3", DISABLED, "Disabled", previous_status="Draft"),
    ("filesystem", 0, 8): info("p3", APPROVED, "Approved"),
    ("filesystem", 0, 9): source("p3", APPROVED, "Approved"),
    # A name need not be that of a file.
    ("filesystem", 1, 0): info("bad/name", DRAFT, "Draft"),
    ("filesystem", 1, 1): info("-x", DRAFT, "Draft"),
    # Nobody is called root here.
    ("filesystem", 1, 2): info("a.b-c_d", DRAFT, "Draft"),
    ("filesystem", 1, 3): [info("a.b-c_d", DRAFT, "Draft")],
}


def test_vectors_of_sequences(connect, vectors):
    connection, user, steps, differ = connect(), os.environ["PGUSER"], 0, set()
    for kind in ("sqlite", "filesystem"):
        for number, sequence in enumerate(vectors[f"{kind}_sequences"]):
            store = Store(connection)
            for step, case in enumerate(sequence):
                place = (kind, number, step)
                ours, wanted = attempt(user, getattr(store, case["op"]), *case["args"]), there(case["result"])
                if place in EXPECTED:
                    assert {"ok": EXPECTED[place]} != wanted, place
                    wanted = {"ok": EXPECTED[place]}
                    differ.add(place)
                if case["op"] == "versions" and "ok" in ours:
                    # The vectors were made within one second, so theirs are as they came.
                    listed, came = store.versions(*case["args"]), [entry["version"] for entry in wanted["ok"]]
                    assert listed == sorted(
                        listed, key=lambda entry: (entry["changed_at"], came.index(entry["version"]))
                    )
                    ours["ok"].sort(key=lambda entry: came.index(entry["version"]))
                assert ours == wanted, (place, case["op"], case["args"])
                steps += 1
    assert steps == sum(len(s) for k in ("sqlite", "filesystem") for s in vectors[f"{k}_sequences"]) > 70
    assert differ == set(EXPECTED)
