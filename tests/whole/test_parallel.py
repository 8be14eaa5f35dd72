"""Functions that may run in parallel workers do so, and answer there as anywhere."""

import psycopg
import pytest

from functions import DEFAULTS, arguments, prepare


@pytest.fixture(scope="module")
def stage(db):
    return prepare(db)


def answer(db, statement, given):
    try:
        return db.execute(statement, given).fetchall()
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary


def test_the_same_in_a_parallel_worker(stage):
    setting = "force_parallel_mode" if stage.info.server_version < 160000 else "debug_parallel_query"
    safe = {
        row[0]
        for row in stage.execute(
            "SELECT oid::regprocedure::text FROM pg_proc "
            "WHERE pronamespace = 'skill_system'::regnamespace AND proparallel IN ('s', 'r')"
        )
    }
    tried = 0
    for signature, name, _, types, variadic in arguments(stage):
        if signature not in safe or name == "uuid_v7":
            continue
        for hostile in (None, *range(len(types))):
            given = [DEFAULTS[kind] for kind in types]
            if hostile is not None:
                given[hostile] = None
            places = [f"%s::{kind}" for kind in types]
            if variadic:
                places[-1] = "VARIADIC " + places[-1]
            statement = f"SELECT f::text FROM skill_system.{name}({', '.join(places)}) f"
            stage.execute(f"SET {setting} = off")
            expected = answer(stage, statement, given)
            stage.execute(f"SET {setting} = on")
            assert answer(stage, statement, given) == expected, (signature, hostile)
            plan = "\n".join(row[0] for row in stage.execute("EXPLAIN " + statement, given))
            tried += "Workers Planned" in plan
    assert tried > 30
