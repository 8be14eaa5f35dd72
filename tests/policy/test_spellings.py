"""What is denied is denied in every spelling: the table of docs/policy.md, and what lint names."""

import re
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
TABLE = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (deny|allow|refused) \|$", PAGE, re.M)
EVERYTHING = "{net.fetch,fs.read,fs.write,db.write,proc.exec,git.write,mail.send}"


@pytest.fixture
def create(db):
    db.execute("DELETE FROM skill_system.policy_profiles")
    notices = []
    db.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))

    def create(name="p", **rules):
        arguments = "".join(f", {column} => %s" for column in rules)
        notices.clear()
        db.execute(f"SELECT skill_system.create_policy(%s{arguments})", [name, *rules.values()])
        return list(notices)

    yield create
    db.execute("DELETE FROM skill_system.policy_profiles")


def check(db, effect, name="p"):
    return db.execute(
        "SELECT decision, reason FROM skill_system.check_policy(%s, %s::text[])", [name, [effect]]
    ).fetchone()


def codes(db, name="p"):
    """But for the notes on rules that no list restricts, which have a test to themselves."""
    return db.execute(
        "SELECT code, rule FROM skill_system.lint_policy(%s) WHERE code <> 'unlimited' ORDER BY 1, 2", [name]
    ).fetchall()


def test_the_table_of_the_page(db, create):
    assert len(TABLE) > 70
    for number, (deny, effect, expected) in enumerate(TABLE):
        create(f"p{number}", allow=EVERYTHING, deny=[deny])
        decision, reason = check(db, effect, f"p{number}")
        found = "refused" if "as malformed" in reason else decision
        assert found == expected, (deny, effect, reason)


def test_no_element_of_inherits_is_null_or_empty(db, create):
    create("base")
    for inherits in ([None], [""], ["base", None]):
        with pytest.raises(errors.InvalidParameterValue, match="inherits"):
            create("p", inherits=inherits)


def test_lint_names_what_allows_everything(db, create):
    for number, (column, rule, code) in enumerate(
        (
            ("allow", "**", "wide"),
            ("allow", "*.**", "wide"),
            ("allow", "*.*", "wide"),
            ("allow", "*", "narrow"),
            ("allow", "proc.exec:tmux", "runs_programs"),
            ("allowed_exec", "/**", "wide"),
            ("allowed_exec", "busybox", "runs_programs"),
            ("allowed_exec", "git", "runs_programs"),
            ("allowed_exec", "/lib64/ld-linux-x86-64.so.2", "runs_programs"),
        )
    ):
        rules = {"allow": "{proc.exec}", column: [rule]}
        assert [severity for severity, _ in create(f"w{number}", **rules)] == ["WARNING"], rule
        assert codes(db, f"w{number}") == [(code, rule)]
    assert create("git", allow="{proc.exec:git}", allowed_exec="{git status, git log --oneline}") == []


def test_lint_notes_what_no_list_restricts(db, create):
    for number, (allow, noted) in enumerate(
        (
            ("fs.write", ["every file may be written: allowed_write_roots is empty"]),
            ("fs.*", ["every file may be written: allowed_write_roots is empty"]),
            ("proc.exec", ["every program may run: allowed_exec is empty"]),
            ("fs.write:/srv/**", []),
            ("proc.exec:ls", []),
            ("fs.read", []),
        )
    ):
        # Notes are not sent as WARNINGs.
        assert create(f"u{number}", allow=[allow]) == []
        found = db.execute(
            "SELECT severity, code, rule, message FROM skill_system.lint_policy(%s)", [f"u{number}"]
        ).fetchall()
        assert found == [("info", "unlimited", allow, message) for message in noted]
    create("listed", allow="{fs.write,proc.exec}", allowed_exec="{ls}", allowed_write_roots="{/srv}")
    assert db.execute("SELECT * FROM skill_system.lint_policy('listed')").fetchall() == []


def test_programs_that_run_others_with_some_arguments(db, create):
    create(allow="{proc.exec}", deny="{proc.exec:rm}", allowed_exec="{git,tar,rsync,env,taskset}")
    for command, allowed in (
        (["git", "commit", "-m", "rm"], True),
        (["git", "-c", "core.pager=rm x", "log"], False),
        (["tar", "-xf", "rm.tar"], True),
        (["tar", "--to-command=rm", "-xf", "a.tar"], False),
        (["rsync", "-a", "rm", "b"], True),
        (["rsync", "-ae", "rm", "a", "b"], False),
        (["env", "-Srm x"], False),
        (["taskset", "1", "rm"], False),
        (["tar", "--to-c=rm", "-xf", "a.tar"], False),
        (["tar", "cIf", "rm", "a.tar"], False),
        (["git", "fetch", "--upload-p=rm", "x"], False),
        (["env", "-S", "r''m"], False),
    ):
        found = db.execute("SELECT allowed FROM skill_system.check_exec('p', %s::text[])", [command]).fetchone()[0]
        assert found is allowed, command


def test_an_empty_root_is_refused_and_one_that_is_the_root_is_named(db, create):
    for roots in (["", "/srv/app"], [" "], ["."], ["srv"], [None]):
        with pytest.raises(errors.InvalidParameterValue):
            create(allow="{fs.write}", allowed_write_roots=roots)
    for number, root in enumerate(["/", "/**", "/srv/app/../..", "C:/"]):
        assert create(f"r{number}", allow="{fs.write}", allowed_write_roots=[root]) == [
            ("WARNING", f'rule "{root}" of policy "r{number}": it is the root, so every file may be written')
        ]
        assert codes(db, f"r{number}") == [("wide", root)]


def test_a_path_may_have_blanks(db, create):
    assert create(allow="{fs.write}", allowed_write_roots="{/srv/app,/Users/me/Application Support}") == []
    for path, allowed in (
        ("/srv/app/my report.pdf", True),
        ("/Users/me/Application Support/x", True),
        ("/srv/app/a\tb", False),
        ("/srv/app/a ", False),
        ("/srv/app /x", False),
        ("/srv/app/100%25", True),
        ("/srv/app/%2e%2e/x", False),
        ("/srv/app/..%2fx", False),
    ):
        assert db.execute("SELECT allowed FROM skill_system.check_write('p', %s)", [path]).fetchone()[0] is allowed, (
            path
        )


def test_a_program_denied_by_name_is_denied_by_path_and_through_others(db, create):
    create(allow="{proc.exec}", deny="{proc.exec:rm}", allowed_exec="{/bin/*,env,sh,xargs **,git}")
    for argv, decision in (
        (["/bin/rm", "-rf", "/x"], "deny"),
        (["env", "rm"], "deny"),
        (["sh", "-c", "ls; /bin/rm x"], "deny"),
        (["xargs", "rm"], "deny"),
        (["/bin/ls"], "allow"),
        (["env", "ls"], "allow"),
        (["git", "commit", "-m", "rm"], "allow"),
    ):
        found = db.execute("SELECT decision FROM skill_system.check_exec('p', %s)", [argv]).fetchone()[0]
        assert found == decision, argv
    assert codes(db) == [("runs_programs", program) for program in ("env", "git", "sh", "xargs **")]


def test_lint_names_what_covers_less_than_it_reads(db, create):
    invisible = "fs.read:/opt\u200b/**"
    for rules in ({"deny": [invisible]}, {"allow": [invisible]}, {"allowed_exec": ["a\u200bb"]}):
        with pytest.raises(errors.InvalidParameterValue):
            create(**rules)
    for number, (allow, deny, found) in enumerate(
        (
            ("net.fetch", "net.fetch:*.bad.example", "partial"),
            ("proc.exec", "proc.exec:/bin/rm", "partial"),
            ("fs.read", "fs.read:/srv/{prod,test}/**", "glob_character"),
            ("fs.read", "fs.read:/srv/file?.txt", "glob_character"),
            ("fs.read", "fs.read:/srv/[ab]/**", "glob_character"),
            ("fs.read", "fs.read:/$HOME/**", "glob_character"),
            ("fs.read", "fs.read:/srv/+(a)", "glob_character"),
            ("fs.read", "fs.read:/srv/a|b", "glob_character"),
            ("fs.read", "fs.read:/srv/%TEMP%/x", "glob_character"),
            ("db.read", "db.read:%", "glob_character"),
            ("net.fetch", "net.fetch:10.0.0.1-9", "glob_character"),
            ("net.fetch", "net.fetch:192.168.x.x", "glob_character"),
            ("fs.read", "fs.read:/srv/@(a|b)", "glob_character"),
            ("fs.read", "fs.read:C:/WINDOW~1/**", "glob_character"),
            ("fs.write", "fs.write:/**", "shadowed_by_deny"),
            ("net.fetch", "net.fetch:*", "shadowed_by_deny"),
            ("db.write", "db.write:*", "shadowed_by_deny"),
        )
    ):
        warnings = create(f"l{number}", allow=[allow], deny=[deny])
        assert [code for code, _ in codes(db, f"l{number}")] == [found], deny
        assert [severity for severity, _ in warnings] == ["WARNING"], deny
    assert create("fine", allow="{proc.exec}", deny="{proc.exec:/opt/x/**}", allowed_exec="{/usr/bin/*}") == []
    assert create("scoped", allow="{proc.exec:/usr/bin/*}", allowed_exec="{/usr/bin/*}") == []
    assert codes(db, "fine") == codes(db, "scoped") == []


def test_a_stored_rule_that_is_no_longer_understood_denies_everything(db, create):
    """As an upgrade from a version that took it."""
    create(allow=EVERYTHING, deny="{net.fetch:evil.com}")
    with db.transaction():
        db.execute("ALTER TABLE skill_system.policy_profiles DISABLE TRIGGER policy_profiles_check")
        db.execute("UPDATE skill_system.policy_profiles SET denied_effects = '{net.fetch:10.**}' WHERE name = 'p'")
        db.execute("ALTER TABLE skill_system.policy_profiles ENABLE ALWAYS TRIGGER policy_profiles_check")
    db.execute("SELECT skill_system.create_policy('other')")
    assert check(db, "db.write")[0] == "deny"
    assert db.execute("SELECT severity, code, rule FROM skill_system.lint_policy('p')").fetchall() == [
        ("error", "malformed", "net.fetch:10.**")
    ]


def test_observing_outlives_a_rollback_and_works_read_only(db, create, roles, connect):
    create("watched", allow="{db.read}", mode="observe")
    agent = connect("test_agent")
    before = db.execute("SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'policy.observed'").fetchone()[
        0
    ]
    for begin, end in (
        ("BEGIN", "ROLLBACK"),
        ("BEGIN READ ONLY", "COMMIT"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "ROLLBACK"),
    ):
        agent.execute(begin)
        reason = agent.execute(
            "SELECT reason FROM skill_system.enforce_policy('watched', '{proc.exec:rm}')"
        ).fetchone()[0]
        assert "not recorded" not in reason
        agent.execute(end)
    found = db.execute(
        "SELECT event_data -> 'blocked_effects' FROM skill_system.audit_logs WHERE event_type = 'policy.observed'"
    ).fetchall()
    assert len(found) == before + 3 and found[-1][0] == ["proc.exec:rm"]


BIG = 9_990
LONG = "x/" * 400
HOSTILE = {
    "lint": "SELECT * FROM skill_system.lint_policy('big')",
    "lint of wildcards": "SELECT * FROM skill_system.lint_policy('wild')",
    "check": "SELECT skill_system.check_policy('wild', array_agg('fs.read:/a/b/c/d' || g)) FROM generate_series(1, 1000) g",
    "explain": "SELECT * FROM skill_system.explain_policy('wild', (SELECT array_agg('fs.read:/a/b/c/d' || g)"
    " FROM generate_series(1, 1000) g))",
    "arguments": "SELECT skill_system.check_exec('shell', array['sh', '-c', repeat('rm2 ', 5000000)])",
    "words": "SELECT skill_system.check_exec('shell', array['sh', '-c', repeat('rm2 ', 500000)])",
    "blanks": "SELECT skill_system.check_exec('shell', array['sh', '-c', repeat(' ', 2000000)])",
    "quotes": "SELECT skill_system.check_exec('shell', array['sh', '-c', repeat('r\"m ', 500000)])",
    "a word": "SELECT skill_system.check_exec('shell', array['sh', '-c', repeat('r', 2000000)])",
    "options": "SELECT skill_system.check_exec('shell', '{git}'::text[] || array_fill(repeat('--x', 600), ARRAY[999]))",
    "a program": "SELECT skill_system.check_exec('shell', array[repeat('sh ', 5000000)])",
    "write": f"UPDATE skill_system.policy_profiles SET denied_effects = array_fill('fs.read:/{LONG}'::text, ARRAY[{BIG}])"
    " WHERE name = 'small'",
}


def test_everything_stops_at_statement_timeout(db, create):
    create("small")
    create("shell", allow="{proc.exec}", allowed_exec="{sh,git}", deny="{proc.exec:rm}")
    create("big", allow=[f"fs.read:/srv/{n}/**" for n in range(BIG)])
    create("wild", deny=["fs.read:/*/" + "/".join("ab*"[n // 3**i % 3] for i in range(9)) for n in range(BIG)])
    for name, statement in HOSTILE.items():
        db.execute("SET statement_timeout = '200ms'")
        started = time.monotonic()
        try:
            db.execute(statement)
        except psycopg.errors.QueryCanceled:
            pass
        finally:
            took = time.monotonic() - started
            db.execute("RESET statement_timeout")
        assert took < 2, (name, took)
