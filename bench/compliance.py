"""The section compliance: the status matrix, publishing rules, stale filings, reports, over 100,000 entities of demo/texas.sql."""

import subprocess
import sys
import time

from measure import BIN, HERE, alternate, pgbench, psql, show


def run_file(path, *variables):
    done = subprocess.run(
        [
            f"{BIN}/psql",
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
            *[word for v in variables for word in ("-v", v)],
            "-U",
            "postgres",
            "-d",
            "bench",
            "-f",
            str(path),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)


def memory(sql):
    """Seconds and largest resident memory (MB, shared buffers not counted) of the backend that runs one statement."""
    started = time.monotonic()
    client = subprocess.Popen(
        [
            f"{BIN}/psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "bench_agent",
            "-d",
            "bench",
            "-c",
            "SET application_name = 'measured'",
            "-c",
            sql,
        ],
        stdout=subprocess.DEVNULL,
    )
    pid, most = None, 0
    while client.poll() is None:
        pid = pid or psql("SELECT pid FROM pg_stat_activity WHERE application_name = 'measured'")
        try:
            most = max(
                [most] + [int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("RssAnon")]
            )
        except OSError:
            pass
        time.sleep(0.01)
    return time.monotonic() - started, most / 1024


def compliance():
    started = time.monotonic()
    run_file(HERE.parent / "demo" / "texas.sql", "entities=100000", "seed=37")
    print(f"\n100,000 entities x 4 domains written in {time.monotonic() - started:.1f} s")
    filings = 10_000
    started = time.monotonic()
    psql(
        "SELECT count(skill_system.create_checklist(entity_id, entity_type, 'rule_37', entity_name, now() + interval "
        f"'30 days')) FROM (SELECT * FROM texas.entities WHERE entity_type = 'well' ORDER BY i LIMIT {filings}) e"
    )
    print(
        f"{filings:,} filings begun in one statement: {(time.monotonic() - started) / filings * 1e6:.0f} us each, two rules frozen in each"
    )
    run_file(HERE / "compliance.sql")

    def page(relation):
        return (
            "\\set county random(1, 508)\n"
            + "SELECT entity_id, min(entity_type), min(entity_name), min(entity_field), min(entity_district), "
            "jsonb_object_agg(compliance_domain, "
            "CASE WHEN status IN ('action_needed', 'in_review') AND deadline < now() THEN 'overdue' ELSE status END), "
            "min(deadline) FILTER (WHERE status IN ('action_needed', 'in_review')) "
            f"FROM {relation} WHERE tenant_id = 'default' AND entity_id > '42-' || lpad((:county)::text, 3, '0') GROUP BY "
            "entity_id ORDER BY entity_id LIMIT 100;"
        )

    variants = {
        "hand-written SQL, AEGIS's tables": page("bench.compliance_status"),
        "compliance_matrix()": "\\set county random(1, 508)\n"
        "SELECT * FROM skill_system.compliance_matrix('42-' || lpad((:county)::text, 3, "
        "'0'));",
    }
    medians = {name: 1000 / tps for name, tps in alternate(variants, lambda script: pgbench(script, 1)).items()}
    show("matrix page of 100 entities out of 400,000 cells, 1 client", medians, "ms")
    print(f"    target <= 5 ms: {'met' if medians['compliance_matrix()'] <= 5 else 'MISSED'}")

    number = iter(range(1, 10_000))

    def publish(call):
        value = next(number)
        psql("CHECKPOINT")
        started = time.monotonic()
        psql(call.replace("VALUE", str(value)))
        return (time.monotonic() - started) * 1000

    variants = {
        "hand-written PL/pgSQL, AEGIS's tables, no audit": "SELECT bench.publish_rule('SWR_37', '{\"min_distance_to_line_ft\": VALUE}')",
        "publish_rule()": "SELECT skill_system.publish_rule('SWR_37', 'spacing', CURRENT_DATE, '{\"min_distance_to_line_ft\": VALUE}', "
        "'manual')",
    }
    medians = alternate(variants, publish)
    show(f"publishing a rule that makes {filings:,} open filings stale, {filings + 1:,} audit records", medians, "ms")
    print(f"    target <= 1000 ms: {'met' if medians['publish_rule()'] <= 1000 else 'MISSED'}")
    psql("VACUUM ANALYZE")
    hand = (
        "SELECT s.id, c.id, c.entity_id, c.compliance_domain, c.status, c.deadline, f.rule_identifier, f.version, "
        "n.version, n.change_summary FROM bench.filing_rule_snapshots s "
        "JOIN bench.filing_checklists c ON c.id = s.checklist_id JOIN bench.rule_versions f ON f.id = s.rule_version_id "
        "JOIN bench.rule_versions n ON n.id = s.superseded_by "
        "WHERE s.tenant_id = 'default' AND s.is_current = false AND NOT s.acknowledged AND c.status NOT IN ('filed', "
        "'exception') ORDER BY s.id LIMIT 100;"
    )
    medians = {
        name: 1000 / tps
        for name, tps in alternate(
            {
                "hand-written SQL, AEGIS's tables": hand,
                "stale_filings()": "SELECT * FROM skill_system.stale_filings();",
            },
            lambda script: pgbench(script, 1),
        ).items()
    }
    show(f"first page of {filings:,} stale filings, 1 client", medians, "ms")
    print(f"    target <= 5 ms: {'met' if medians['stale_filings()'] <= 5 else 'MISSED'}")
    for call in ("compliance_report()", "compliance_report('json')", "oscal_assessment_results(max_rows => 10000)"):
        taken, most = memory(f"SELECT length(skill_system.{call}::text)")
        print(f"\n{call} over 400,000 cells: {taken:.2f} s, {most:.0f} MB")
