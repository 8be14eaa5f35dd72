-- The words of skill $1. The body not by a join, which would begin with all versions of the tenant in a table without statistics.
INSERT INTO skill_system.skill_search (skill_id, document)
SELECT h.id,
    setweight(to_tsvector('pg_catalog.english', h.skill_name || ' ' || coalesce(h.name, '')), 'A')
        || setweight(to_tsvector('pg_catalog.english', left(array_to_string(h.domain_tags, ' '), 2000)), 'B')
        || setweight(to_tsvector('pg_catalog.english', left(h.description, 2000)), 'B')
        || setweight(to_tsvector('pg_catalog.english', (SELECT left(v.body, 3000) FROM skill_system.skill_versions v
            WHERE v.tenant_id = h.tenant_id AND v.id = h.current_version_id)), 'D')
FROM skill_system.skill_heads h
WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1
ON CONFLICT (tenant_id, skill_id) DO UPDATE SET document = excluded.document
