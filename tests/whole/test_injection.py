"""Hostile text through every argument of every function: never a syntax error, never an internal error, never a crash;
and what is stored is stored as it was given."""

import json

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from functions import DEFAULTS, arguments, prepare

HOSTILE = [
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "'; DROP TABLE skill_system.runs; --",
    "$$",
    "$q$ ; SELECT 1; $q$",
    "%s %n %d %%",
    "{}",
    "{a,b",
    '{"a"',
    "}",
    "[",
    "(",
    ")",
    "/*",
    "--",
    ";",
    "\n\r\t\x01\x7f",
    "\u202eabc\u200f",
    "😀👩‍👩‍👧",
    "\ufeff",
    "a" * 1_000_000,
    "é" * 100_000,
    "*",
    "**",
    "../../etc/passwd",
    "pg_catalog.pg_class",
    "skill_system.runs",
    "NULL",
    "null",
    "",
    " ",
    "\\000",
    "\\u0000",
    "{NULL}",
    "1e400",
    "-1",
    "99999999999999999999",
    "infinity",
    "\u0130\u0131ß",
    "$1",
    ":name",
    "E'\\x'",
    "|| pg_sleep(10) ||",
]
JSONS = [
    "{}",
    "[]",
    "null",
    '"x"',
    "[[[[]]]]",
    '{"": {"": ""}}',
    '{"a": "\'; DROP TABLE x; --", "$$": "%s%n"}',
    '["\\"", "\\\\", "😀", "\\u202e"]',
    '{"event_type": 1}',
    '[{"event_type": "\'; --", "payload": {"$$": "\'"}}]',
    '[1, null, true, "x", {}, []]',
    json.dumps(["x" * 1_000_000]),
    "[" * 500 + "]" * 500,
    '{"duration_ms": 1e400, "gen_ai.usage.input_tokens": "x"}',
    json.dumps({"k" * 70_000: 1}),
    '{"a": -0.0, "b": 1E+400}',
]
# Class 42 is what a wrongly quoted statement would raise, XX and 58 what a broken library would.
HARMLESS_42 = {"42501", "42704", "42P01", "42809", "42602", "42703", "42883"}


@pytest.fixture(scope="module")
def stage(db):
    return prepare(db)


@pytest.mark.long
def test_hostile_text_in_every_argument(stage, connect):
    tried, wrong = 0, []
    connection = connect()
    connection.execute("SET statement_timeout = '60s'")
    pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    for _, name, _, types, variadic in arguments(stage):
        for position, kind in enumerate(types):
            if kind == "text":
                values = HOSTILE
            elif kind == "text[]":
                values = [[text] for text in HOSTILE] + [[None], HOSTILE[:-1] * 3, ["x"] * 2000]
            elif kind == "jsonb":
                values = JSONS
            else:
                continue
            for value in values:
                given = [DEFAULTS[other] for other in types]
                given[position] = value
                places = ", ".join(
                    f"{'VARIADIC ' if variadic and i == len(types) - 1 else ''}%s::{other}"
                    for i, other in enumerate(types)
                )
                tried += 1
                try:
                    with connection.transaction(force_rollback=True):
                        connection.execute(f"SELECT * FROM skill_system.{name}({places})", given)
                except psycopg.Error as error:
                    state = error.sqlstate
                    if (
                        state is None
                        or state[:2] in ("XX", "58", "57", "08")
                        or (state[:2] == "42" and state not in HARMLESS_42)
                    ):
                        # jsonb itself refuses some of these before any function is called.
                        wrong.append((name, position, str(value)[:60], state, str(error).splitlines()[0][:200]))
                        if connection.broken:
                            pytest.fail(f"the connection broke: {wrong[-1]}")
    assert tried > 1000
    assert not wrong, f"{len(wrong)} of {tried}\n" + "\n".join(map(str, wrong[:40]))
    assert connection.execute("SELECT pg_backend_pid()").fetchone()[0] == pid
    assert stage.execute("SELECT to_regclass('skill_system.runs') IS NOT NULL").fetchone()[0] is True
    assert stage.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


SHORT = [text for text in HOSTILE if 0 < len(text) <= 100]


def test_what_is_stored_is_what_was_given(stage):
    for text in SHORT:
        data = {"of": text, text: [text]}
        event_type = text
        append = "SELECT skill_system.append_audit(%s, %s, %s, %s)"
        if not (text.isascii() and text.isprintable()):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                stage.execute(append, [text, Jsonb(data), text, text[:20]])
            event_type = "hostile"
        identity = stage.execute(append, [event_type, Jsonb(data), text, text[:20]]).fetchone()[0]
        assert stage.execute(
            "SELECT event_type, event_data, actor_id, actor_type FROM skill_system.audit_logs WHERE id = %s", [identity]
        ).fetchone() == (event_type, data, text, text[:20])
        if not text.strip():
            continue
        run = stage.execute(
            "SELECT skill_system.log_run(%s, %s, 'ok', 1, goal => %s, agent_id => %s, payload => %s, "
            "idempotency_key => %s)",
            [text, text, text, text, Jsonb(data), text],
        ).fetchone()[0]
        assert stage.execute(
            "SELECT goal, agent_id, idempotency_key FROM skill_system.runs WHERE id = %s", [run]
        ).fetchone() == (text, text, text)
        payload = stage.execute("SELECT payload FROM skill_system.run_events WHERE run_id = %s", [run]).fetchone()[0]
        assert (payload["skill"], payload["operation"], payload["of"]) == (text, text, text)
        if text.strip() == text and text.isprintable():
            stage.execute(
                "INSERT INTO skill_system.policy_profiles (name, metadata, allowed_effects) "
                "VALUES (%s, %s, '{db.read}') ON CONFLICT (tenant_id, name) DO NOTHING",
                [text, Jsonb(data)],
            )
            assert (
                stage.execute("SELECT metadata FROM skill_system.policy_profiles WHERE name = %s", [text]).fetchone()[0]
                == data
            )
            assert (
                stage.execute(
                    "SELECT allowed FROM skill_system.check_policy(%s, '{db.read}'::text[])", [text]
                ).fetchone()[0]
                is True
            )
    assert stage.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []


def test_blocked_effects_come_back_as_they_were_asked(stage):
    for text in HOSTILE:
        for cast, value in (("text[]", [text]), ("jsonb", Jsonb([text])), ("text", json.dumps([text]))):
            allowed, blocked = stage.execute(
                f"SELECT allowed, blocked_effects FROM skill_system.check_policy('dev', %s::{cast})", [value]
            ).fetchone()
            assert (allowed, blocked) == (False, [text]), (cast, text[:50])


def test_a_null_character_in_json_is_refused_by_the_server_or_told_as_malformed(stage):
    with pytest.raises(psycopg.errors.UntranslatableCharacter):
        stage.execute("SELECT skill_system.append_audit('x', '{\"a\": \"\\u0000\"}')")
    assert (
        stage.execute("SELECT allowed FROM skill_system.check_policy('dev', '[\"db.read\\u0000\"]'::text)").fetchone()[
            0
        ]
        is False
    )
    assert (
        stage.execute("SELECT allowed FROM skill_system.check_policy('dev\\u0000', '{db.read}'::text)").fetchone()[0]
        is False
    )


NAMES = [
    "it's",
    'quo"te',
    "semi;colon",
    "$$",
    "%I %L %s",
    "back\\slash",
    "new\nline",
    "😀",
    "SELECT",
    " blank ",
    "x" * 63,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_tables_schemas_and_columns(stage, name):
    here = sql.Identifier(name)
    stage.execute(sql.SQL("CREATE SCHEMA {}").format(here))
    for suffix in ("a", "b"):
        stage.execute(
            sql.SQL("CREATE TABLE {}.{} ({} text PRIMARY KEY, other int, {} int)").format(
                here, sql.Identifier(name[:60] + suffix), here, sql.Identifier("z" + name[:60])
            )
        )
    audited, kept = (sql.SQL("{}.{}").format(here, sql.Identifier(name[:60] + suffix)) for suffix in ("a", "b"))
    stage.execute(
        "SELECT skill_system.audit_table(%s::regclass, ignored_columns => %s)",
        [audited.as_string(stage), ["z" + name[:60]]],
    )
    stage.execute("SELECT skill_system.audit_table(%s::regclass, columns => %s)", [audited.as_string(stage), [name]])
    stage.execute(sql.SQL("INSERT INTO {} VALUES ('v', 1, 2)").format(audited))
    stage.execute(sql.SQL("UPDATE {} SET other = 3").format(audited))
    event, data = stage.execute(
        "SELECT event_type, event_data FROM skill_system.audit_logs WHERE event_type LIKE 'row.%%' "
        "ORDER BY recorded_at DESC LIMIT 1"
    ).fetchone()
    assert (event, data["new"], data["key"]) == ("row.inserted", {name: "v"}, {name: "v"})
    assert (
        stage.execute("SELECT to_regclass(%s) = %s::regclass", [data["table"], audited.as_string(stage)]).fetchone()[0]
        is True
    )
    stage.execute("SELECT skill_system.make_append_only(%s::regclass)", [kept.as_string(stage)])
    stage.execute(sql.SQL("INSERT INTO {} VALUES ('v', 1, 2)").format(kept))
    for statement in ("UPDATE {} SET other = 1", "DELETE FROM {}", "TRUNCATE {}"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
            stage.execute(sql.SQL(statement).format(kept))


def test_months_that_are_none(stage):
    for month in (
        "infinity",
        "-infinity",
        "0044-03-15 BC",
        "5874897-12-31",
        "294276-12-01",
        "10000-01-01",
        "0001-01-01",
    ):
        try:
            stage.execute("SELECT skill_system.create_audit_partition(%s::date)", [month])
        except psycopg.Error as error:
            assert error.sqlstate[:2] not in ("XX", "58") and error.sqlstate != "42601", (
                month,
                error.sqlstate,
                str(error),
            )
    assert stage.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
