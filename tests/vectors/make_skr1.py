#!/usr/bin/env python3
"""Writes skr1.jsonl and keyring.json next to itself: the SKR1 vectors and the test keys they are signed with.

Each line, in ASCII: name, log_id, row (the values as the server prints them in the time zone UTC, null for NULL),
    skr1 (hex; null when
the row cannot be encoded), signature (text), leaf_hash (hex of SHA-256(0x00 | skr1 | signature), as in RFC 6962).
"""

import base64
import hashlib
import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))
import skr1  # noqa: E402

LOG = "01890a5d-ac96-774b-bcce-b302099a8057"
KEYS = ["hs-0123456789abcdef", "k", "-._A-z09", "x" * 64]
BASE = {
    "id": None,
    "tenant_id": "default",
    "event_type": "run.logged",
    "event_data": "{}",
    "actor_id": "agent-7",
    "actor_type": "agent",
    "created_at": "2026-01-02 03:04:05.678901+00",
    "recorded_at": "2026-01-02 03:04:05.678902+00",
    "transaction_id": "748",
    "session_user_name": "alice",
    "current_user_name": "alice",
    "key_id": KEYS[0],
}
TEXTS = {
    "latin": "Käse",
    "NFC": "\u00e9\u00f1",
    "NFD": "e\u0301n\u0303",
    "NFKC ligature": "\ufb01",
    "plain of the ligature": "fi",
    "lone combining": "\u0301",
    "many combining": "a" + "\u0323\u0307" * 8,
    "Hangul syllable": "\ud55c",
    "Hangul jamo": "\u1112\u1161\u11ab",
    "Han": "漢字",
    "Angstrom": "\u212b\u00c5",
    "astral": "\U0001f600",
    "ZWJ sequence": "\U0001f469\u200d\U0001f4bb",
    "flag": "\U0001f1e9\U0001f1ea",
    "variation selector": "\u2764\ufe0f",
    "bidi": "\u05d0\u202eabc\u202c\u200f",
    "isolates": "\u2066x\u2069",
    "private use": "\ue000\uf8ff",
    "astral private use": "\U000f0000\U0010fffd",
    "last code point": "\U0010ffff",
    "noncharacters": "\ufdd0\ufffe\uffff",
    "replacement": "\ufffd",
    "BOM": "\ufeffx",
    "zero width": "a\u200bb",
    "no-break space": "\u00a0",
    "line separators": "\u2028\u2029",
    "controls": "\x01\x1f\x7f\x80\x9f",
    "line ends": "a\r\nb\nc\rd",
    "tab and spaces": "\t x  ",
    "quotes": "\"'`\\/",
    "lengths 1 to 4": "\x7f\x80\u07ff\u0800\uffff\U00010000",
}
NUMBERS = [
    "0",
    "1",
    "-1",
    "1.0",
    "1.00",
    "0.0",
    "0.00",
    "100",
    "1e2",
    "0.1",
    "-0.5",
    "10",
    "99",
    "9999",
    "10000",
    "10001",
    "99999999",
    "100000000",
    "0.0001",
    "0.00001",
    "0.00010001",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "2147483648",
    "-2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "3.141592653589793238462643383279",
    "12345678901234567890.1230",
    "1e400",
    "-1e400",
    "1e-300",
    "-1e-300",
    "1.5e-5",
    "0." + "0" * 20,
    "123456789" * 12,
    "-0.1e-1",
    "1e0",
]
TIMES = {
    "epoch": "1970-01-01 00:00:00+00",
    "a microsecond after": "1970-01-01 00:00:00.000001+00",
    "a microsecond before": "1969-12-31 23:59:59.999999+00",
    "server's epoch": "2000-01-01 00:00:00+00",
    "before the server's": "1999-12-31 23:59:59.999999+00",
    "tenth of a second": "2026-07-01 12:00:00.1+00",
    "milliseconds": "2026-07-01 12:00:00.123+00",
    "five digits": "2026-07-01 12:00:00.00012+00",
    "leap day": "2024-02-29 23:59:59+00",
    "leap day of 2000": "2000-02-29 00:00:00+00",
    "1900 has none": "1900-03-01 00:00:00+00",
    "32 bits": "2038-01-19 03:14:08+00",
    "last of 4 digits": "9999-12-31 23:59:59.999999+00",
    "5 digits": "10000-01-01 00:00:00+00",
    "year 294246": "294246-12-31 23:59:59.999999+00",
    "last that can be encoded": "294247-01-10 04:00:54.775807+00",
    "year 1": "0001-01-01 00:00:00+00",
    "year 1 BC": "0001-12-31 23:59:59.999999+00 BC",
    "leap day BC": "0005-02-29 12:00:00+00 BC",
    "first": "4714-11-24 00:00:00+00 BC",
    "before Gregory": "1582-10-14 00:00:00+00",
    "before 1900": "1883-11-18 17:00:00.5+00",
}

vectors = []


def add(name, log_id=LOG, **changes):
    row = BASE | {"id": f"01890a5d-ac96-774b-8000-{len(vectors) + 1:012x}"} | changes
    values = [row[column] for column in skr1.COLUMNS]
    try:
        encoded = skr1.encode(values, log_id).hex()
        signature = skr1.signature(values, log_id, RING)
    except (ValueError, struct.error):
        encoded = None
        signature = f"v1:{KEYS[0]}:{'0' * 64}"
    leaf = skr1.leaf_hash(skr1.entry(values, signature, log_id)).hex()
    vectors.append(
        {"name": name, "log_id": log_id, "row": row, "skr1": encoded, "signature": signature, "leaf_hash": leaf}
    )


def printed(value):
    """A value as jsonb prints it: keys by length, then by bytes."""
    if isinstance(value, skr1.Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(printed, value)) + "]"
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{printed(key)}: {printed(value[key])}" for key in keys) + "}"
    return json.dumps(value, ensure_ascii=False)


def number(text):
    """A number as numeric prints it: every digit and no exponent."""
    mantissa, _, exponent = text.partition("e")
    sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    whole, _, fraction = digits.partition(".")
    shift = int(exponent or 0)
    fraction, whole = (
        (fraction[shift:], whole + fraction[:shift].ljust(shift, "0"))
        if shift >= 0
        else (whole.rjust(1 - shift, "0")[shift:] + fraction, whole.rjust(1 - shift, "0")[:shift])
    )
    whole = whole.lstrip("0") or "0"
    return skr1.Number(sign + whole + ("." + fraction if fraction else ""))


def data(name, value, **changes):
    add(f"event_data: {name}", event_data=printed(value), **changes)


def text_columns():
    longest = {
        "tenant_id": "t" * 1000,
        "event_type": "\U0001f600" * 100,
        "actor_id": "\U0010ffff" * 100,
        "actor_type": "\u00e9" * 20,
        "session_user_name": "s" * 63,
        "current_user_name": "\u00fc" * 31 + "c",
    }
    for column, most in longest.items():
        add(f"{column}: empty", **{column: ""})
        add(f"{column}: one character", **{column: "x"})
        add(f"{column}: longest", **{column: most})
        add(f"{column}: the word null", **{column: "null"})
    for column in skr1.NULLABLE:
        add(f"{column}: NULL", **{column: None})
    add("actor: both NULL", actor_id=None, actor_type=None)
    add("actor: both empty", actor_id="", actor_type="")
    for name, text in TEXTS.items():
        add(f"actor_id: {name}", actor_id=text)
        data(f"{name}", {text: text})


def json_values():
    for name, value in {
        "null": None,
        "false": False,
        "true": True,
        "empty string": "",
        "empty array": [],
        "empty object": {},
        "string null": "null",
        "string true": "true",
        "string 1": "1",
        "array of null": [None],
        "arrays": [[], [[]], {}],
        "object of object": {"a": {"a": {}}},
        "mixed": [None, True, False, number("1"), "1", [number("1")], {"1": number("1")}],
        "empty key": {"": ""},
        "empty key and others": {"": None, "a": {"": []}},
        "control characters": "".join(map(chr, range(1, 32))),
        "escapes": '\b\f\n\r\t"\\/',
        "backslash u": "\\u0041",
        "reserved by a parser": {"$serde_json::private::Number": "12"},
        "reserved by a parser, no number": {"$serde_json::private::Number": "x"},
        "reserved by a parser, raw": {"$serde_json::private::RawValue": "[1]"},
        "prototype": {"__proto__": {"a": number("1")}},
    }.items():
        data(name, value)
    for text in NUMBERS:
        data(f"number {text if len(text) < 40 else text[:20] + '...'}", number(text))
    data("numbers in an array", [number(text) for text in NUMBERS])
    data("nested 256 arrays", skr1.parse("[" * 256 + "]" * 256))
    data("nested 256 objects", skr1.parse('{"a":' * 255 + "{}" + "}" * 255))
    data("300 members", {f"key{n}": number(str(n)) for n in range(300)})
    data("1000 elements", [number(str(n % 10)) for n in range(1000)])


def key_orders():
    for name, keys in {
        "bytes, not lengths": ["b", "aa", "c", "aaa", ""],
        "bytes, not UTF-16": ["\uffff", "\U00010000", "\ue000", "z"],
        "bytes, not locale": ["a", "B", "A", "b", "ä", "Z"],
        "prefixes": ["a", "a\x01", "a ", "aa", "a\u0301"],
        "digits": ["10", "9", "1", "01"],
        "signs": ["-", "_", ".", "a-b", "a_b", "a.b"],
        "quotes": ['"', "\\", "'", "/"],
        "NFC and NFD": ["\u00e9", "e\u0301", "e", "f"],
    }.items():
        data(f"keys by {name}" if "," in name else f"keys: {name}", {key: number(str(n)) for n, key in enumerate(keys)})
        data(
            f"keys told backwards: {name}",
            [{key: number(str(n)) for n, key in enumerate(keys)} for keys in (keys[:2], keys[::-1])],
        )


def long_payloads():
    def filled(shape, length):
        return shape("x" * (length - len(skr1.walk(shape("")))))

    shapes = {"string": lambda text: text, "object": lambda text: {"a": ["é" * 2000, text], "b": number("1.50")}}
    for name, shape in shapes.items():
        for length in (skr1.LONGEST_JSON, skr1.LONGEST_JSON + 1):
            data(f"{name} of {length} bytes encoded", filled(shape, length))
    data("the last byte other than x", filled(shapes["string"], skr1.LONGEST_JSON + 1)[:-1] + "y")
    data("100 kB of numbers", [number("12345678.90") for _ in range(6000)])


def others():
    for name, text in TIMES.items():
        add(f"created_at: {name}", created_at=text)
        add(f"recorded_at: {name}", recorded_at=text)
    for value in (0, 1, 3, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, -1, -(2**63)):
        add(f"transaction_id: {value}", transaction_id=str(value))
    for key in KEYS:
        add(f"key_id: {key[:12]}, {len(key)} characters", key_id=key)
    for name, text in {
        "nil": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "all ones": "f" * 8 + "-ffff-ffff-ffff-" + "f" * 12,
        "version 4": "9b2c1f0e-3d4a-4c5b-8e6f-7a8b9c0d1e2f",
    }.items():
        add(f"id: {name}", id=text)
        add(f"log_id: {name}", log_id=text)
    add(
        "everything at once",
        tenant_id="tenant/ü",
        event_type="row.updated",
        actor_id=None,
        actor_type="user",
        created_at="2030-12-31 23:59:59.9+00",
        session_user_name="poolér",
        current_user_name="app",
        key_id="k",
        transaction_id=str(2**40),
        event_data=printed(
            {"new": {"amount": number("1.50"), "n": None}, "old": {"amount": number("1.5")}, "table": "public.invoices"}
        ),
    )


def look_alikes():
    """Rows that a careless encoding would take for each other."""
    for columns in (
        ("tenant_id", "event_type"),
        ("actor_id", "actor_type"),
        ("session_user_name", "current_user_name"),
    ):
        for left, right in (("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("a\x1fb", "c"), ('a","b', "c")):
            add(
                f"boundary of {columns[0]} and {columns[1]}: {left!a} {right!a}",
                **dict(zip(columns, (left, right), strict=True)),
            )
    add("times swapped", created_at=BASE["recorded_at"], recorded_at=BASE["created_at"])
    for name, value in {
        "[[1], 2]": [[number("1")], number("2")],
        "[[1, 2]]": [[number("1"), number("2")]],
        "[1, [2]]": [number("1"), [number("2")]],
        "[1, 2]": [number("1"), number("2")],
        "key and value": {"a": "b"},
        "value and key": {"b": "a"},
        "array of both": ["a", "b"],
        "array of pairs": [["a", "b"]],
        "12 as one number": [number("12")],
        "12 as two": [number("1"), number("2")],
        "text of an object": '{"a": "b"}',
        "twice text": '"a"',
    }.items():
        data(f"look-alike {name}", value)


def not_encodable():
    for column in skr1.COLUMNS:
        if column != "id" and column not in skr1.NULLABLE:
            add(f"cannot be encoded: {column} NULL", **{column: None})
    for column in ("created_at", "recorded_at"):
        for text in ("infinity", "-infinity", "294247-01-10 04:00:54.775808+00", "294276-12-31 23:59:59.999999+00"):
            add(f"cannot be encoded: {column} {text}", **{column: text})
    add("cannot be encoded: nested 257 arrays", event_data="[" * 257 + "]" * 257)
    add("cannot be encoded: nested 257 objects", event_data='{"a": ' * 256 + "{}" + "}" * 256)


def keyring():
    """Not secret, and never to be used elsewhere."""

    def key(name):
        raw = hashlib.sha256(f"skill_system test key {name}".encode()).digest()
        return {
            "kty": "oct",
            "kid": name,
            "alg": "HS256",
            "k": base64.urlsafe_b64encode(raw).rstrip(b"=").decode(),
            "active": name == KEYS[0],
        }

    return json.dumps({"keys": [key(name) for name in KEYS]}, indent=2) + "\n"


RING = skr1.keys(keyring())


def make():
    """The two files, as texts by name."""
    vectors.clear()
    for section in (text_columns, json_values, key_orders, long_payloads, others, look_alikes, not_encodable):
        section()
    return {"skr1.jsonl": "".join(json.dumps(vector) + "\n" for vector in vectors), "keyring.json": keyring()}


if __name__ == "__main__":
    for file, content in make().items():
        (HERE / file).write_text(content, encoding="ascii", newline="\n")
    print(f"{len(vectors)} vectors, {sum(vector['skr1'] is None for vector in vectors)} of them not encodable")
