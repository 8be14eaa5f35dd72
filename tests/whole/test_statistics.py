"""Tables that were never analyzed: a look-up by a key reads the row of that key, and not every row of the tenant."""

CALLS = 200
EACH = f"generate_series(1, {CALLS}) g"
SKILL = r"E'---\nname: s' || g || E'\ndescription: d\n---\nx'"
PREPARED = [
    f"SELECT count(skill_system.register_skill({SKILL})) FROM {EACH}",
    f"SELECT count(skill_system.publish_rule('R' || g, 'd', '2026-01-01', '{{}}', 'manual')) FROM {EACH}",
    """SELECT skill_system.create_template('dom', '[{"label": "one"}]')""",
]
# A statement, a table, and how many rows of it a call may read.
BOUNDED = [
    (f"SELECT count(skill_system.log_run('s' || g, 'o', 'ok')) FROM {EACH}", "skill_versions", 10),
    (f"SELECT count(skill_system.log_run('s' || g, 'p', 'ok')) FROM {EACH}", "skill_heads", 10),
    (f"SELECT count(skill_system.log_run('none' || g, 'p', 'ok')) FROM {EACH}", "skill_heads", 10),
    (f"SELECT count(skill_system.register_skill({SKILL} || 'y')) FROM {EACH}", "skill_versions", 20),
    (f"SELECT count(skill_system.register_skill({SKILL} || 'z')) FROM {EACH}", "skill_heads", 20),
    # The heads are read once for all calls, which is one row for each.
    (
        "SELECT count(skill_system.set_skill_status(skill_name, 'approved', current_version)) FROM skill_system.skill_heads",
        "skill_heads",
        20,
    ),
    (
        "SELECT count(skill_system.set_skill_status(skill_name, 'disabled', current_version)) FROM skill_system.skill_heads",
        "skill_versions",
        20,
    ),
    (
        "SELECT count(skill_system.publish_rule('RV', 'd', '2026-01-01'::date + g, jsonb_build_object('a', g), 'manual')) "
        f"FROM {EACH}",
        "rule_versions",
        10,
    ),
    # Each of some 200 rules that are frozen has a foreign key to the filing.
    (f"SELECT count(skill_system.create_checklist('e' || g, 'well', 'dom')) FROM {EACH}", "filing_checklists", 300),
    ("SELECT count(skill_system.update_checklist_item(id, 0, 'in_progress')) FROM skill_system.filing_checklists", "filing_checklists", 10),
]  # fmt: skip


READ = (
    "SELECT coalesce(sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)), 0) "
    "FROM pg_stat_xact_user_tables WHERE relname = %s"
)


def test_each_call_reads_what_it_names(fresh_database, connect):
    db = connect(dbname=fresh_database())
    for statement in PREPARED:
        db.execute(statement)
    found = []
    for statement, table, most in BOUNDED:
        db.execute("BEGIN")
        before = db.execute(READ, [table]).fetchone()[0]
        db.execute(statement)
        each = (db.execute(READ, [table]).fetchone()[0] - before) / CALLS
        db.execute("COMMIT")
        if each > most:
            found.append((statement, table, each))
    assert found == []
