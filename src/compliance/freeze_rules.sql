-- Freezes for filing $1 the rules of the domains $2 (NULL: all) and of field $3 that are in force today, by the day of UTC. Unless
-- the filing is new ($4), only those that it has not frozen yet.
INSERT INTO skill_system.filing_rule_snapshots (checklist_id, rule_version_id, rule_data_at_snapshot, content_sha256, is_current,
    superseded_by)
SELECT $1, v.id, v.rule_data, v.content_sha256, n.id IS NULL, n.id
FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS day) today
CROSS JOIN skill_system.rule_versions v
LEFT JOIN skill_system.rule_versions n
    ON n.tenant_id = v.tenant_id AND n.rule_identifier = v.rule_identifier AND n.status = 'active' AND n.id <> v.id
WHERE v.tenant_id = skill_system.current_tenant() AND v.status IN ('active', 'superseded')
    AND v.effective_date <= today.day AND (v.superseded_date IS NULL OR v.superseded_date > today.day)
    AND ($2 IS NULL OR v.rule_domain = ANY ($2)) AND (v.rule_type <> 'field_specific' OR v.rule_data->>'field' = $3)
    AND ($4 OR v.rule_identifier <> ALL (ARRAY(
        SELECT o.rule_identifier
        FROM (SELECT s.rule_version_id FROM skill_system.filing_rule_snapshots s
            WHERE s.tenant_id = skill_system.current_tenant() AND s.checklist_id = $1 OFFSET 0) f
        JOIN skill_system.rule_versions o ON o.tenant_id = skill_system.current_tenant() AND o.id = f.rule_version_id)))
