"""What is signed follows from the values alone: 10,500 random rows, read under 20 settings of the session, and judged
by two implementations."""

import json
import random

import pytest

import skr1
from keyring import keyring_path, load_library, read_keyring
from ledger import problems

RANDOM = random.Random(20260101)
ALPHABETS = [
    "abcXYZ 0129_-",
    "äöüßéñ",
    "漢字かな交じり",
    "😀🏴‍☠️👩‍👩‍👧",
    "אבגדה\u200f\u202e",
    "\\\"'/\b\f\n\r\t\x01\x7f",
    "\u00a0\u2028\ufeff\uffff",
    "e\u0301o\u0308",
]
# Of which event types consist.
PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]
NUMBERS = [
    "0",
    "-0",
    "0.00",
    "-0.5",
    "1e300",
    "-1E-300",
    "1e0",
    "1E+2",
    "12345678901234567890.123",
    "100",
    "1.0",
    "0.1e1",
    "0e5",
    "1e-7",
    "9007199254740993",
    "-123456789012345678901234567890",
    "3.141592653589793238462643383279",
]


def random_text(longest=12):
    alphabet = RANDOM.choice(ALPHABETS)
    return "".join(RANDOM.choice(alphabet) for _ in range(RANDOM.randrange(longest)))


def random_json(depth):
    kind = RANDOM.randrange(8 if depth else 6)
    if kind == 0:
        return "null"
    if kind == 1:
        return RANDOM.choice(["true", "false"])
    if kind == 2:
        return RANDOM.choice(NUMBERS)
    if kind == 3:
        sign, whole = RANDOM.choice(["", "-"]), RANDOM.randrange(10 ** RANDOM.randrange(1, 25))
        return f"{sign}{whole}.{RANDOM.randrange(10**6):0{RANDOM.randrange(1, 9)}d}"
    if kind in (4, 5):
        return json.dumps(random_text(), ensure_ascii=RANDOM.random() < 0.5)
    if kind == 6:
        return "[" + ",".join(random_json(depth - 1) for _ in range(RANDOM.randrange(5))) + "]"
    # Keys of all lengths, the empty one and repeated ones: jsonb keeps the last, and sorts by length, SKR1 by bytes.
    keys = [
        RANDOM.choice(["", "a", "b", "aa", "B", "é", random_text(), random_text()]) for _ in range(RANDOM.randrange(6))
    ]
    return "{" + ",".join(f"{json.dumps(key)}:{random_json(depth - 1)}" for key in keys) + "}"


def random_row():
    deep = RANDOM.random()
    if deep < 0.01:
        levels = RANDOM.randrange(20, 60)
        data = "[" * levels + random_json(2) + "]" * levels
    elif deep < 0.03:
        data = json.dumps(
            {"long": random_text(2) + "x" * RANDOM.choice([32 * 1024 - 40, 32 * 1024 - 23, 32 * 1024, 100_000]), "n": 1}
        )
    else:
        data = random_json(RANDOM.randrange(5))

    def claim(most):
        return RANDOM.choice([None, random_text(most) or "x"])

    event_type = "".join(RANDOM.choices(PRINTABLE, k=RANDOM.randrange(1, 100)))
    return event_type, data, claim(100), claim(20)


# What to_jsonb prints does not depend on DateStyle; ::text is the ISO form only under DateStyle ISO, and without an
# offset under the others.
AS_JSON = {"created_at": "to_jsonb(created_at) #>> '{}'", "recorded_at": "to_jsonb(recorded_at) #>> '{}'"}
COLUMNS = {name: f"{name}::text" for name in (*skr1.COLUMNS, "signature")}
ZONES = [
    "UTC",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Kiritimati",
    "Pacific/Apia",
    "Europe/Amsterdam",
    "Africa/Monrovia",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "<+13:37>-13:37",
]
STYLES = ["ISO, MDY", "ISO, DMY", "SQL, MDY", "SQL, DMY", "German", "Postgres, MDY", "Postgres, DMY", "ISO, YMD"]


def setting(number, locales):
    """All values of each setting come up, in 20 combinations that are all different."""
    return {
        "TimeZone": ZONES[number % len(ZONES)],
        "DateStyle": STYLES[number % len(STYLES)],
        "extra_float_digits": str(number % 19 - 15),
        "bytea_output": ["hex", "escape"][number // 10],
        "IntervalStyle": ["postgres", "postgres_verbose", "sql_standard", "iso_8601"][number % 3 + number // 15],
        "standard_conforming_strings": ["on", "off"][number % 2],
        "search_path": ["public", "", "pg_temp, skill_system"][number % 3],
        "xmlbinary": ["base64", "hex"][number % 2],
        "quote_all_identifiers": ["on", "off"][number % 2],
    } | {
        name: locales[(number + more) % len(locales)]
        for more, name in enumerate(("lc_messages", "lc_monetary", "lc_numeric", "lc_time"))
    }


@pytest.fixture(scope="module")
def locales(db):
    """Those of the server's machine that fit the database."""
    return [
        row[0]
        for row in db.execute(
            "SELECT DISTINCT collcollate FROM pg_collation WHERE collprovider = 'c' "
            "AND collencoding IN (-1, pg_char_to_encoding('UTF8')) ORDER BY 1"
        )
    ]


@pytest.fixture(scope="module")
def table(db, database):
    """Mostly by append_audit(); by INSERT those whose created_at is somewhere between 4714 BC and 294246."""
    rows = [random_row() for _ in range(10_000)]
    with load_library(db).transaction(), db.cursor() as cursor:
        cursor.executemany("SELECT skill_system.append_audit(%s, %s::jsonb, %s, %s)", rows)
        cursor.executemany(
            "INSERT INTO skill_system.audit_logs (event_type, event_data, actor_id, actor_type, created_at) "
            "VALUES (%s, %s::jsonb, %s, %s, timestamptz '2000-01-01 00:00:00Z' + %s::bigint * interval '1 "
            "microsecond')",
            [
                (
                    *random_row(),
                    RANDOM.choice(
                        [RANDOM.randrange(-211_813 * 10**12, 922_242 * 10**13), RANDOM.randrange(-4 * 10**15, 10**15)]
                    ),
                )
                for _ in range(500)
            ],
        )
    ring = skr1.keys(read_keyring(keyring_path(db)))
    return ring, db.execute("SELECT log_id::text FROM skill_system.audit_state").fetchone()[0]


def test_the_settings_are_all_different_and_change_what_is_printed(connect, locales):
    seen = set()
    for number in range(20):
        with connect() as reader:
            for name, value in setting(number, locales).items():
                reader.execute("SELECT set_config(%s, %s, false)", [name, value])
            seen.add(
                reader.execute(
                    "SELECT timestamptz '2026-07-03 12:00Z'::text, (1.1::float8 / 3)::text, "
                    "decode('de', 'hex')::text, interval '1 day 2 hours'::text"
                ).fetchone()
            )
    assert len(seen) == 20, seen


@pytest.mark.parametrize("number", range(20))
def test_both_implementations_agree_under_any_settings(connect, table, locales, number):
    ring, log_id = table
    with connect() as reader:
        wanted = setting(number, locales)
        for name, value in wanted.items():
            reader.execute("SELECT set_config(%s, %s, false)", [name, value])
        expressions = COLUMNS if wanted["DateStyle"].startswith("ISO") else COLUMNS | AS_JSON
        found = reader.execute(f"SELECT {', '.join(expressions.values())} FROM skill_system.audit_logs").fetchall()
        assert len(found) == 10_500
        wrong = [row for row in found if skr1.signature(row[:-1], log_id, ring) != row[-1]]
        assert not wrong, f"{len(wrong)} of {len(found)} differ, first: {wrong[0]}"
        said = []
        reader.add_notice_handler(lambda notice: said.append(notice.message_primary))
        assert problems(reader) == []
        assert "10500" in " ".join(said), said


def test_a_changed_digit_is_noticed(connect, table):
    """The comparison above can fail."""
    ring, log_id = table
    with connect() as reader:
        row = list(
            reader.execute(
                f"SELECT {', '.join(COLUMNS.values())} FROM skill_system.audit_logs "
                "WHERE event_data::text LIKE '%1.0%' LIMIT 1"
            ).fetchone()
        )
    place = skr1.COLUMNS.index("event_data")
    row[place] = row[place].replace("1.0", "1.00", 1)
    assert skr1.signature(row[:-1], log_id, ring) != row[-1]
