"""Memory that runs out is an error 53200 of one statement, and never the end of the server."""

from pathlib import Path

import psycopg
import pytest

from functions import DEFAULTS, arguments, prepare

MB = 1 << 20
# The place of each type's value in the loop below.
PLACES = {"text": "$1", "jsonb": "$2", "text[]": "$3", "bytea": "$4"}
# Built once, as the server takes its time to build a large text; all calls get the same.
TRY_ALL = """
CREATE PROCEDURE public.try_all(size integer, statements text[]) LANGUAGE plpgsql AS $$
DECLARE
    letters text := repeat(repeat('x', 65536), size / 65536);
    json jsonb := to_jsonb(CASE WHEN size > 200000000 THEN left(letters, 200000000) ELSE letters END);
    list text[] := ARRAY[letters];
    bytes bytea := convert_to(letters, 'UTF8');
    outcome text;
BEGIN
    FOR n IN 1 .. array_length(statements, 1) LOOP
        INSERT INTO public.tried VALUES (statements[n]);
        COMMIT;
        BEGIN
            outcome := '00000';
            EXECUTE statements[n] USING letters, json, list, bytes;
            RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'rolled back';
        EXCEPTION WHEN OTHERS THEN
            IF sqlstate <> 'ZZ000' THEN outcome := sqlstate; END IF;
        END;
        UPDATE public.tried t SET state = outcome WHERE t.statement = statements[n];
        COMMIT;
    END LOOP;
END $$;
"""
# Size of the values, and address space beyond them.
SHORTAGES = [(400 * MB, 100 * MB), (30 * MB, 100 * MB), (14 * MB, 40 * MB), (3 * MB, 8 * MB), (MB // 2, 2 * MB)]


@pytest.fixture
def limited(new_cluster):
    """A server whose sessions have as much address space as an idle one, and so much more."""
    cluster = new_cluster("shared_preload_libraries=skill_system", "skill_system.seal_interval=1h")
    with cluster.connect() as connection:
        connection.execute("CREATE DATABASE limited")
    with cluster.connect(dbname="limited") as connection:
        connection.execute("CREATE EXTENSION skill_system")
        prepare(connection)
        connection.execute("CREATE TABLE public.tried (statement text PRIMARY KEY, state text)")
        connection.execute(TRY_ALL)
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        status = Path(f"/proc/{pid}/status").read_text()
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))

    def limit(more):
        cluster.stop()
        cluster.address_space = used + more
        cluster.start()
        return lambda: cluster.connect(dbname="limited")

    return limit


def statements(db):
    """For each argument of each function a call in which it is large."""
    made = []
    for _, name, _, types, variadic in arguments(db):
        for position, kind in enumerate(types):
            if kind not in PLACES:
                continue
            with psycopg.ClientCursor(db) as cursor:
                given = [cursor.mogrify("%s", [DEFAULTS[other]]) + f"::{other}" for other in types]
            given[position] = PLACES[kind]
            if variadic:
                given[-1] = "VARIADIC " + given[-1]
            made.append(f"SELECT * FROM skill_system.{name}({', '.join(given)})")
    return made


@pytest.mark.long
@pytest.mark.parametrize("size, more", SHORTAGES, ids=lambda bytes: f"{bytes // 1024}k")
def test_large_values_in_every_argument(limited, size, more):
    # A copy of each, and another one while one of them is built.
    connect = limited(6 * size + more)
    with connect() as db:
        started = db.execute("SELECT pg_postmaster_start_time()").fetchone()
        left = statements(db)
    count, lost = len(left), []
    while left:
        with connect() as db:
            try:
                db.execute("CALL public.try_all(%s, %s)", [size, left])
            except psycopg.Error as error:
                lost.append(str(error)[:200])
        with connect() as db:
            done = {row[0] for row in db.execute("SELECT statement FROM public.tried")}
        assert len(lost) < 5, lost
        left = [statement for statement in left if statement not in done]
        if lost and left:
            continue
    with connect() as db:
        assert db.execute("SELECT pg_postmaster_start_time()").fetchone() == started, lost
        states = dict(db.execute("SELECT coalesce(state, 'lost'), count(*) FROM public.tried GROUP BY 1").fetchall())
        wrong = db.execute(
            "SELECT state, left(statement, 150) FROM public.tried WHERE state IS NULL OR left(state, 2) IN ('XX', '58', '57')"
        ).fetchall()
    assert not wrong and not lost, (states, lost, wrong[:20])
    assert states.get("53200", 0) + states.get("54000", 0) + states.get("22023", 0) > count / 2, states
