"""Memory that runs out is an error 53200 of one statement, and never the end of the server."""

from pathlib import Path

import psycopg
import pytest

from functions import DEFAULTS, arguments, prepare

MB = 1 << 20
# What is passed: a value that the server has compressed and stored elsewhere, and expands where it is read.
LARGE = {
    kind: f"(SELECT {column} FROM public.large)"
    for kind, column in {"text": "letters", "jsonb": "json", "text[]": "list", "bytea": "bytes"}.items()
}
TRY_ALL = """
CREATE TABLE public.tried (statement text PRIMARY KEY, state text);
CREATE TABLE public.large (letters text, json jsonb, list text[], bytes bytea);
CREATE PROCEDURE public.try_all(statements text[]) LANGUAGE plpgsql AS $$
DECLARE
    outcome text;
BEGIN
    FOR n IN 1 .. array_length(statements, 1) LOOP
        INSERT INTO public.tried VALUES (statements[n]);
        COMMIT;
        BEGIN
            outcome := '00000';
            EXECUTE statements[n];
            RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'rolled back';
        EXCEPTION WHEN OTHERS THEN
            IF sqlstate <> 'ZZ000' THEN outcome := sqlstate; END IF;
        END;
        UPDATE public.tried t SET state = outcome WHERE t.statement = statements[n];
        COMMIT;
    END LOOP;
END $$;
"""
# One column at a time: together they are more than a row can be built from.
FILL = """
INSERT INTO public.large (letters) SELECT repeat(repeat('x', 65536), {size} / 65536);
UPDATE public.large SET json = to_jsonb(left(letters, 200000000));
UPDATE public.large SET list = ARRAY[letters];
UPDATE public.large SET bytes = convert_to(letters, 'UTF8')
"""
# Size of the values, and address space beyond what an idle session has.
SHORTAGES = [(400 * MB, 100 * MB), (3 * MB, 10 * MB), (MB // 2, 3 * MB)]


@pytest.fixture
def limited(new_cluster):
    """A server whose sessions have as much address space as an idle one, and so much more."""
    cluster = new_cluster("shared_preload_libraries=skill_system", "skill_system.seal_interval=1h")
    with cluster.connect() as connection:
        connection.execute("CREATE DATABASE limited")
    with cluster.connect(dbname="limited") as connection:
        connection.execute("CREATE EXTENSION skill_system")
        prepare(connection)
        connection.execute(TRY_ALL)
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        status = Path(f"/proc/{pid}/status").read_text()
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))

    def limit(size, more):
        with cluster.connect(dbname="limited") as connection:
            connection.execute(FILL.format(size=size))
        cluster.stop()
        cluster.address_space = used + more
        cluster.start()
        return lambda: cluster.connect(dbname="limited")

    return limit


def calls(db):
    """For each argument of each function a call in which it is large."""
    made = []
    for _, name, _, types, variadic in arguments(db):
        for position, kind in enumerate(types):
            if kind not in LARGE:
                continue
            with psycopg.ClientCursor(db) as cursor:
                given = [cursor.mogrify("%s", [DEFAULTS[other]]) + f"::{other}" for other in types]
            given[position] = LARGE[kind]
            if variadic:
                given[-1] = "VARIADIC " + given[-1]
            made.append(f"SELECT * FROM skill_system.{name}({', '.join(given)})")
    return made


def inserts(db):
    """For each column of each table an INSERT in which it is large."""
    columns = db.execute(
        "SELECT attrelid::regclass::text, quote_ident(attname), CASE WHEN atttypid = 'varchar'::regtype THEN 'text' "
        "ELSE format_type(atttypid, NULL) END FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relkind IN ('r', 'p') "
        "AND relnamespace = 'skill_system'::regnamespace AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
    )
    return [f"INSERT INTO {table} ({column}) SELECT {LARGE[kind]}" for table, column, kind in columns if kind in LARGE]


@pytest.mark.long
@pytest.mark.parametrize("size, more", SHORTAGES, ids=lambda bytes: f"{bytes // 1024}k")
def test_large_values_everywhere(limited, size, more):
    connect = limited(size, more)
    with connect() as db:
        started = db.execute("SELECT pg_postmaster_start_time()").fetchone()
        # Gigabytes are copied for the largest.
        left = calls(db) + (inserts(db) if size < 400 * MB else [])
    count, lost = len(left), []
    while left:
        with connect() as db:
            try:
                db.execute("CALL public.try_all(%s)", [left])
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
            "SELECT state, left(statement, 150) FROM public.tried "
            "WHERE state IS NULL OR left(state, 2) IN ('XX', '58', '57')"
        ).fetchall()
    assert not wrong and not lost, (states, lost, wrong[:20])
    # Out of memory, of bounds, or too long.
    assert sum(states.get(state, 0) for state in ("53200", "54000", "22023", "22001")) > count / 2, states
