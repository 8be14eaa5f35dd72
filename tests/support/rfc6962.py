"""The Merkle tree of RFC 6962, word for word from its section 2.1, over entries; slow and plain on purpose."""

import hashlib


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(n):
    """The largest power of two smaller than n."""
    return 1 << (n - 1).bit_length() - 1


def root(entries):
    """MTH(D[n])"""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return leaf_hash(entries[0])
    k = split(len(entries))
    return node_hash(root(entries[:k]), root(entries[k:]))


def inclusion_proof(m, entries):
    """PATH(m, D[n])"""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return inclusion_proof(m, entries[:k]) + [root(entries[k:])]
    return inclusion_proof(m - k, entries[k:]) + [root(entries[:k])]


def consistency_proof(m, entries, known=True):
    """PROOF(m, D[n]), which is SUBPROOF(m, D[n], true)"""
    if m == len(entries):
        return [] if known else [root(entries)]
    k = split(len(entries))
    if m <= k:
        return consistency_proof(m, entries[:k], known) + [root(entries[k:])]
    return consistency_proof(m - k, entries[k:], False) + [root(entries[:k])]
