jsonb_build_object('name', h.skill_name, 'version', h.current_version, 'content_hash', h.body_etag,
    'status', initcap(h.status COLLATE "C"), 'created_at', floor(extract(epoch FROM h.created_at))::bigint,
    'updated_at', floor(extract(epoch FROM h.updated_at))::bigint)
|| CASE WHEN h.description = '' THEN '{}' ELSE jsonb_build_object('description', h.description) END
|| coalesce((SELECT jsonb_build_object('status_changed_at', floor(extract(epoch FROM max(x.changed_at)))::bigint)
             FROM skill_system.skill_history x
             WHERE x.tenant_id = h.tenant_id AND x.skill_id = h.id AND x.version_id = h.current_version_id
                 AND x.action IN ('registered', 'status', 'current') HAVING count(*) > 0), '{}')
|| CASE WHEN jsonb_typeof(h.metadata->'author') = 'string' THEN jsonb_build_object('author', h.metadata->'author') ELSE '{}' END
|| CASE WHEN jsonb_typeof(h.metadata) <> 'object' OR h.metadata = '{}' THEN '{}'
        ELSE jsonb_build_object('metadata_bag', h.metadata) END
