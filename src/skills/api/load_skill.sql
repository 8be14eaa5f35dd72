-- $1 skill
SELECT h.id, h.namespace, h.skill_name, coalesce(h.tier1_manifest->>'name', h.name::text, h.skill_name), h.current_version,
    h.context_mode::text, h.enabled, h.status, h.effects, h.tier2_definition, p.list, b.list, r.list, t.body,
    encode(sha256(convert_to(concat_ws(E'\n', h.current_version, h.context_mode, p.list, b.list, r.list,
        coalesce(h.tier2_definition::text, t.body)), 'UTF8')), 'hex'),
    octet_length(coalesce(h.tier2_definition::text, t.body, ''))::bigint
        + octet_length(p.list::text) + octet_length(b.list::text) + octet_length(r.list::text)
FROM skill_system.skill_heads h,
    LATERAL (SELECT CASE WHEN h.tier2_definition IS NULL THEN
                 (SELECT v.body FROM skill_system.skill_versions v
                  WHERE v.tenant_id = h.tenant_id AND v.id = h.current_version_id) END) AS t(body),
    LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('persona_key', p.persona_key, 'display_name', p.display_name,
                 'prompt_text', p.prompt_text, 'prompt_template_ref', p.prompt_template_ref, 'is_default', p.is_default)
                 ORDER BY p.sort_order, p.persona_key), '[]')
             FROM skill_system.skill_personas p WHERE p.tenant_id = h.tenant_id AND p.skill_id = h.id) AS p(list),
    LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('block_key', b.block_key, 'description', b.description,
                 'language', b.language, 'code', b.code, 'parameters', b.parameters) ORDER BY b.sort_order, b.block_key), '[]')
             FROM skill_system.skill_code_blocks b
             WHERE b.tenant_id = h.tenant_id AND b.skill_id = h.id AND b.llm_visible) AS b(list),
    LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'name', a.name, 'token_estimate', a.token_estimate)
                 ORDER BY w.place, a.id), '[]')
             FROM (SELECT o.id, 0::bigint AS place FROM skill_system.skill_artifacts o
                   WHERE h.tier3_artifact_refs IS NULL AND o.tenant_id = h.tenant_id AND o.skill_id = h.id
                   UNION ALL
                   SELECT coalesce(e.value->>'id', e.value->>'artifact_id', e.value #>> '{}'), e.place
                   FROM jsonb_array_elements(h.tier3_artifact_refs) WITH ORDINALITY AS e(value, place)) w
             JOIN skill_system.skill_artifacts a ON a.tenant_id = h.tenant_id AND a.id = w.id) AS r(list)
WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND h.deleted_at IS NULL
