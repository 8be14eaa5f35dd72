"""pg_dump | restore into another cluster loses nothing, doubles nothing, and goes on from there."""

import json
import os
import subprocess

import pytest
from psycopg import errors

import filings
import skills
from cluster import as_server, bindir, ready_for_restore
from keyring import keyring_path, read_keyring
from ledger import problems

# Restored with one job: pg_dump does not tell pg_restore -j which of an extension's tables refer to which.
FORMS = {"custom": ["-Fc"], "plain": ["-Fp"], "inserts": ["-Fp", "--inserts"], "directory": ["-Fd", "-j2"]}


def run(*command, environment, **more):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, **more)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower() and "error" not in done.stderr.lower(), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(database, db):
    """Every module filled: two tenants, heirs that are older and newer than what they inherit, renamed and deleted
    ones, several partitions."""
    db.execute("LOAD 'skill_system'")
    db.execute(
        "SELECT skill_system.create_audit_partition('2046-03-01'), skill_system.create_audit_partition('2046-04-01')"
    )
    for tenant in ("default", "acme"):
        db.execute("SELECT set_config('skill_system.tenant', %s, false)", [tenant])
        db.execute("SELECT * FROM skill_system.install_starter_policies()")
        # The heir stands before its parent in the table, and gets it only by an update; a name changes on the way.
        db.execute("SELECT skill_system.create_policy('heir', allow => '{db.read}')")
        db.execute(
            "SELECT skill_system.create_policy('parent', deny => '{net.**}', metadata => '{\"a\": [1.50, \"ü😀\"]}')"
        )
        db.execute("UPDATE skill_system.policy_profiles SET inherits = '{parent,readonly}' WHERE name = 'heir'")
        db.execute("UPDATE skill_system.policy_profiles SET name = 'heir renamed' WHERE name = 'heir'")
        db.execute(
            "WITH p AS (SELECT 1) UPDATE skill_system.policy_profiles SET name = CASE name "
            "WHEN 'parent' THEN 'elder' ELSE name END, inherits = array_replace(inherits, 'parent', 'elder')"
        )
        db.execute("SELECT skill_system.create_policy('short lived')")
        db.execute("DELETE FROM skill_system.policy_profiles WHERE name = 'short lived'")
        db.execute(
            "SELECT skill_system.log_run('skill', 'op', 'ok', 5, policy_name => 'heir renamed', "
            "idempotency_key => 'k', goal => %s)",
            [f"goal of {tenant} \\ \t \"'"],
        )
        run_id = db.execute("SELECT skill_system.start_run('two steps', 'dev', 'agent')").fetchone()[0]
        db.execute("SELECT skill_system.log_step(%s, 's', 'o', 'ok', 7)", [run_id])
        db.execute("SELECT skill_system.finish_run(%s, 'failed', 'why')", [run_id])
        db.execute("SELECT skill_system.start_run('goes on')")
        db.execute(
            "INSERT INTO skill_system.audit_logs (event_type, event_data, actor_id, actor_type, created_at) "
            "VALUES ('march', '{\"n\": 1e300}', 'é', NULL, '2046-03-05Z'), "
            "('april', '[]', NULL, 'user', '2046-04-30 23:59:59.999999Z'), "
            "('may', '\"\\\\x\"', NULL, NULL, '2046-05-01Z')"
        )
        filings.fill_tables(db, db, f"of {tenant}")
        skills.fill_tables(db, f"of {tenant}")
        db.execute("SELECT skill_system.log_run('a', 'op', 'ok')")
    db.execute("RESET skill_system.tenant")
    # A table of the user's, audited and protected, comes along.
    db.execute(
        "CREATE TABLE public.wells (id int PRIMARY KEY, note text); "
        "SELECT skill_system.audit_table('public.wells'); INSERT INTO public.wells VALUES (1, 'a'); "
        "UPDATE public.wells SET note = 'b'"
    )
    db.execute(
        "CREATE TABLE public.invoices (id int); SELECT skill_system.make_append_only('public.invoices'); "
        "INSERT INTO public.invoices VALUES (1)"
    )
    # Restored after the tables of the extension, and with partitions.
    db.execute(
        "CREATE SCHEMA zone; CREATE TABLE zone.p (id int PRIMARY KEY, v int) PARTITION BY LIST (id); "
        "CREATE TABLE zone.p1 PARTITION OF zone.p DEFAULT; CREATE TABLE zone.up (id int); "
        "CREATE TABLE zone.down () INHERITS (zone.up); "
        "SELECT skill_system.audit_table('zone.p', columns => '{v}'), skill_system.make_append_only('zone.p'), "
        "skill_system.audit_table('zone.up'); INSERT INTO zone.p VALUES (1, 1); INSERT INTO zone.down VALUES (1)"
    )
    # Sealed and signed, so that the ledger comes along, and records after it.
    db.execute("SELECT * FROM skill_system.seal_audit()")
    db.execute("SELECT skill_system.audit_checkpoint()")
    db.execute("SELECT skill_system.append_audit('after the seal', '{}')")
    assert problems(db) == []
    # What only some months have, and what retiring one would leave.
    empty = [
        name for name in relations(db, ["r"]) if not db.execute(f"SELECT FROM skill_system.{name} LIMIT 1").rowcount
    ]
    assert empty == ["audit_kept"]
    return database


def relations(connection, kinds):
    """The names of the extension's objects of these kinds; partitions are in their parent."""
    rows = connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'skill_system'::regnamespace "
        "AND relkind = ANY (%s) AND NOT relispartition ORDER BY 1",
        [kinds],
    ).fetchall()
    assert rows
    return [name for (name,) in rows]


def contents(connection):
    connection.execute("SET TimeZone = 'UTC'")
    found = {
        table: connection.execute(f"SELECT t::text FROM skill_system.{table} t ORDER BY 1").fetchall()
        for table in relations(connection, ["r", "p"])
    }
    found["partitions"] = connection.execute(
        "SELECT tableoid::regclass::text, count(*) FROM skill_system.audit_logs GROUP BY 1 ORDER BY 1"
    ).fetchall()
    found["sequences"] = [
        connection.execute(f"SELECT last_value, is_called FROM skill_system.{name}").fetchone()
        for name in relations(connection, ["S"])
    ]
    found["public"] = connection.execute(
        "SELECT (SELECT jsonb_agg(w) FROM public.wells w), (SELECT jsonb_agg(i) FROM public.invoices i), "
        "(SELECT jsonb_agg(p) FROM zone.p), (SELECT jsonb_agg(u) FROM zone.up u)"
    ).fetchone()
    # What protects a table is as important as what is in it.
    found["triggers"] = connection.execute(
        "SELECT tgrelid::regclass::text, tgname, tgenabled, tgtype, encode(tgargs, 'hex') FROM pg_trigger t "
        "JOIN pg_class c ON c.oid = tgrelid WHERE NOT (tgisinternal AND tgparentid = 0) "
        "AND c.relnamespace IN ('skill_system'::regnamespace, 'public'::regnamespace, 'zone'::regnamespace) ORDER BY 1, 2"
    ).fetchall()
    found["tables"] = connection.execute(
        "SELECT relname, relkind, relrowsecurity, relacl::text, relpersistence, "
        "pg_get_expr(relpartbound, oid), obj_description(oid) FROM pg_class "
        "WHERE relnamespace = 'skill_system'::regnamespace AND relkind <> 'c' ORDER BY 1"
    ).fetchall()
    found["policies"] = connection.execute(
        "SELECT tablename, policyname, roles::text, cmd, qual, with_check FROM pg_policies "
        "WHERE schemaname = 'skill_system' ORDER BY 1, 2"
    ).fetchall()
    # Whether the library was preloaded is a matter of the server.
    found["fingerprint"] = [
        row
        for row in connection.execute("SELECT item, state FROM skill_system.audit_fingerprint() ORDER BY 1").fetchall()
        if row[0] != "library"
    ]
    found["indexes"] = connection.execute(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'skill_system' ORDER BY 1"
    ).fetchall()
    return found


def restore(form, source, cluster, tmp_path, keyring):
    ready_for_restore(cluster, keyring, "restored")
    dump = tmp_path / "dump"
    run(f"{bindir()}/pg_dump", *FORMS[form], "-f", str(dump), source, environment={})
    if "-Fp" in FORMS[form]:
        run(
            f"{bindir()}/psql",
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "restored",
            "-f",
            str(dump),
            environment=cluster.environment,
        )
    else:
        run(f"{bindir()}/pg_restore", "--exit-on-error", "-d", "restored", str(dump), environment=cluster.environment)
    return cluster.connect(dbname="restored")


def keyring_of(connection):
    return read_keyring(keyring_path(connection))


# A server that preloads the library guards the audit tables as soon as the log has its identity, in the middle of the
# restore.
@pytest.mark.parametrize("settings", [(), ("shared_preload_libraries=skill_system",)], ids=["plain", "preloaded"])
@pytest.mark.parametrize("form", FORMS)
def test_a_restored_database_is_the_same_and_goes_on(form, settings, source, db, new_cluster, tmp_path):
    before = contents(db)
    connection = restore(form, source, new_cluster(*settings, copied=False), tmp_path, keyring_of(db))
    is_the_same_and_goes_on(connection, before)


# What restores in two or three steps, each a pg_dump and what takes its output.
STEPS = {
    "an archive": ("-Fc", [["pg_restore", "-s"], ["pg_restore", "-a"]]),
    "its sections": ("-Fc", [["pg_restore", f"--section={part}"] for part in ("pre-data", "data", "post-data")]),
    "in one transaction": ("-Fc", [["pg_restore", "-s", "-1"], ["pg_restore", "-a", "-1"]]),
    "with row security": ("-Fc", [["pg_restore", "-s"], ["pg_restore", "-a", "--enable-row-security"]]),
    "scripts": ("-s", "-a"),
    "scripts of statements": ("-s", "-a --inserts"),
}


@pytest.mark.parametrize("settings", [(), ("shared_preload_libraries=skill_system",)], ids=["plain", "preloaded"])
@pytest.mark.parametrize("steps", STEPS)
def test_the_schema_first_and_the_data_after(steps, settings, source, db, new_cluster, tmp_path):
    """The audit triggers exist when the rows come: they are recorded in the log that comes with them."""
    before = contents(db)
    cluster = new_cluster(*settings, copied=False)
    ready_for_restore(cluster, keyring_of(db), "restored")
    dump = tmp_path / "dump"
    first, then = STEPS[steps]
    if first == "-Fc":
        run(f"{bindir()}/pg_dump", "-Fc", "-f", str(dump), source, environment={})
        for program, *options in then:
            command = [f"{bindir()}/{program}", "--exit-on-error", *options, "-d", "restored", str(dump)]
            run(*command, environment=cluster.environment)
    else:
        for options in (first, then):
            run(f"{bindir()}/pg_dump", *options.split(), "-f", str(dump), source, environment={})
            command = [f"{bindir()}/psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", str(dump)]
            run(*command, environment=cluster.environment)
    is_the_same_and_goes_on(cluster.connect(dbname="restored"), before)


def test_only_the_restore_of_a_log_is_not_recorded(source, db, new_cluster, connect, tmp_path):
    """The settings of a restore alone hide nothing: not where a log has begun, not from a role that could not restore it."""
    settings = "SET check_function_bodies = off"
    count = "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'row.inserted'"
    with connect() as here:
        here.execute(settings)
        before = here.execute(count).fetchone()[0]
        here.execute("INSERT INTO public.wells VALUES (70)")
        assert here.execute(count).fetchone()[0] == before + 1
        here.execute("DELETE FROM public.wells WHERE id = 70")
    cluster = new_cluster(copied=False)
    ready_for_restore(cluster, keyring_of(db), "restored")
    dump = tmp_path / "dump"
    run(f"{bindir()}/pg_dump", "-Fc", "-f", str(dump), source, environment={})
    run(f"{bindir()}/pg_restore", "-s", "-d", "restored", str(dump), environment=cluster.environment)
    with cluster.connect(dbname="restored") as connection:
        connection.execute("CREATE ROLE clerk; GRANT ALL ON public.wells TO clerk")
        connection.execute(settings)
        connection.execute("INSERT INTO public.wells VALUES (1)")
        assert connection.execute(count).fetchone() == (0,)
        connection.execute("SET ROLE clerk")
        connection.execute("INSERT INTO public.wells VALUES (2)")
        connection.execute("RESET ROLE")
        assert connection.execute(count).fetchone() == (1,)
        # Now this is a log, and the other one is not mixed with it.
        connection.execute("INSERT INTO public.wells VALUES (3)")
        assert connection.execute(count).fetchone() == (2,)


def is_the_same_and_goes_on(connection, before):
    after = contents(connection)
    for part in before:
        assert after[part] == before[part], part
    # It is whole, and nothing is sealed in another server before somebody says that this is now the log.
    assert problems(connection, "problem") == [("sealed_elsewhere",)]
    size = connection.execute("SELECT tree_size FROM skill_system.audit_seal_state").fetchone()[0]
    assert connection.execute(
        "SELECT incarnation, continued, tree_size > %s, sealed > 0 FROM skill_system.adopt_log('restored')", [size]
    ).fetchone() == (1, True, True, True)
    assert problems(connection) == []
    unhealthy = connection.execute(
        "SELECT \"check\", status, detail FROM skill_system.health() WHERE status = 'error'"
    ).fetchall()
    assert unhealthy == []
    goes_on(connection, before)
    # And once more, from there: a dump of a restored database.
    assert connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'skill_system'").fetchone()[0] == 1
    connection.close()


def goes_on(connection, before):
    connection.execute("SELECT skill_system.current_tenant()")
    for tenant in ("default", "acme"):
        connection.execute("SELECT set_config('skill_system.tenant', %s, false)", [tenant])
        assert (
            connection.execute(
                "SELECT allowed FROM skill_system.check_policy('heir renamed', '{db.read}'::text[])"
            ).fetchone()[0]
            is True
        )
        assert connection.execute(
            "SELECT decision, blocked_effects FROM skill_system.check_policy('heir renamed', '{net.fetch}'::text[])"
        ).fetchone() == ("deny", ["net.fetch"])
        highest = connection.execute("SELECT max(id) FROM skill_system.runs").fetchone()[0]
        new = connection.execute("SELECT skill_system.log_run('s', 'o', 'ok', idempotency_key => 'new')").fetchone()[0]
        assert new > highest
        assert (
            connection.execute(
                "SELECT skill_system.log_run('skill', 'op', 'ok', 5, policy_name => 'heir renamed', "
                "idempotency_key => 'k', goal => %s)",
                [f"goal of {tenant} \\ \t \"'"],
            ).fetchone()[0]
            < new
        ), "the old key is forgotten"
        versions = dict(
            connection.execute(
                "SELECT name, version FROM skill_system.policy_profiles WHERE tenant_id = %s", [tenant]
            ).fetchall()
        )
        connection.execute(
            "UPDATE skill_system.policy_profiles SET denied_effects = '{mail.**}' WHERE name = 'elder' "
            "AND tenant_id = %s",
            [tenant],
        )
        now = dict(
            connection.execute(
                "SELECT name, version FROM skill_system.policy_profiles WHERE tenant_id = %s", [tenant]
            ).fetchall()
        )
        assert {name for name in now if now[name] != versions[name]} == {"elder", "heir renamed"}
        assert all(now[name] == versions[name] + 1 for name in ("elder", "heir renamed"))
        connection.execute("SELECT skill_system.create_policy('made after')")
        connection.execute("SELECT skill_system.append_audit('after', '{}')")
    gaps = connection.execute(
        "SELECT policy_profile_id FROM skill_system.policy_versions GROUP BY tenant_id, policy_profile_id "
        "HAVING max(version) <> count(*)"
    ).fetchall()
    assert gaps == []
    count = connection.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone()[0]
    connection.execute("INSERT INTO public.wells VALUES (2, 'c')")
    assert connection.execute("SELECT count(*) FROM skill_system.audit_logs").fetchone()[0] == count + 1
    for statement in (
        "DELETE FROM public.invoices",
        "DELETE FROM skill_system.audit_logs",
        "TRUNCATE skill_system.audit_logs_2046_03",
        "UPDATE skill_system.policy_versions SET name = 'x'",
        "DELETE FROM skill_system.run_events",
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            connection.execute(statement)
    assert problems(connection) == []


def test_without_the_keyring_nothing_is_signed_until_there_is_a_new_one(source, db, new_cluster, tmp_path):
    cluster = new_cluster(copied=False)
    before = contents(db)
    connection = restore("custom", source, cluster, tmp_path, None)
    after = contents(connection)
    tables = relations(connection, ["r", "p"])
    assert {part: after[part] for part in tables} == {part: before[part] for part in tables}
    for statement in (
        "SELECT skill_system.append_audit('x', '{}')",
        "SELECT skill_system.log_run('s', 'o', 'ok')",
        "SELECT skill_system.create_policy('x')",
        "INSERT INTO public.wells VALUES (3, 'x')",
    ):
        with pytest.raises(errors.ConfigFileError) as caught:
            connection.execute(statement)
        assert "create_keyring()" in caught.value.diag.message_hint
    # No keyring was made behind anybody's back: that would hide that the old one is missing.
    assert as_server("sh", "-c", f"ls '{cluster.data}' | grep -c keyring || true").strip() == "0"
    with pytest.raises(errors.ConfigFileError):
        connection.execute("SELECT * FROM skill_system.verify_audit()")
    assert connection.execute("SELECT DISTINCT key_present FROM skill_system.audit_status()").fetchall() == [(False,)]
    assert connection.execute("SELECT status FROM skill_system.health() WHERE \"check\" = 'keyring'").fetchall() == [
        ("error",)
    ]
    # Decisions need no key.
    assert (
        connection.execute("SELECT allowed FROM skill_system.check_policy('dev', '{db.read}'::text[])").fetchone()[0]
        is True
    )
    connection.execute("SELECT skill_system.create_keyring()")
    connection.execute("SELECT skill_system.append_audit('x', '{}')")
    connection.execute("SELECT * FROM skill_system.adopt_log('restored without the keyring')")
    old = len(before["audit_logs"])
    # The checkpoint of the source was signed by a key that is gone as well.
    assert problems(connection, "problem") == [("key_unknown",)] * old + [("checkpoint_signature",)]
    # The old keyring, found again, joins the new one.
    joined = json.loads(as_server("cat", str(cluster.data / "skill_system_keyring.json")))
    joined["keys"] += [{**key, "active": False} for key in json.loads(keyring_of(db))["keys"]]
    as_server("sh", "-c", 'cat > "$0"', str(cluster.data / "skill_system_keyring.json"), input=json.dumps(joined))
    with cluster.connect(dbname="restored") as fresh:
        assert problems(fresh) == []
    connection.close()
