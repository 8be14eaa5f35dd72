-- Skills by id $1, by namespace $2 and name $3, and by the id $4 in their manifest. Each by its index, also in a table without
-- statistics, where one condition with OR would read all skills of the tenant.
SELECT id, current_version_id, current_version, by_manifest, status
FROM (
    -- Not by an index of the skills that are not deleted, which all have a row there.
    SELECT i.*, false AS by_manifest FROM (
        SELECT * FROM skill_system.skill_heads h
        WHERE $1 IS NOT NULL AND h.tenant_id = skill_system.current_tenant() AND h.id = $1 OFFSET 0) i
    WHERE i.deleted_at IS NULL
    UNION ALL
    SELECT h.*, false FROM skill_system.skill_heads h
    WHERE h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL AND h.namespace = $2 AND h.skill_name = $3
    UNION ALL
    SELECT h.*, true FROM skill_system.skill_heads h
    WHERE h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL AND h.manifest_id = $4
        AND (h.namespace = $2 AND h.skill_name = $3) IS NOT TRUE AND (h.id = $1) IS NOT TRUE
) found
ORDER BY coalesce(id = $1, false) DESC, array_position('{approved,disabled,draft}', status), by_manifest LIMIT 2
