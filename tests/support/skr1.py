"""SKR1, the signature and the leaf of an audit record, written a second time from their description.

Takes every value as the text that the server prints, so that it also shows that the signed bytes follow from what a
person sees in the table.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
import uuid
from datetime import date

COLUMNS = (
    "id",
    "tenant_id",
    "event_type",
    "event_data",
    "actor_id",
    "actor_type",
    "created_at",
    "recorded_at",
    "transaction_id",
    "session_user_name",
    "current_user_name",
    "key_id",
)
NULLABLE = ("actor_id", "actor_type")
CONTEXT = b"skill_system/row-mac/v1\0"
LONGEST_JSON = 32 * 1024
DEEPEST_JSON = 256
TIME = re.compile(
    r"(\d{4,})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)( BC)?"
)


class Number(str):
    """The digits of a JSON number, exactly as they stand."""


def parse(text):
    return json.loads(text, parse_int=Number, parse_float=Number)


def counted(data):
    return struct.pack(">I", len(data)) + data


def walk(value, depth_left=DEEPEST_JSON):
    if isinstance(value, (list, dict)) and depth_left == 0:
        raise ValueError("nested too deep")
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
        return b"\x05" + struct.pack(">I", len(value)) + b"".join(walk(item, depth_left - 1) for item in value)
    members = sorted((key.encode(), item) for key, item in value.items())
    return (
        b"\x06"
        + struct.pack(">I", len(members))
        + b"".join(counted(key) + walk(item, depth_left - 1) for key, item in members)
    )


def microseconds(text):
    """Since 1970 UTC, of a time with offset as to_jsonb and the ISO style print it: 2026-01-02
    03:04:05.678901+05:45."""
    found = TIME.fullmatch(text)
    if not found:
        raise ValueError(f"no finite time: {text}")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, sign, *offset, bc = found.groups()[6:]
    year = 1 - year if bc else year
    # Python's calendar is too short at both ends, and all calendars repeat after 400 years.
    days = date(year % 400 + 400, month, day).toordinal() + (year // 400 - 1) * 146_097 - date(1970, 1, 1).toordinal()
    east, minutes, seconds = (int(part or 0) for part in offset)
    east = (east * 3600 + minutes * 60 + seconds) * (-1 if sign == "-" else 1)
    return (days * 86_400 + hour * 3600 + minute * 60 + second - east) * 1_000_000 + int((fraction or "").ljust(6, "0"))


def field(tag, kind, data):
    return struct.pack(">HB", tag, kind) + counted(data)


def encode(row, log_id):
    """row: the printed values of COLUMNS in their order, None for NULL. ValueError or struct.error: cannot be
    encoded."""
    out = b"SKR1" + uuid.UUID(log_id).bytes + struct.pack(">HH", 1, len(COLUMNS))
    for tag, (name, text) in enumerate(zip(COLUMNS, row, strict=True), start=1):
        if text is None and name in NULLABLE:
            out += field(tag, 0, b"")
        elif text is None:
            raise ValueError(f"{name} is NULL")
        elif name == "id":
            out += field(tag, 4, uuid.UUID(text).bytes)
        elif name == "event_data":
            data = walk(parse(text))
            out += field(tag, 9, data) if len(data) <= LONGEST_JSON else field(tag, 8, hashlib.sha256(data).digest())
        elif name in ("created_at", "recorded_at"):
            out += field(tag, 7, struct.pack(">q", microseconds(text)))
        elif name == "transaction_id":
            out += field(tag, 2, struct.pack(">Q", int(text) % 2**64))
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


def entry(row, signed, log_id):
    """What the tree holds of a row with this signature text, one that cannot be encoded included."""
    try:
        if signed is None:
            raise ValueError("signature is NULL")
        return encode(row, log_id) + signed.encode()
    except (ValueError, struct.error):
        return b"SKR0" + uuid.UUID(log_id).bytes + uuid.UUID(row[0]).bytes


def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()
