-- VersionInfos of a skill, in the contract's order: by the second of the last change, then as they came.
-- A version that an agent registered in this transaction has no history before the commit.
-- $1 name, $2 skill, $3 version (NULL: all)
SELECT coalesce(jsonb_agg(i.info ORDER BY i.changed_at, i.revision), '[]')
FROM (SELECT v.revision, coalesce(x.changed_at, floor(extract(epoch FROM v.created_at))::bigint) AS changed_at,
             jsonb_build_object('name', $1::text, 'version', v.version, 'content_hash', v.content_hash,
                 'status', initcap(v.status COLLATE "C"),
                 'changed_at', coalesce(x.changed_at, floor(extract(epoch FROM v.created_at))::bigint),
                 'changed_by', coalesce(x.changed_by, v.created_by))
             || CASE WHEN x.previous IS NULL THEN '{}'
                     ELSE jsonb_build_object('previous_status', initcap(x.previous COLLATE "C")) END AS info
      FROM skill_system.skill_versions v
      LEFT JOIN (SELECT y.version_id, floor(extract(epoch FROM max(y.changed_at)))::bigint AS changed_at,
                   (array_agg(y.changed_by ORDER BY y.revision DESC))[1] AS changed_by,
                   (array_agg(y.previous_status ORDER BY y.revision DESC)
                       FILTER (WHERE y.previous_status IS NOT NULL))[1] AS previous
            FROM skill_system.skill_history y
            WHERE y.tenant_id = skill_system.current_tenant() AND y.skill_id = $2
                AND y.action IN ('registered', 'status', 'current', 'changed') AND ($3 IS NULL OR y.version_id = $3)
            GROUP BY y.version_id) x ON x.version_id = v.id
      WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $2 AND ($3 IS NULL OR v.id = $3)) i
