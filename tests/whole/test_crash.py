"""kill -9 of the whole server under load, twenty times: whatever was acknowledged is there, and every signature is
true."""

import threading
import time

import psycopg
import pytest

from cluster import governed, kill_hard

ROUNDS = 20
WRITERS = 4


@pytest.mark.long
def test_what_was_acknowledged_survives_twenty_crashes(orphans, new_cluster):
    cluster = new_cluster("fsync=on", "synchronous_commit=on", "checkpoint_timeout=30s", "full_page_writes=on")
    with governed(cluster) as connection:
        connection.execute("SELECT * FROM skill_system.install_starter_policies()")
    runs, records, policies = set(), set(), {}
    lock = threading.Lock()

    def write(number, round_):
        try:
            with cluster.connect(dbname="governed") as connection:
                for i in range(100_000):
                    key = f"{round_}/{number}/{i}"
                    run = connection.execute(
                        "SELECT skill_system.log_run('skill', 'op', 'ok', %s, policy_name => 'dev', "
                        "idempotency_key => %s)",
                        [i, key],
                    ).fetchone()[0]
                    with lock:
                        runs.add((run, key))
                    record = connection.execute(
                        "SELECT skill_system.append_audit('crash', jsonb_build_object('key', %s::text))::text", [key]
                    ).fetchone()[0]
                    with lock:
                        records.add((record, key))
                    if i % 10 == 0 and number == 0:
                        version = connection.execute(
                            "UPDATE skill_system.policy_profiles SET metadata = jsonb_build_object('key', "
                            "%s::text) WHERE name = 'locked' RETURNING id",
                            [key],
                        ).fetchone()
                        with lock:
                            policies[key] = version[0]
        except psycopg.Error as error:
            if not isinstance(error, psycopg.OperationalError):
                failures.append(error)

    failures = []
    for round_ in range(ROUNDS):
        acknowledged = len(runs)
        threads = [threading.Thread(target=write, args=(number, round_)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(runs) < acknowledged + 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 + 0.02 * (round_ % 7))
        kill_hard(cluster.data)
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert len(runs) >= acknowledged + 40, "no load, so the round proves nothing"
        # The socket's lock file stays behind; the server deals with it.
        cluster.start()
        with cluster.connect(dbname="governed") as connection:
            found = set(connection.execute("SELECT id, idempotency_key FROM skill_system.runs").fetchall())
            assert runs <= found, f"round {round_}: lost {sorted(runs - found)[:5]}"
            steps = dict(
                connection.execute("SELECT run_id, count(*) FROM skill_system.run_events GROUP BY run_id").fetchall()
            )
            assert [run for run, _ in runs if steps.get(run) != 1] == [], "a run without its step"
            found = set(
                connection.execute(
                    "SELECT id::text, event_data ->> 'key' FROM skill_system.audit_logs WHERE event_type = 'crash'"
                ).fetchall()
            )
            assert records <= found, f"round {round_}: lost {sorted(records - found)[:5]}"
            logged = connection.execute(
                "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'run.logged'"
            ).fetchone()[0]
            assert logged == connection.execute("SELECT count(*) FROM skill_system.runs").fetchone()[0], (
                "a run without its audit record, or the other way round"
            )
            assert connection.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
            kept = {
                row[0]
                for row in connection.execute(
                    "SELECT content ->> 'metadata' FROM skill_system.policy_versions WHERE name = 'locked'"
                )
            }
            assert [key for key in policies if not any(key in (text or "") for text in kept)] == []
            assert (
                connection.execute(
                    "SELECT count(*) FROM skill_system.policy_versions WHERE name = 'locked'"
                ).fetchone()[0]
                == connection.execute(
                    "SELECT version FROM skill_system.policy_profiles WHERE name = 'locked'"
                ).fetchone()[0]
            )
    assert len(runs) > ROUNDS * 40 and len(policies) >= ROUNDS
