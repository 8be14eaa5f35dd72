-- Who monitors the server sees the state of the extension, and nothing that is stored in it. After lockdown.sql, which revokes what default
-- privileges of the installing role grant to pg_monitor.

GRANT SELECT ON skill_system.ledger_status TO pg_monitor;
GRANT EXECUTE ON FUNCTION skill_system.health(), skill_system.version_info(), skill_system.ledger_status_entries() TO pg_monitor;
