"""A hot standby decides, explains and verifies; it writes nothing; and a change on the primary counts there after
replay."""

import time

import pytest
from psycopg import errors

from standby import wait_for_replay


def test_a_standby(pair):
    cluster, copy = pair
    primary = cluster.connect(dbname="governed")
    primary.execute("CREATE TABLE IF NOT EXISTS public.plain (id int)")

    standby = copy.connect()
    wait_for_replay(primary, standby)
    assert standby.execute("SELECT pg_is_in_recovery()").fetchone()[0] is True

    def check(effect="db.read"):
        return standby.execute(
            "SELECT allowed FROM skill_system.check_policy('dev', %s::text[])", [[effect]]
        ).fetchone()[0]

    assert check() is True and check("net.fetch") is False
    for statement in [
        "SELECT * FROM skill_system.explain_policy('dev', '{db.read}')",
        "SELECT * FROM skill_system.effective_policy('dev')",
        "SELECT * FROM skill_system.lint_policy('dev')",
        "SELECT skill_system.check_exec('dev', '{git}')",
        "SELECT skill_system.check_write('dev', '/x')",
        "SELECT skill_system.enforce_policy('dev', '{db.read}'::text[])",
        "SELECT skill_system.assert_allows('dev', 'db.read')",
        "SELECT * FROM skill_system.run_stats",
        "SELECT * FROM skill_system.stuck_runs",
        "SELECT * FROM skill_system.audit_status()",
        "SELECT * FROM skill_system.health()",
        "SELECT * FROM skill_system.version_info()",
    ]:
        standby.execute(statement)
    # Base backups carry the keyring, so a standby can verify.
    assert standby.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    assert standby.execute("SELECT key_present FROM skill_system.audit_status()").fetchall() == [(True,)]
    # Nothing is written there, and the error says why.
    for statement in [
        "SELECT skill_system.append_audit('x', '{}')",
        "SELECT skill_system.log_denial('x', '{}')",
        "INSERT INTO skill_system.audit_logs (event_type, event_data) VALUES ('x', '{}')",
        "SELECT skill_system.log_run('s', 'o', 'ok')",
        "SELECT skill_system.start_run('g')",
        "SELECT skill_system.log_event(1, 'x')",
        "SELECT skill_system.log_step(1, 's', 'o')",
        'SELECT skill_system.log_events(1, \'[{"event_type": "x"}]\')',
        "SELECT skill_system.finish_run(1, 'failed')",
        "SELECT skill_system.create_policy('x')",
        "SELECT * FROM skill_system.install_starter_policies()",
        "SELECT skill_system.create_audit_partition('2045-01-01')",
        "SELECT * FROM skill_system.maintain()",
        "SELECT skill_system.make_append_only('public.plain')",
        "SELECT skill_system.audit_table('public.plain')",
        "SELECT * FROM skill_system.seal_audit()",
        "SELECT skill_system.audit_checkpoint()",
        "SELECT * FROM skill_system.adopt_log('why')",
        "SELECT skill_system.rotate_audit_key()",
        "SELECT skill_system.set_legal_hold('2026-01-01', NULL, 'why')",
    ]:
        with pytest.raises(errors.ReadOnlySqlTransaction):
            standby.execute(statement)
    # What is denied on a standby is denied, and the error says that no record was made of it.
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        standby.execute("SELECT skill_system.enforce_policy('dev', '{net.fetch}'::text[])")
    assert caught.value.diag.message_detail.endswith("The denial was not recorded: this server is a standby.")
    # A change counts after replay, in a session that has the policy compiled, also inside a transaction and with a
    # prepared statement.
    standby.execute("PREPARE p AS SELECT allowed FROM skill_system.check_policy('dev', '{db.read}'::text[])")
    for _ in range(7):
        assert standby.execute("EXECUTE p").fetchone()[0] is True
    for level in ("READ COMMITTED", "REPEATABLE READ"):
        primary.execute("UPDATE skill_system.policy_profiles SET denied_effects = '{}' WHERE name = 'dev'")
        wait_for_replay(primary, standby)
        assert check() is True
        standby.execute(f"BEGIN ISOLATION LEVEL {level}")
        assert standby.execute("EXECUTE p").fetchone()[0] is True
        primary.execute("UPDATE skill_system.policy_profiles SET denied_effects = '{db.**}' WHERE name = 'dev'")
        time.sleep(0.1)
        with copy.connect() as other:
            wait_for_replay(primary, other)
        assert standby.execute("EXECUTE p").fetchone()[0] is False, level
        standby.execute("COMMIT")
        assert check() is False
    # What is rolled back on the primary never counts.
    with primary.transaction(force_rollback=True):
        primary.execute("UPDATE skill_system.policy_profiles SET denied_effects = '{}' WHERE name = 'dev'")
    primary.execute("SELECT skill_system.append_audit('x', '{}')")
    wait_for_replay(primary, standby)
    assert check() is False
    # Observing is recorded on a primary only; on a standby it must neither fail nor write.
    primary.execute("UPDATE skill_system.policy_profiles SET mode = 'observe' WHERE name = 'dev'")
    wait_for_replay(primary, standby)
    assert (
        standby.execute("SELECT allowed FROM skill_system.enforce_policy('dev', '{db.read}'::text[])").fetchone()[0]
        is False
    )
    assert standby.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    # After promotion it writes, and the record goes on.
    standby.execute("SELECT pg_promote()")
    standby.execute("SELECT skill_system.append_audit('promoted', '{}')")
    standby.execute("SELECT skill_system.log_run('s', 'o', 'ok')")
    # Its former primary may have gone on, so that somebody has to say which is the log.
    assert standby.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == [("sealed_elsewhere",)]
    standby.execute("SELECT skill_system.adopt_log('fail-over')")
    assert standby.execute("SELECT problem FROM skill_system.verify_audit()").fetchall() == []
    standby.close()
    primary.close()
