"""Every function of the schema, and values for its arguments."""


def arguments(db):
    return db.execute("""SELECT p.oid::regprocedure::text, p.proname::text, p.proretset,
        coalesce(array_agg(format_type(a.type, NULL) ORDER BY a.n) FILTER (WHERE a.type IS NOT NULL), '{}'),
        p.provariadic <> 0
        FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a(type, n) ON true
        WHERE p.pronamespace = 'skill_system'::regnamespace
            AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) GROUP BY p.oid
            ORDER BY 1""").fetchall()


DEFAULTS = {
    "text": "ok",
    "text[]": ["db.read"],
    "jsonb": "{}",
    "bigint": 1,
    "double precision": 1.5,
    "integer": 1,
    "regclass": "public.victim",
    "date": "2030-01-01",
    "uuid": "00000000-0000-7000-8000-000000000000",
    "timestamp with time zone": "2030-01-01Z",
    "bytea": b"\0" * 32,
    "boolean": True,
    "double precision[]": [1.0, 0.0],
}


def prepare(db):
    """Creates what the defaults name."""
    db.execute("CREATE TABLE public.victim (id int PRIMARY KEY)")
    db.execute("SELECT * FROM skill_system.install_starter_policies()")
    db.execute("SELECT skill_system.start_run('g')")
    # What the arguments' defaults name.
    db.execute("SELECT * FROM skill_system.install_validation_presets()")
    db.execute("INSERT INTO skill_system.entity_type_definitions (type_key, display_name) VALUES ('ok', 'Ok')")
    db.execute(
        "INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type, "
        "validation_preset) SELECT type_id, 'a', 'A', 'text', 'email' "
        "FROM skill_system.entity_type_definitions"
    )
    db.execute('SELECT skill_system.create_template(\'ok\', \'[{"label": "one"}, {"label": "two"}]\')')
    db.execute(
        "INSERT INTO skill_system.filing_checklists (id, entity_id, entity_type, compliance_domain, items) "
        "VALUES (%s, 'ok', 'ok', 'ok', '[{}, {}]')",
        [DEFAULTS["uuid"]],
    )
    db.execute(
        "INSERT INTO skill_system.rule_versions (id, rule_type, rule_domain, rule_identifier, version, "
        "effective_date, source, rule_data, content_sha256) "
        "VALUES (%s, 'statewide', 'ok', 'ok', 1, '2020-01-01', 'manual', '{}', 'x')",
        [DEFAULTS["uuid"]],
    )
    db.execute(
        "INSERT INTO skill_system.filing_rule_snapshots (id, checklist_id, rule_version_id, "
        "rule_data_at_snapshot, content_sha256, is_current, superseded_by) "
        "VALUES (%(id)s, %(id)s, %(id)s, '{}', 'x', false, %(id)s)",
        {"id": DEFAULTS["uuid"]},
    )
    db.execute("SELECT skill_system.register_skill(E'---\\nname: ok\\ndescription: ok\\n---\\n')")
    db.execute(
        "SELECT skill_system.set_skill_status('ok', 'approved', (SELECT version FROM skill_system.skill_version_list('ok') LIMIT 1))"
    )
    db.execute("SELECT skill_system.skill_store_store('ok', '# Skill: ok')")
    db.execute("INSERT INTO skill_system.agent_definitions (agent_key, root_skill_key) VALUES ('ok', 'ok')")
    db.execute(
        "INSERT INTO skill_system.skill_artifacts (id, skill_id, name, content) SELECT 'ok', id, 'ok', 'ok' "
        "FROM skill_system.skills WHERE namespace = 'default'"
    )
    return db
