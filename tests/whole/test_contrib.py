"""contrib/: every panel's statement gives its columns and rows, and a real exporter serves every metric."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest
from conftest import ROOT, open_connection

BOARDS = sorted((ROOT / "contrib" / "grafana").glob("*.json"))
MACROS = {
    r"\$__timeFilter\(([a-z_]+)\)": r"\1 BETWEEN now() - interval '7 days' AND now() + interval '1 minute'",
    r"\$__timeGroupAlias\(([a-z_]+), \$__interval\)": r"to_timestamp(floor(extract(epoch FROM \1) / 60) * 60) AS time",
    r"\$__timeFrom\(\)": "(now() - interval '7 days')",
    r"\$__timeTo\(\)": "now()",
    r"\$tenant": "'default', 'acme'",
}


@pytest.fixture(scope="module")
def watched(db, database):
    """The name of a database with data for every panel."""
    for role, groups in {"watching": "pg_monitor, skill_system_auditor", "monitoring": "pg_monitor"}.items():
        db.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; GRANT {groups} TO {role}")
    db.execute("SELECT * FROM skill_system.install_starter_policies()")
    db.execute("SELECT skill_system.create_policy('observed', mode => 'observe')")
    db.execute("SELECT skill_system.start_run('a goal', agent_id => 'writer')")
    metrics = {"gen_ai.request.model": "m1", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
    for status in ("ok", "error"):
        db.execute(
            "SELECT skill_system.log_run('pdf', 'fill', %s, 12, agent_id => 'writer', metrics => %s)",
            [status, json.dumps(metrics | {"cost_usd": 0.25})],
        )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("SELECT skill_system.enforce_policy('locked', '{fs.write:/etc/passwd}')")
    db.execute("SELECT skill_system.enforce_policy('observed', '{fs.write:/etc/passwd}')")
    for entity, status, days in ("a", "action_needed", 5), ("b", "action_needed", -5), ("c", "compliant", 30):
        db.execute(
            "SELECT * FROM skill_system.assess_compliance(skill_system.current_tenant(), %s, 'well', 'rule_37', %s, "
            "deadline => now() + %s * interval '1 day')",
            [entity, status, days],
        )
    db.execute("SELECT * FROM skill_system.seal_audit()")
    db.execute("SELECT skill_system.audit_checkpoint()")
    return database


def statement(text):
    for macro, meaning in MACROS.items():
        text = re.sub(macro, meaning, text)
    assert "$" not in text, text
    return text


def panels():
    return [
        pytest.param(panel, id=f"{path.stem}: {panel['title']}")
        for path in BOARDS
        for panel in json.loads(path.read_text())["panels"]
    ]


@pytest.mark.parametrize("panel", panels())
def test_a_panel_shows_what_its_kind_needs(watched, connect, panel):
    [target] = panel["targets"]
    cursor = connect("watching", watched).execute(statement(target["rawSql"]))
    names, rows = [column.name for column in cursor.description], cursor.fetchall()
    assert rows
    if panel["type"] == "timeseries":
        assert target["format"] == "time_series" and names == ["time", "metric", "value"]
        assert all(isinstance(row[1], str) and row[2] is not None for row in rows)
    elif panel["type"] == "stat":
        assert len(names) == 1 and len(rows) == 1 and rows[0][0] is not None
    elif panel["type"] == "barchart":
        assert panel["options"]["xField"] == names[0]
    else:
        assert panel["type"] == "table"
    units = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
    assert units <= set(names)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path, watched, connect):
    board = json.loads(path.read_text())
    assert board["uid"] == f"skill-system-{path.stem}" and board["schemaVersion"] == 39
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    if "tenant" in variables:
        assert connect("watching", watched).execute(variables["tenant"]["query"]).fetchall() == [("default",)]
    taken = set()
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert ("$tenant" in panel["targets"][0]["rawSql"]) == ("tenant" in variables)
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_who_monitors_sees_the_state_and_nothing_else(watched, connect):
    monitor = connect("monitoring", watched)
    assert monitor.execute("SELECT count(*) FROM skill_system.health()").fetchone()[0] > 10
    # Not preloaded, no key outside: nothing that comes from missing rights.
    failed = monitor.execute("SELECT detail FROM skill_system.health() WHERE detail LIKE 'the check of module%'")
    assert failed.fetchall() == []
    stuck = "SELECT status FROM skill_system.health() WHERE \"check\" = 'stuck_runs'"
    assert monitor.execute(stuck).fetchone() == connect(dbname=watched).execute(stuck).fetchone()
    size, unsealed, checkpoint = monitor.execute(
        "SELECT tree_size, unsealed, checkpoint_size FROM skill_system.ledger_status"
    ).fetchone()
    assert size == checkpoint > 0 and unsealed >= 0
    for relation in ("runs", "run_steps", "audit_logs", "audit_seal_state", "compliance_status", "policy_profiles"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            monitor.execute(f"SELECT FROM skill_system.{relation}")
    for call in "maintain()", "seal_audit()", "audit_checkpoint()", "current_tenant()", "help()":
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            monitor.execute(f"SELECT * FROM skill_system.{call}")


def test_the_status_counts_what_is_not_sealed(fresh_database, connect):
    connection = connect(dbname=fresh_database())
    status = "SELECT tree_size, unsealed, oldest_unsealed_at, checkpoint_size FROM skill_system.ledger_status"
    assert connection.execute(status).fetchall() == []
    connection.execute("SELECT skill_system.append_audit('form.sent', '{}')")
    size, unsealed, oldest, checkpoint = connection.execute(status).fetchone()
    assert size == 0 and unsealed == 1 and oldest is not None and checkpoint is None
    # The first seal records what protects the log, which the second one takes.
    for _ in range(2):
        connection.execute("SELECT * FROM skill_system.seal_audit()")
    assert connection.execute(status).fetchone() == (2, 0, None, None)


def samples(text):
    return [line.split("{")[0].split(" ")[0] for line in text.splitlines() if line.startswith("skill_system_")]


def scraped(role, database, tmp_path, expected):
    """What postgres_exporter serves, once it has a metric of this name."""
    port = 20000 + os.getpid() % 20000
    file = ROOT / "contrib" / "postgres_exporter" / "queries.yaml"
    source = f"host={os.environ['PGHOST']} port={os.environ['PGPORT']} user={role} dbname={database} sslmode=disable"
    log = tmp_path / "log"
    with open(log, "w") as output:
        exporter = subprocess.Popen(
            [
                "prometheus-postgres-exporter",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--extend.query-path={file}",
                "--disable-default-metrics",
                "--disable-settings-metrics",
            ],
            env=os.environ | {"DATA_SOURCE_NAME": source},
            stdout=output,
            stderr=output,
        )
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    text = answer.read().decode()
                if expected in samples(text):
                    return text
            except urllib.error.URLError:
                pass
            time.sleep(0.1)
    finally:
        exporter.terminate()
        exporter.wait()
    raise AssertionError(Path(log).read_text())


def declared():
    name = None
    for line in (ROOT / "contrib" / "postgres_exporter" / "queries.yaml").read_text().splitlines():
        if re.fullmatch(r"\w+:", line):
            name = line[:-1]
        metric = re.fullmatch(r"    - (\w+): \{usage: GAUGE, .*\}", line)
        if metric:
            yield f"{name}_{metric[1]}"


def test_an_exporter_serves_every_metric(watched, tmp_path):
    with open_connection(dbname=watched) as connection:
        checks = connection.execute("SELECT count(*) FROM skill_system.health()").fetchone()[0]
    text = scraped("watching", watched, tmp_path, "skill_system_health_ok")
    assert set(declared()) <= set(samples(text))
    assert samples(text).count("skill_system_health_ok") == checks
    assert re.search(r'skill_system_denials_last_hour_denied\{[^}]*policy="locked"[^}]*\} 1\b', text)
    assert re.search(r'skill_system_steps_last_hour_cost_usd\{agent_id="writer"[^}]*\} 0\.5\b', text)


def test_an_exporter_with_pg_monitor_alone_serves_health_and_ledger(watched, tmp_path):
    text = scraped("monitoring", watched, tmp_path, "skill_system_ledger_tree_size")
    assert {name for name in declared() if "_health_" in name or "_ledger_" in name} <= set(samples(text))
