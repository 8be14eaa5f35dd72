-- Protection: the state of the catalogue that keeps the audit trail append-only. Comes after audit.

CREATE FUNCTION skill_system.audit_fingerprint() RETURNS TABLE (item text, state text)
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'skill_audit_fingerprint' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.audit_fingerprint() IS
'What protects the audit trail, one row for each table, trigger, rule, policy, index, constraint and function, as the catalogue has it '
'now, without oids: the same before and after dump and restore. Compare two of them to see what changed. Example: SELECT * FROM '
'skill_system.audit_fingerprint() ORDER BY item;';

CREATE FUNCTION skill_system.repair() RETURNS TABLE (object text, result text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'skill_repair' SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION skill_system.repair() IS
'Brings back what CREATE EXTENSION created and somebody changed: roles, functions, views, indexes, triggers, row security, rights, '
'attached partitions, what pg_dump saves, the identity of the log; drops what does not belong there. One row for each change, with done '
'or why it '
'failed. Never touches rows, columns or tables: restore those from a backup. The next seal records the change. Superusers only. Example: '
'SELECT * FROM skill_system.repair();';

GRANT EXECUTE ON FUNCTION skill_system.audit_fingerprint() TO skill_system_auditor, skill_system_admin;
