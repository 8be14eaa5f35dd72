"""SKR1 and the signature of an audit record, written a second time from their description.

Takes every value as the text that the server prints, so that it also shows that the signed bytes follow from what a
person sees in the table.
"""
import base64
import hashlib
import hmac
import json
import struct
import uuid
from datetime import datetime, timedelta, timezone

COLUMNS = ("id", "tenant_id", "event_type", "event_data", "actor_id", "actor_type", "created_at", "recorded_at",
           "transaction_id", "session_user_name", "current_user_name", "key_id")
CONTEXT = b"skill_system/row-mac/v1\0"
LONGEST_JSON = 32 * 1024


class Number(str):
    """The digits of a JSON number, exactly as they stand."""


def parse(text):
    return json.loads(text, parse_int=Number, parse_float=Number)


def counted(data):
    return struct.pack(">I", len(data)) + data


def walk(value):
    if value is None:
        return b"\x00"
    if value is False:
        return b"\x01"
    if value is True:
        return b"\x02"
    if isinstance(value, Number):
        return b"\x03" + counted(value.encode())
    if isinstance(value, str):
        return b"\x04" + counted(value.encode())
    if isinstance(value, list):
        return b"\x05" + struct.pack(">I", len(value)) + b"".join(walk(item) for item in value)
    members = sorted((key.encode(), item) for key, item in value.items())
    return b"\x06" + struct.pack(">I", len(members)) + b"".join(counted(key) + walk(item) for key, item in members)


def microseconds(text):
    """Of a time with offset, in the ISO form: 2026-01-02 03:04:05.678901+05:45."""
    when = datetime.fromisoformat(text)
    return (when - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


def field(tag, kind, data):
    return struct.pack(">HB", tag, kind) + counted(data)


def encode(row, log_id):
    """row: the printed values of COLUMNS in their order, None for NULL; times in ISO form."""
    out = b"SKR1" + uuid.UUID(log_id).bytes + struct.pack(">HH", 1, len(COLUMNS))
    for tag, (name, text) in enumerate(zip(COLUMNS, row, strict=True), start=1):
        if text is None:
            out += field(tag, 0, b"")
        elif name == "id":
            out += field(tag, 4, uuid.UUID(text).bytes)
        elif name == "event_data":
            data = walk(parse(text))
            out += field(tag, 9, data) if len(data) <= LONGEST_JSON else field(tag, 8, hashlib.sha256(data).digest())
        elif name in ("created_at", "recorded_at"):
            out += field(tag, 7, struct.pack(">q", microseconds(text)))
        elif name == "transaction_id":
            out += field(tag, 2, struct.pack(">Q", int(text)))
        else:
            out += field(tag, 6, text.encode())
    return out


def keys(keyring_text):
    def raw(text):
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return {key["kid"]: raw(key["k"]) for key in json.loads(keyring_text)["keys"] if key["kty"] == "oct"}


def signature(row, log_id, ring):
    key_id = row[COLUMNS.index("key_id")]
    mac = hmac.new(ring[key_id], CONTEXT + encode(row, log_id), hashlib.sha256)
    return f"v1:{key_id}:{mac.hexdigest()}"
