"""Arguments and results have the names that docs/vocabulary.md lists, and no others."""

import fnmatch
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "vocabulary.md").read_text()
SECTIONS = {title: text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## "))}
NAMES = "Names that several modules use", "Names of one module"
# Patterns of functions, and the names of their contract.
CONTRACTS = [
    (set(re.findall(r"`([\w*]+)`", functions)), set(re.findall(r"`(\w+)`", names)))
    for functions, names in re.findall(
        r"^\| (`.*?) \|.*\| (`.*?) \|$", SECTIONS["Functions with the names of somebody else's contract"], re.M
    )
]
INPUT = ("i", "b", "v")
PERIOD = {"since", "until", "deadline", "next_deadline"}
NOT = {
    "comment",
    "why",
    "remark",
    "limit",
    "page_size",
    "batch_size",
    "max_results",
    "user_name",
    "seen_version",
    "a",
    "b",
}


@pytest.fixture(scope="module")
def parameters(db):
    """Function, parameter, mode and type of everything but the names of contracts."""
    rows = db.execute(
        "SELECT p.proname::text, a.name, coalesce(a.mode::text, 'i'), a.type::regtype::text FROM pg_proc p,"
        " unnest(p.proargnames, p.proargmodes, coalesce(p.proallargtypes, p.proargtypes::oid[])) AS a(name, mode, type)"
        " WHERE p.pronamespace = 'skill_system'::regnamespace"
    ).fetchall()
    assert len(rows) > 400
    assert len(CONTRACTS) == 4
    of_contracts = set()
    for functions, names in CONTRACTS:
        for pattern in functions:
            assert fnmatch.filter({row[0] for row in rows}, pattern), f"no function {pattern}"
        found = {row[:2] for row in rows if row[1] in names and any(fnmatch.fnmatch(row[0], p) for p in functions)}
        assert {name for _, name in found} == names, functions
        of_contracts |= found
    return [row for row in rows if row[:2] not in of_contracts]


def test_every_argument_has_a_name(db):
    assert (
        db.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace"
            " AND pronargs > 0 AND (proargnames IS NULL OR '' = ANY (proargnames[:pronargs]))"
        ).fetchall()
        == []
    )


def test_the_names_are_those_of_the_page(parameters):
    shared, own = (set(re.findall(r"`(\w+)`", SECTIONS[title])) for title in NAMES)
    used = {name for _, name, _, _ in parameters}
    assert used - (shared | own) == set(), "not in docs/vocabulary.md"
    assert (shared | own) - used == set(), "in docs/vocabulary.md and unused"
    assert shared & own == set()


def test_the_names_follow_the_rules(parameters):
    wrong = [
        (function, name, kind)
        for function, name, mode, kind in parameters
        if name in NOT
        or name == "id"
        or name.startswith("p_")
        or (mode in INPUT and name.endswith("_by"))
        or (mode in INPUT and kind in ("integer", "bigint") and name == "count")
        or (kind == "uuid" and not name.endswith("_id") and name != "after")
        or (name == "skill_id" and kind != "uuid")
        or (kind.startswith("timestamp") and not name.endswith("_at") and name not in PERIOD)
        or (re.search("duration|elapsed|latency", name) and not name.endswith("_ms"))
    ]
    assert wrong == []


def test_a_policy_has_one_place(db):
    contracts = [pattern for functions, _ in CONTRACTS for pattern in functions]
    rows = db.execute(
        "SELECT p.proname::text, array_position(p.proargnames, 'policy_name'), p.pronargs - p.pronargdefaults"
        " FROM pg_proc p WHERE p.pronamespace = 'skill_system'::regnamespace"
        " AND array_position(p.proargnames, 'policy_name') <= p.pronargs"
    ).fetchall()
    assert len(rows) > 20
    # After skill, operation, status and duration_ms.
    places = {"log_run": 5}
    wrong = [
        (function, place)
        for function, place, mandatory in rows
        if not any(fnmatch.fnmatch(function, pattern) for pattern in contracts)
        and place != (1 if place <= mandatory else places.get(function, 2))
    ]
    assert wrong == []


def test_composite_types_follow_them_too(db):
    rows = db.execute(
        "SELECT c.relname::text, a.attname::text, a.atttypid::regtype::text FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind = 'c'"
    ).fetchall()
    assert len(rows) > 50
    wrong = [
        row
        for row in rows
        if row[1] in NOT | {"id"}
        or (row[2] == "uuid" and not row[1].endswith("_id"))
        or (row[2].startswith("timestamp") and not row[1].endswith("_at"))
    ]
    assert wrong == []
