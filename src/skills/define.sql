-- $1 skill, $2 to $4 tiers (NULL leaves, JSON null removes), $5 context mode, $6 fields that outrank versions
UPDATE skill_system.skill_heads h
SET tier1_manifest = n.tier1, tier2_definition = n.tier2, tier3_artifact_refs = n.tier3, context_mode = n.mode,
    defined = n.defined, name = n.name, domain_tags = n.tags, updated_at = clock_timestamp()
FROM (SELECT CASE WHEN $2 IS NULL THEN o.tier1_manifest ELSE nullif($2, 'null') END AS tier1,
             CASE WHEN $3 IS NULL THEN o.tier2_definition ELSE nullif($3, 'null') END AS tier2,
             CASE WHEN $4 IS NULL THEN o.tier3_artifact_refs ELSE nullif($4, 'null') END AS tier3,
             coalesce($5, o.context_mode::text) AS mode,
             nullif(coalesce(o.defined, '{}') || $6, '{}') AS defined,
             CASE WHEN $6 ? 'name' THEN $6->>'name' ELSE o.name::text END AS name,
             CASE WHEN $6 ? 'domain_tags' THEN ARRAY(SELECT jsonb_array_elements_text($6->'domain_tags'))
                  ELSE o.domain_tags::text[] END AS tags
      FROM skill_system.skill_heads o
      WHERE o.tenant_id = skill_system.current_tenant() AND o.id = $1) n
WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1
    AND (h.tier1_manifest, h.tier2_definition, h.tier3_artifact_refs, h.context_mode::text, h.defined)
        IS DISTINCT FROM (n.tier1, n.tier2, n.tier3, n.mode, n.defined)
