"""Proofs and checkpoints in the hands of software that is neither part of this project nor linked.

sigstore (PyPI)  its Merkle and checkpoint code, which checks Rekor's proofs: `sigstore_accepts` takes an inclusion
proof and the
                 signed note it leads to. It has no consistency proofs; `consistency_holds` puts its functions for the
                 two halves of a proof's path together as RFC 9162, section 2.1.4.2 says, so there only the hashing is
                 theirs.
pymerkle (PyPI)  a Merkle tree library: `pymerkle_accepts` takes an inclusion proof, `pymerkle_root` builds the tree
itself from the
                 entries. Its consistency proofs have another form and cannot be made from those of RFC 6962.
ct-merkle        (crate) takes inclusion and consistency proofs in the tests of crates/core/src/tree.rs.
cryptography     (PyPI, below sigstore) checks the Ed25519 signatures.

All of it is first tried on trees and notes of other origin: rfc6962.py follows the RFC word for word.
"""

import base64
import hashlib

import pytest
from conftest import open_connection
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymerkle import InmemoryTree, InvalidProof, verify_inclusion
from pymerkle.core import _inclusion_path_layout
from pymerkle.proof import InclusionProof
from sigstore._internal import merkle
from sigstore._internal.rekor.checkpoint import SignedCheckpoint, SignedNote, verify_checkpoint
from sigstore._internal.trust import Keyring
from sigstore._utils import KeyID
from sigstore.errors import VerificationError
from sigstore.models import TransparencyLogEntry
from sigstore_models.common.v1 import LogId, PublicKey, PublicKeyDetails
from sigstore_models.rekor import v1 as rekor

import rfc6962
import skr1
from keyring import load_library

# ---- the others


def trust(verifier_key):
    """What sigstore needs of a key in the verifier form of C2SP signed-note, `<name>+<8 hex digits>+<base64 of 01 and
    the key>`: its keyring and the id that a signature line has."""
    name, digits, data = verifier_key.split("+", 2)
    kind, raw = base64.b64decode(data)[:1], base64.b64decode(data)[1:]
    key_id = hashlib.sha256(name.encode() + b"\n" + kind + raw).digest()[:4]
    assert kind == b"\x01" and key_id.hex() == digits, "not an Ed25519 verifier key"
    der = Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Keyring([PublicKey(raw_bytes=base64.b64encode(der), key_details=PublicKeyDetails.PKIX_ED25519)]), KeyID(
        key_id
    )


def sigstore_reads(note, verifier_key):
    """sigstore's SignedCheckpoint and SignedNote.verify: origin, size and root of a note that the key has signed;
    raises otherwise."""
    signed = SignedCheckpoint.from_text(note)
    signed.signed_note.verify(*trust(verifier_key))
    return signed.checkpoint.origin, signed.checkpoint.log_size, bytes.fromhex(signed.checkpoint.log_hash)


def sigstore_accepts(entry, index, size, root, hashes, note, verifier_key):
    """sigstore's verify_merkle_inclusion and verify_checkpoint, on the entry as it would come from Rekor: the leaf is
    in the tree, and the signed note is of a tree with this root."""
    keyring, key_id = trust(verifier_key)
    text = base64.b64encode
    try:
        theirs = TransparencyLogEntry(
            rekor.TransparencyLogEntry(
                log_index=str(index),
                log_id=LogId(key_id=text(key_id)),
                kind_version=rekor.KindVersion(kind="skill_system", version="1"),
                canonicalized_body=text(entry),
                inclusion_proof=rekor.InclusionProof(
                    log_index=str(index),
                    tree_size=str(size),
                    root_hash=text(root),
                    hashes=[text(hash) for hash in hashes],
                    checkpoint=rekor.Checkpoint(envelope=note),
                ),
            )
        )
        merkle.verify_merkle_inclusion(theirs)
        verify_checkpoint(keyring, theirs)
    except (VerificationError, ValueError):
        return False
    return True


def pymerkle_accepts(leaf_hash, index, size, root, hashes):
    """pymerkle's verify_inclusion. Of a proof it wants also the sides of the hashes, which it computes itself and
    compares."""
    try:
        sides, _ = _inclusion_path_layout(index + 1, size)
        verify_inclusion(
            leaf_hash,
            root,
            InclusionProof("sha256", True, size, index + 1, sides, [leaf_hash, *hashes]),
            index=index + 1,
            size=size,
            algorithm="sha256",
        )
    except InvalidProof:
        return False
    return True


def pymerkle_root(entries):
    tree = InmemoryTree(algorithm="sha256")
    tree.append_entries(entries)
    return tree.get_root()


def consistency_holds(old_size, old_root, new_size, new_root, hashes):
    """The hashes of a consistency proof lead to both roots; chained by sigstore's functions, for 0 < old_size <
    new_size."""
    inner, border = merkle._decomp_inclusion_proof(old_size - 1, new_size)
    # An old tree that is one full subtree stands in the new one as it is, and its root need not be in the proof.
    level = (old_size & -old_size).bit_length() - 1
    seed, *hashes = hashes if old_size != 1 << level else (old_root, *hashes)
    inner, path = inner - level, old_size - 1 >> level
    if len(hashes) != inner + border:
        return False
    lower, upper = hashes[:inner], hashes[inner:]
    left = [hash for bit, hash in enumerate(lower) if path >> bit & 1]
    old = merkle._chain_border_right(seed, left + upper)
    new = merkle._chain_border_right(merkle._chain_inner(seed, lower, path), upper)
    return (old, new) == (old_root, new_root)


# ---- on trees and notes of other origin

# The eight entries and the roots of the trees of 1 to 8 of them, known from the tests of Certificate Transparency's own
# implementations.
CT_ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    bytes.fromhex(root)
    for root in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
ENTRIES = [hashlib.sha512(bytes([n])).digest()[: n % 61] for n in range(70)]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def verifier_key(name, key=KEY):
    raw = b"\x01" + key.public_key().public_bytes_raw()
    return (
        f"{name}+{hashlib.sha256(name.encode() + bytes([10]) + raw).hexdigest()[:8]}+{base64.b64encode(raw).decode()}"
    )


def note(origin, size, root, key=KEY):
    """A checkpoint as C2SP tlog-checkpoint and signed-note have it."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    key_id = bytes.fromhex(verifier_key(origin, key).split("+")[1])
    return f"{text}\n— {origin} {base64.b64encode(key_id + key.sign(text.encode())).decode()}\n"


def changed(hashes):
    """Proofs that are wrong."""
    yield [*hashes, bytes(32)]
    yield [bytes(32), *hashes]
    if hashes:
        yield hashes[:-1]
        yield hashes[1:]
        for i in range(len(hashes)):
            yield [*hashes[:i], bytes([hashes[i][0] ^ 1]) + hashes[i][1:], *hashes[i + 1 :]]
    if len(hashes) > 1:
        yield [hashes[1], hashes[0], *hashes[2:]]


def test_the_plain_tree_is_the_one_of_the_rfc():
    for size, root in enumerate(CT_ROOTS, start=1):
        assert rfc6962.root(CT_ENTRIES[:size]) == pymerkle_root(CT_ENTRIES[:size]) == root
    assert rfc6962.root([]) == bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_inclusion_proofs_of_the_plain_tree_are_accepted_and_others_are_not():
    for size in (*range(1, 18), 31, 32, 33, 64, 70):
        entries = ENTRIES[:size]
        root = rfc6962.root(entries)
        signed, key = note("example.org/log", size, root), verifier_key("example.org/log")
        for index in range(size):
            hashes = rfc6962.inclusion_proof(index, entries)
            leaf = rfc6962.leaf_hash(entries[index])
            assert sigstore_accepts(entries[index], index, size, root, hashes, signed, key) and pymerkle_accepts(
                leaf, index, size, root, hashes
            )
            assert not sigstore_accepts(
                entries[index] + b"x", index, size, root, hashes, signed, key
            ) and not pymerkle_accepts(bytes(32), index, size, root, hashes)
            assert not sigstore_accepts(
                entries[index], index, size, bytes(32), hashes, signed, key
            ) and not pymerkle_accepts(leaf, index, size, bytes(32), hashes)
            assert not sigstore_accepts(
                entries[index], index, size, root, hashes, note("example.org/log", size, bytes(32)), key
            )
            for wrong in changed(hashes):
                assert not sigstore_accepts(
                    entries[index], index, size, root, wrong, signed, key
                ) and not pymerkle_accepts(leaf, index, size, root, wrong)


def test_consistency_proofs_of_the_plain_tree_hold_and_others_do_not():
    roots = [rfc6962.root(ENTRIES[:size]) for size in range(len(ENTRIES) + 1)]
    for new in (*range(2, 18), 31, 32, 33, 64, 70):
        for old in range(1, new):
            hashes = rfc6962.consistency_proof(old, ENTRIES[:new])
            assert consistency_holds(old, roots[old], new, roots[new], hashes), (old, new)
            assert not consistency_holds(old, bytes(32), new, roots[new], hashes) and not consistency_holds(
                old, roots[old], new, bytes(32), hashes
            )
            for wrong in changed(hashes):
                assert not consistency_holds(old, roots[old], new, roots[new], wrong), (old, new)


def test_a_note_that_others_signed_is_read():
    """The example of the Go package golang.org/x/mod/sumdb/note."""
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signed = text + (
        "\n— PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    keyring, key_id = trust("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    SignedNote.from_text(signed).verify(keyring, key_id)
    with pytest.raises(VerificationError):
        SignedNote.from_text(signed.replace("problem,", "problems,")).verify(keyring, key_id)


def test_checkpoints_are_read_and_changed_ones_are_not():
    signed, key = note("example.org/log", 70, bytes(range(32))), verifier_key("example.org/log")
    assert sigstore_reads(signed, key) == ("example.org/log", 70, bytes(range(32)))
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for wrong in (
        signed.replace("\n70\n", "\n71\n"),
        signed.replace("example.org/log\n", "example.org/lag\n"),
        note("example.org/log", 70, bytes(range(32)), other),
        signed[:-1],
        signed.split("\n\n")[0],
    ):
        with pytest.raises(VerificationError):
            sigstore_reads(wrong, key)
    with pytest.raises(VerificationError):
        sigstore_reads(signed, verifier_key("example.org/log", other))


# ---- on the extension's log

SIZES = [1, 3, 255, 256, 257, 511, 512, 600]


@pytest.fixture(scope="module")
def log(fresh_database):
    """A connection to a database with 600 sealed records and a checkpoint at each of SIZES; the entries in the order of
    the leaves; the checkpoints by size."""
    with open_connection(dbname=fresh_database()) as connection:
        load_library(connection)
        checkpoints, before = {}, 0
        for size in SIZES:
            damaged = size == 3
            # The first seal records the fingerprint of the protection, which is the next leaf.
            recorded = before == 1
            if damaged:
                # A record that cannot be encoded, which only the owner can write; it has its leaf all the same.
                connection.execute(
                    "INSERT INTO skill_system.audit_logs (id, event_type, event_data, created_at, signature, "
                    "recorded_at, transaction_id, session_user_name, current_user_name, key_id) "
                    "VALUES (gen_random_uuid(), 'damaged', '{}', 'infinity', 'v1:k:0', now(), "
                    "pg_current_xact_id()::text::bigint, 'x', 'x', 'k')"
                )
            connection.execute(
                "SELECT skill_system.append_audit('made', "
                "jsonb_build_object('n', g, 'x', g / 7.0, 'text', repeat('ä\"', g %% 5))) "
                "FROM generate_series(1, %s) g",
                [size - before - damaged - recorded],
            )
            sealed, tree_size, root = connection.execute(
                "SELECT sealed, tree_size, root_hash FROM skill_system.seal_audit()"
            ).fetchone()
            assert (sealed, tree_size) == (size - before, size)
            checkpoints[size] = (
                root,
                connection.execute("SELECT skill_system.audit_checkpoint()").fetchone()[0] + "\n",
            )
            before = size
        log_id = connection.execute("SELECT log_id::text FROM skill_system.audit_state").fetchone()[0]
        columns = ", ".join(f"a.{name}::text" for name in (*skr1.COLUMNS, "signature"))
        rows = connection.execute(
            f"SELECT {columns} FROM skill_system.audit_leaves() l JOIN skill_system.audit_logs a ON a.id = l.record_id "
            "ORDER BY l.leaf_index"
        ).fetchall()
        yield connection, rows, [skr1.entry(row[:-1], row[-1], log_id) for row in rows], checkpoints


def public_key(connection):
    return connection.execute("SELECT verifier_key FROM skill_system.audit_public_key() WHERE active").fetchone()[0]


def test_the_log_has_the_root_that_others_compute_from_its_rows(log):
    connection, _, entries, checkpoints = log
    assert len(entries) == SIZES[-1] and [entry[:4] for entry in entries].count(b"SKR0") == 1
    for size, (root, _) in checkpoints.items():
        assert root == pymerkle_root(entries[:size]) == rfc6962.root(entries[:size])
    hashes = [rfc6962.leaf_hash(entry) for entry in entries]
    assert [
        bytes(row[0])
        for row in connection.execute("SELECT leaf_hash FROM skill_system.audit_leaves() ORDER BY leaf_index")
    ] == hashes


def test_sigstore_reads_the_checkpoints(log):
    connection, _, _, checkpoints = log
    log_id = connection.execute("SELECT log_id::text FROM skill_system.audit_state").fetchone()[0]
    for size, (root, note) in checkpoints.items():
        assert sigstore_reads(note, public_key(connection)) == (f"skill_system/{log_id}/1", size, root)


def test_sigstore_and_pymerkle_accept_the_inclusion_proofs(log):
    connection, rows, entries, checkpoints = log
    size = SIZES[-1]
    root, note = checkpoints[size]
    key = public_key(connection)
    for index in (*range(0, size, 13), 255, 256, 511, 512, size - 1):
        proof = connection.execute(
            "SELECT leaf_index, tree_size, leaf_hash, root_hash, hashes, proof "
            "FROM skill_system.audit_inclusion_proof(%s)",
            [rows[index][0]],
        ).fetchone()
        leaf, hashes, text = rfc6962.leaf_hash(entries[index]), *proof[4:]
        assert proof[:4] == (index, size, leaf, root) and hashes == rfc6962.inclusion_proof(index, entries)
        # C2SP tlog-proof
        assert text == "\n".join(
            [
                "c2sp.org/tlog-proof@v1",
                f"index {index}",
                *(base64.b64encode(hash).decode() for hash in hashes),
                "",
                note.rstrip("\n"),
            ]
        )
        assert sigstore_accepts(entries[index], index, size, root, hashes, note, key) and pymerkle_accepts(
            leaf, index, size, root, hashes
        )
        assert not sigstore_accepts(entries[index - 1], index, size, root, hashes, note, key) and not pymerkle_accepts(
            leaf, index - 1, size, root, hashes
        )


def test_consistency_proofs_hold(log):
    connection, _, entries, checkpoints = log
    for new in SIZES[1:]:
        for old in SIZES[: SIZES.index(new)]:
            old_root, new_root, hashes = connection.execute(
                "SELECT old_root_hash, new_root_hash, hashes FROM skill_system.audit_consistency_proof(%s, %s)",
                [old, new],
            ).fetchone()
            assert (old_root, new_root) == (
                checkpoints[old][0],
                checkpoints[new][0],
            ) and hashes == rfc6962.consistency_proof(old, entries[:new])
            assert consistency_holds(old, old_root, new, new_root, hashes)
        assert (
            connection.execute(
                "SELECT hashes FROM skill_system.audit_consistency_proof(%s, %s)", [new, new]
            ).fetchone()[0]
            == []
        )


def test_tiles_are_those_of_the_specification(log):
    """C2SP tlog-tiles: hash i of tile n at level l is the root of 256**l entries from (256 n + i) 256**l on."""
    connection, _, entries, _ = log
    for level, n, first in ((0, 0, 0), (0, 1, 256), (0, 2, 512), (1, 0, 0)):
        width = 256**level
        whole = [entries[at : at + width] for at in range(first * width, len(entries), width)][:256]
        wanted = b"".join(rfc6962.root(part) for part in whole if len(part) == width)
        assert connection.execute("SELECT skill_system.audit_tile(%s, %s)", [level, n]).fetchone()[0] == wanted
    assert connection.execute("SELECT skill_system.audit_tile(0, 3), skill_system.audit_tile(2, 0)").fetchone() == (
        None,
        None,
    )
