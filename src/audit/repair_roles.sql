SELECT format('role %s', wanted), CASE WHEN r.rolname IS NULL THEN format('CREATE ROLE %I NOLOGIN', wanted)
    ELSE format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS', wanted) END
FROM unnest(ARRAY['skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin']) wanted
LEFT JOIN pg_roles r ON r.rolname = wanted WHERE r.rolname IS NULL OR r.rolsuper OR r.rolbypassrls
