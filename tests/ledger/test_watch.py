"""skill-verify watch as a cron job or a service has it: psql fetches, a directory keeps what was seen."""

import os
import signal
import subprocess
import time

import pytest
from conftest import open_connection

from cluster import bindir, skill_verify_program, until


def append(db, n=1):
    db.execute("SELECT skill_system.append_audit('made', '{}') FROM generate_series(1, %s)", [n])


@pytest.fixture(scope="module")
def key(db, tmp_path_factory):
    append(db)
    db.execute("SELECT FROM skill_system.seal_audit()")
    file = tmp_path_factory.mktemp("key") / "log.key"
    command = [f"{bindir()}/psql", "-XAtc", "SELECT verifier_key FROM skill_system.audit_public_key() WHERE active"]
    file.write_bytes(subprocess.run([*command, db.info.dbname], capture_output=True, check=True).stdout)
    return file


@pytest.fixture
def watch(database, key, tmp_path):
    """Status, output and errors of one round."""

    def run(*arguments, psql=f"dbname={database}", state=tmp_path / "state", given=("--key", key), **environment):
        command = [
            skill_verify_program(),
            "watch",
            "--psql",
            psql,
            "--state",
            state,
            *given,
            *(arguments or ["--once"]),
        ]
        path = f"{bindir()}:{os.environ['PATH']}"
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": path, **environment}
        )
        assert "panicked" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    run.state = tmp_path / "state"
    return run


def held(state):
    return int((state / "checkpoint").read_text().split("\n")[1])


def test_each_round_continues_the_last(watch, db):
    status, output, error = watch()
    assert (status, error) == (0, "") and output.startswith("OK: the first checkpoint, of "), output
    assert "\n  key         SHA256:" in output
    first = held(watch.state)
    status, output, _ = watch()
    assert status == 0 and output.startswith(f"OK: the log still has the same {first} leaves"), output
    append(db, 300)
    status, output, _ = watch()
    # psql has sealed them.
    assert status == 0 and f"OK: the log grew from {first} to {first + 300} leaves and kept the old ones\n" in output
    assert held(watch.state) == first + 300
    assert sorted(file.name for file in watch.state.iterdir()) == ["checkpoint", "lock"]


def test_an_auditor_may_watch(watch, roles, database):
    assert watch(psql=f"dbname={database} user=test_auditor")[0] == 0
    status, output, _ = watch(psql=f"postgresql:///{database}?user=test_agent")
    assert status == 3 and output.startswith("INCOMPLETE: could not fetch the checkpoint: psql ended with status ")
    assert "note: psql: ERROR:  permission denied" in output and "\n  last checkpoint  " in output


def test_what_psql_says_is_shown_and_the_state_stays(watch, tmp_path):
    assert watch()[0] == 0
    before = (watch.state / "checkpoint").read_bytes()
    for connection in (
        "dbname=nowhere",
        "service=nowhere",
        "host=/nowhere",
        "what is this",
        "-c",
        "--help",
        "; touch x",
    ):
        status, output, error = watch(psql=connection)
        assert status == 3 and output.startswith("INCOMPLETE: could not fetch the checkpoint: psql ended"), connection
        assert "\nnote: psql: " in output and error == "", output
    assert not (tmp_path / "x").exists() and (watch.state / "checkpoint").read_bytes() == before


def test_a_service_and_nothing_of_the_environment(watch, database, tmp_path):
    (tmp_path / "services").write_text(f"[prod]\ndbname={database}\n")
    (tmp_path / ".psqlrc").write_text("\\echo from psqlrc\n\\setenv X 1\nSELECT 1;\n")
    status, output, _ = watch(
        psql="service=prod",
        PGSERVICEFILE=str(tmp_path / "services"),
        HOME=str(tmp_path),
        PSQLRC=str(tmp_path / ".psqlrc"),
        PGOPTIONS="-c default_transaction_read_only=on -c search_path=nowhere",
    )
    assert status == 0 and output.startswith("OK: "), output


def test_another_log_or_an_older_one_is_tampered(watch, db, fresh_database, key, connect):
    append(db, 3)
    assert watch()[0] == 0
    accepted = (watch.state / "checkpoint").read_bytes()
    other = connect(dbname=fresh_database())
    append(other)
    status, output, _ = watch(psql=f"dbname={other.info.dbname}")
    assert status == 1 and output.startswith("TAMPERED: ") and "\ncheckpoint_not_signed: " in output, output
    # The keys of both are the server's, and the logs are two.
    other_key = other.execute("SELECT verifier_key FROM skill_system.audit_public_key() WHERE active").fetchone()[0]
    status, output, _ = watch(psql=f"dbname={other.info.dbname}", given=("--key", key, "--key", other_key))
    assert status == 1 and "\nother_origin: " in output, output
    # A loop ends with it.
    assert watch("--every", "1", psql=f"dbname={other.info.dbname}")[0] == 1
    assert (watch.state / "checkpoint").read_bytes() == accepted
    # What was rejected first is kept, because it is evidence.
    assert other_key.split("+")[0] in (watch.state / "rejected").read_text()


class FakePsql:
    """A psql in the path that does what a broken or hostile server and client would."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()

    def does(self, script):
        file = self.directory / "psql"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return f"{self.directory}:{os.environ['PATH']}"


def test_a_proof_that_does_not_hold(watch, db, tmp_path):
    assert watch()[0] == 0
    before = held(watch.state)
    append(db, 5)
    real, fake = f"{bindir()}/psql", FakePsql(tmp_path / "bin")
    proof = f'case "$*" in *audit_consistency_proof*) {{}} ;; *) exec {real} "$@" ;; esac'
    status, output, _ = watch(PATH=fake.does(proof.format("echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")))
    assert status == 1 and "\nnot_consistent: " in output, output
    status, output, _ = watch(PATH=fake.does(proof.format("echo no >&2; exit 3")))
    assert status == 3 and output.startswith("INCOMPLETE: could not fetch the proof: psql ended with status 3\n")
    assert "note: psql: no\n" in output and held(watch.state) == before
    status, _, error = watch(PATH=fake.does(proof.format("echo rubbish")))
    assert status == 2 and "the proof that psql printed: line 1: the proof is not one base64" in error
    status, _, error = watch(PATH=fake.does("echo rubbish"))
    assert status == 2 and "the checkpoint that psql printed: " in error
    status, output, _ = watch(PATH=fake.does("exec cat /dev/zero | head -c 1000000"))
    assert status == 3 and "psql printed more than 65536 bytes" in output
    status, output, _ = watch(PATH=fake.does("head -c 3000000 /dev/zero >&2; printf '\\033[2J' >&2; exit 1"))
    assert status == 3 and "\x1b" not in output and len(output) < 100_000
    (tmp_path / "empty").mkdir()
    status, _, error = watch(PATH=str(tmp_path / "empty"))
    assert (status, error) == (2, "skill-verify: --psql: the program psql is not in the path\n")
    assert watch()[0] == 0 and held(watch.state) == before + 5


def test_without_a_key_nothing_is_kept(watch):
    status, output, _ = watch(given=())
    assert status == 3 and output.startswith("INCOMPLETE: no --key was given")
    assert not (watch.state / "checkpoint").exists()


def test_the_loop(watch, db, database, key):
    """Goes on while all is well or the server is away, one watcher a directory, and ends when its state was changed."""
    command = [skill_verify_program(), "watch", "--psql", f"dbname={database}", "--state", watch.state, "--key", key]
    path = f"{bindir()}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [*command, "--every", "1"], stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": path}
    )
    try:
        assert process.stdout.readline().startswith("OK: the first checkpoint")
        size = held(watch.state)
        status, _, error = watch()
        assert status == 2 and "another skill-verify watch uses this directory" in error
        append(db, 2)
        until(lambda: held(watch.state) == size + 2, "the loop sees the next checkpoint")
        with open_connection() as admin:
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
            time.sleep(2)
            admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        # Its state is another log's now.
        held_before = (watch.state / "checkpoint").read_text()
        (watch.state / "checkpoint").write_text(held_before.replace(f"\n{size + 2}\n", f"\n{size + 9}\n"))
        output = process.stdout.read()
        assert process.wait(timeout=20) == 2
        assert "OK: the log grew from" in output and "INCOMPLETE: could not fetch the checkpoint" in output
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    (watch.state / "checkpoint").write_text(held_before)
    assert watch()[0] == 0
