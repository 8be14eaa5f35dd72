"""At least one row in the tables of compliance that users write, for tests that look at all tables."""

from psycopg.types.json import Jsonb


def fill_tables(admin, agent, word):
    """With the rights of skill_system_admin and of skill_system_agent; `word` is in every text."""
    admin.execute("SELECT * FROM skill_system.install_validation_presets()")
    admin.execute(
        "INSERT INTO skill_system.compliance_terms (kind, term, description) VALUES ('rule_source', 'manual', %s)",
        [word],
    )
    admin.execute(
        "INSERT INTO skill_system.entity_type_definitions (type_key, display_name) VALUES ('well', %s)", [word]
    )
    types = "FROM skill_system.entity_type_definitions WHERE tenant_id = skill_system.current_tenant()"
    admin.execute(
        "INSERT INTO skill_system.entity_field_definitions (type_id, field_key, label, input_type) "
        f"SELECT type_id, 'api', 'API', 'text' {types}"
    )
    admin.execute(
        "INSERT INTO skill_system.entity_relationship_rules (parent_type_id, child_type_id) "
        f"SELECT type_id, type_id {types}"
    )
    admin.execute(
        "INSERT INTO skill_system.rrc_field_mappings (type_id, rrc_field_key, entity_field_id) "
        "SELECT type_id, 'API_NO', field_id FROM skill_system.entity_field_definitions "
        "WHERE tenant_id = skill_system.current_tenant()"
    )
    admin.execute(
        "SELECT skill_system.publish_rule('SWR_37', 'spacing', '2020-01-01', %s, 'manual')", [Jsonb({"of": word})]
    )
    admin.execute("SELECT skill_system.create_template('rule_37', %s)", [Jsonb([{"label": word}])])
    filing = agent.execute(
        "SELECT checklist_id FROM skill_system.create_checklist('42-501-20130', 'well', 'rule_37', %s)", [word]
    ).fetchone()[0]
    agent.execute("SELECT skill_system.add_artifact(%s, 0, 'document', 'plat', %s)", [filing, word])
