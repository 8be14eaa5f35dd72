-- How many bytes the parts of snapshot.sql that have no bound would be as text: $1 is the filing.
SELECT ((SELECT coalesce(sum(octet_length((to_jsonb(a) - 'content')::text)), 0) FROM skill_system.checklist_artifacts a
        WHERE a.tenant_id = c.tenant_id AND a.checklist_id = c.id)
    + (SELECT coalesce(sum(octet_length(to_jsonb(s)::text)), 0) FROM skill_system.filing_rule_snapshots s
        WHERE s.tenant_id = c.tenant_id AND s.checklist_id = c.id)
    + (SELECT coalesce(sum(octet_length(l.event_data::text)), 0) FROM skill_system.audit_logs l
        WHERE l.tenant_id = c.tenant_id AND l.created_at >= c.created_at AND l.event_type LIKE 'filing.%'
            AND l.event_data->>'checklist_id' = $1::text))::bigint
FROM skill_system.filing_checklists c WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1
