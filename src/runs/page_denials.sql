SELECT jsonb_build_object('at', extract(epoch FROM a.created_at), 'agent', coalesce(a.actor_id, a.session_user_name),
    'observed', a.event_type = 'policy.observed', 'effects', left(a.event_data ->> 'blocked_effects', 400),
    'reason', left(a.event_data ->> 'reason', 500))::text
FROM skill_system.audit_logs a
WHERE a.tenant_id = skill_system.current_tenant() AND a.event_type IN ('policy.denied', 'policy.observed')
    AND a.event_data ->> 'policy' = $1 AND a.created_at BETWEEN to_timestamp($2) AND to_timestamp($3)
ORDER BY a.created_at, a.id LIMIT $4
