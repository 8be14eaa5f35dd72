"""Search: sensible ranks, hostile queries, and nothing that one may not see."""

import json
import random
import uuid

import psycopg
import pytest
from psycopg import errors, sql

from skills import approve, register

SKILLS = {
    "pdf-forms": (
        "Fill in PDF forms and check their fields.",
        "documents",
        "Open the file, then write each field.",
        ["fs.read", "fs.write"],
    ),
    "pdf-merge": ("Join several PDF files into one.", "documents pdf", "Pages are kept in their order.", ["fs.read"]),
    "tax-return": (
        "Prepare a tax return for a small company.",
        "finance",
        "The form is a PDF in the end.",
        ["fs.read", "net.fetch"],
    ),
    "web-research": (
        "Search the web and cite what was found.",
        "research",
        "Never trust the first hit.",
        ["net.fetch"],
    ),
    "haiku": ("Write short poems.", "fun", "Seventeen syllables.", []),
}


def register_described(
    db, name, description, tags="", text="Text.", effects=(), namespace="default", approve=True, manifest=True
):
    block = {
        "schema_version": "2.0",
        "id": name,
        "version": "1.0.0",
        "capabilities": [],
        "effects": list(effects),
        "operations": {},
    }
    body = (
        f"---\nname: {name}\ndescription: {json.dumps(description)}\nmetadata:\n  tags: "
        f"{json.dumps(tags)}\n---\n# {name}\n\n{text}\n"
    )
    if manifest:
        body += f"\n```skill-manifest\n{json.dumps(block)}\n```\n"
    register(db, body, namespace, approve)


@pytest.fixture(scope="module")
def library(db):
    for name, (description, tags, text, effects) in SKILLS.items():
        register_described(db, name, description, tags, text, effects)
    return db


def search(db, query, **arguments):
    call = sql.SQL(", ").join(
        [sql.SQL("%s"), *(sql.SQL("{} => %s").format(sql.Identifier(name)) for name in arguments)]
    )
    return [row[0] for row in rows(db, query, "skill_name", call, arguments)]


def rows(db, query, columns="*", call=None, arguments=None):
    call = call or sql.SQL("%s")
    statement = sql.SQL("SELECT {} FROM skill_system.search_skills({}) ORDER BY rank").format(sql.SQL(columns), call)
    return db.execute(statement, [query, *(arguments or {}).values()]).fetchall()


def test_ranks_make_sense(library):
    db = library
    assert search(db, "fill a pdf form")[0] == "pdf-forms"
    assert search(db, "pdf")[:2] in (["pdf-merge", "pdf-forms"], ["pdf-forms", "pdf-merge"])
    # Said in the description counts more than said in the body.
    found = search(db, "pdf")
    assert found.index("pdf-merge") < found.index("tax-return") and found.index("pdf-forms") < found.index("tax-return")
    # Stemmed: joining finds join; a question with words that no skill has still finds something.
    assert search(db, "joining files")[0] == "pdf-merge"
    assert search(db, "please could you prepare my taxes quickly")[0] == "tax-return"
    assert search(db, "haiku") == ["haiku"]
    assert search(db, "web-r")[0] == "web-research"
    assert search(db, "quantum") == []
    # A web search's signs: a phrase, without, or.
    assert search(db, "pdf -merge -join") and "pdf-merge" not in search(db, "pdf -merge -join")
    assert search(db, '"several PDF files"') == ["pdf-merge"]
    assert set(search(db, "poems or cite")) == {"haiku", "web-research"}


def test_the_answer_explains_itself(library):
    row = rows(library, "haiku", "rank, namespace, skill_name, description, score, matched, semver, status")[0]
    assert row[:4] == (1, "default", "haiku", "Write short poems.") and row[6:] == ("1.0.0", "approved")
    assert row[5] == ["name", "text"] and abs(row[4] - 2 / 61) < 1e-9
    assert len(search(library, "pdf", max_rows=1)) == 1
    for bad in (0, -1, 1001, None):
        with pytest.raises(errors.InvalidParameterValue):
            search(library, "pdf", max_rows=bad)


def test_tags(library):
    db = library
    assert set(search(db, None, tags=["documents"])) == {"pdf-forms", "pdf-merge"}
    assert search(db, None, tags=["documents", "pdf"]) == ["pdf-merge", "pdf-forms"]
    # A filter for the other rankings, too.
    assert search(db, "pdf", tags=["finance"]) == ["tax-return"]
    # A word of the query that is a tag finds what does not say it elsewhere.
    assert search(db, "Finance") == ["tax-return"] and search(db, "fun") == ["haiku"]
    assert search(db, "pdf", tags=["no such tag"]) == []
    assert rows(db, "Finance", "matched") == [(["text"],)]
    with pytest.raises(errors.InvalidParameterValue):
        search(db, None, tags=["a", None])


@pytest.mark.parametrize(
    "query",
    [
        "'",
        "''",
        "\\",
        "\\'",
        "a\\'b",
        "!",
        "!!a & | ( ) <-> :*",
        "a:*",
        ":*:A",
        "(((",
        '"',
        '"""',
        "- -",
        "-",
        "a & b | !c",
        "%_",
        "'; DROP TABLE skill_system.skill_heads; --",
        "$$",
        "$1",
        "\t\n x",
        "\u202e\u0000".replace("\u0000", ""),
        "日本語 検索",
        "é" * 500,
        "the of and",
        "http://a.b/c?d=1&e='\\'",
        "x" * 1999,
        " ".join("abcdefghij"[i % 10] for i in range(990)),
        "{}",
        "{a,b}",
        "NULL",
        "\\\\server\\share",
        "a@b.c",
        "<b>x</b>",
        "1.2.3",
        "^1.2",
        "*",
    ],
)
def test_hostile_queries_are_only_queries(library, connect, query):
    connection = connect()
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    search(connection, query)
    assert notices == []
    assert connection.execute("SELECT count(*) >= 5 FROM skill_system.skill_heads").fetchone() == (True,)


def test_hostile_queries_by_the_hundred(library):
    random.seed(5)
    signs = list("'\"\\-!&|()<>:* ,;%_$") + ["or", "and", "not", "pdf", "form", "é", "\u2028", "<->", "''", "\\\\"]
    for _ in range(300):
        search(library, "".join(random.choice(signs) for _ in range(random.randint(1, 25))) + "x")


def test_out_of_bounds(library):
    for query in (None, "", "  "):
        with pytest.raises(errors.InvalidParameterValue):
            search(library, query)
    with pytest.raises(errors.InvalidParameterValue):
        search(library, "x" * 2001)


@pytest.fixture
def trgm_owner(db):
    """pg_trgm is a trusted extension: this role, no superuser, owns it and its schema."""
    db.execute(
        "CREATE ROLE trgm_owner LOGIN; CREATE SCHEMA trgm AUTHORIZATION trgm_owner; GRANT USAGE ON SCHEMA trgm TO PUBLIC"
    )
    db.execute(f'GRANT CREATE ON DATABASE "{db.info.dbname}" TO trgm_owner')
    yield "trgm_owner"
    db.execute("DROP EXTENSION IF EXISTS pg_trgm CASCADE; DROP OWNED BY trgm_owner CASCADE; DROP ROLE trgm_owner")


EVIL = """CREATE OR REPLACE FUNCTION trgm.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'other code ran'; END$$"""


def test_spelling_takes_no_other_functions_for_those_of_pg_trgm(library, trgm_owner, connect, db):
    owner = connect(trgm_owner)
    owner.execute("CREATE EXTENSION pg_trgm SCHEMA trgm")
    assert search(db, "reserch")[0] == "web-research"
    # What its owner may do with it.
    for name in ("similarity", "word_similarity"):
        owner.execute(EVIL.format(name=name, arguments="text, varchar", result="real"))
        owner.execute(EVIL.format(name=name, arguments="varchar, varchar", result="float8"))
        owner.execute(f"ALTER EXTENSION pg_trgm ADD FUNCTION trgm.{name}(text, varchar)")
        owner.execute(f"ALTER EXTENSION pg_trgm ADD FUNCTION trgm.{name}(varchar, varchar)")
    assert search(db, "reserch")[0] == "web-research"
    owner.execute("CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO PUBLIC")
    for name in ("similarity", "word_similarity"):
        owner.execute(EVIL.format(name=name, arguments="text, text", result="real").replace("trgm.", "elsewhere."))
        owner.execute(f"ALTER EXTENSION pg_trgm ADD FUNCTION elsewhere.{name}(text, text)")
    assert search(db, "reserch")[0] == "web-research"
    # A superuser takes the true ones out: nothing takes their place.
    for name in ("similarity", "word_similarity"):
        db.execute(f"ALTER EXTENSION pg_trgm DROP FUNCTION trgm.{name}(text, text)")
    assert search(db, "reserch") == []
    # The true ones may be SECURITY DEFINER or have settings only by a superuser, who then wants something else.
    for name in ("similarity", "word_similarity"):
        db.execute(f"ALTER EXTENSION pg_trgm ADD FUNCTION trgm.{name}(text, text)")
    assert search(db, "reserch")[0] == "web-research"
    db.execute("ALTER FUNCTION trgm.word_similarity(text, text) SECURITY DEFINER")
    assert search(db, "reserch") == []
    db.execute("ALTER FUNCTION trgm.word_similarity(text, text) SECURITY INVOKER SET search_path = trgm")
    assert search(db, "reserch") == []


def test_spelling_where_pg_trgm_is(library, database, connect):
    db = library
    assert search(db, "reserch") == []
    # It may come later, to any schema, and is never found through search_path.
    db.execute('CREATE SCHEMA "odd Place"')
    db.execute('CREATE EXTENSION pg_trgm SCHEMA "odd Place"')
    try:
        assert search(db, "reserch")[0] == "web-research"
        assert rows(db, "web-reserch", "matched")[0][0][-1] == "spelling"
        # Functions of the same name that somebody puts in the way are not called.
        connection = connect()
        connection.execute(
            "CREATE FUNCTION pg_temp.word_similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT 1/0'"
        )
        connection.execute("CREATE FUNCTION pg_temp.similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT 1/0'")
        connection.execute("SET search_path = pg_temp, public")
        assert search(connection, "reserch")[0] == "web-research"
        # Who may not use the schema searches without it.
        db.execute("CREATE ROLE trgm_less LOGIN IN ROLE skill_system_agent")
        assert search(connect("trgm_less"), "reserch") == []
        assert search(connect("trgm_less"), "web research")[0] == "web-research"
        db.execute('GRANT USAGE ON SCHEMA "odd Place" TO trgm_less')
        assert search(connect("trgm_less"), "reserch")[0] == "web-research"
        db.execute("ALTER EXTENSION pg_trgm SET SCHEMA public")
        assert search(db, "reserch")[0] == "web-research"
    finally:
        db.execute("DROP EXTENSION pg_trgm")
        db.execute('DROP SCHEMA "odd Place"')
        db.execute("DROP ROLE IF EXISTS trgm_less")
    assert search(db, "reserch") == []


def test_spelling_takes_what_pg_trgm_takes(library):
    """Skills that cannot be near enough are not compared: the same are found as by a comparison with each."""
    db = library
    db.execute("CREATE EXTENSION pg_trgm SCHEMA public")
    try:
        for query in (
            "reserch",
            "pfd forms",
            "fil a pdf from",
            "TAX retrun",
            "merge-pdf",
            "x",
            "a",
            "café",
            "--",
            "po em",
        ):
            found = {row[0] for row in rows(db, query, "skill_name, matched", None, {}) if "spelling" in (row[1] or [])}
            near = db.execute(
                "SELECT skill_name FROM skill_system.skill_heads WHERE enabled AND greatest(similarity(%(query)s, skill_name), "
                "word_similarity(%(query)s, skill_name || ' ' || left(description, 200))) >= 0.3",
                {"query": query},
            ).fetchall()
            assert found == {row[0] for row in near}, query
    finally:
        db.execute("DROP EXTENSION pg_trgm")


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("powerpoint presentation of my notes", "slides"),
        ("notes about powerpoint", "slides"),
        ("decks and notes and more notes", "slides"),
        ("audit my notes", "notes-audit"),
        ("notes", "notes-audit"),
    ],
)
def test_a_rare_word_outranks_a_frequent_one(fresh_database, connect, query, first):
    db = connect(dbname=fresh_database())
    register_described(db, "notes-audit", "Audits notes.", manifest=False)
    register_described(db, "slides", "Makes PowerPoint decks from notes.", manifest=False)
    assert search(db, query)[0] == first


def test_drafts_disabled_switched_off_and_deleted(db, library):
    register_described(db, "zebra-draft", "A zebra nobody has approved.", approve=False)
    register_described(db, "zebra-disabled", "A zebra that was taken back.")
    db.execute("SELECT skill_system.set_skill_status('zebra-disabled', 'disabled')")
    register_described(db, "zebra-off", "A zebra that is switched off.")
    db.execute("UPDATE skill_system.skill_heads SET enabled = false WHERE skill_name = 'zebra-off'")
    register_described(db, "zebra-deleted", "A zebra that is gone.")
    db.execute("SELECT skill_system.delete_skill('zebra-deleted')")
    register_described(db, "zebra", "A zebra.")
    assert search(db, "zebra") == ["zebra"]
    assert sorted(search(db, "zebra", include_drafts=True)) == ["zebra", "zebra-draft"]
    assert db.execute(
        "SELECT count(*) FROM skill_system.skill_search s "
        "JOIN skill_system.skill_heads h ON h.id = s.skill_id WHERE h.deleted_at IS NOT NULL"
    ).fetchone() == (0,)
    # What a draft that waits says is not found yet; what was served before is not found any more.
    register_described(db, "zebra", "An okapi.", approve=False)
    assert search(db, "okapi") == [] and search(db, "zebra") == ["zebra"]
    approve(db, "zebra")
    assert search(db, "okapi") == ["zebra"]
    db.execute("SELECT skill_system.rollback_skill('zebra')")
    assert search(db, "okapi") == [] and search(db, "zebra") == ["zebra"]


def test_a_policy_hides_what_it_denies(library):
    db = library
    db.execute(
        "INSERT INTO skill_system.policy_profiles (name, allowed_effects, ask_effects) "
        "VALUES ('readers', '{fs.read}', '{fs.write}'), ('writers', '{fs.read, fs.write}', '{}')"
    )
    # What a person would have to release does not appear either.
    assert search(db, "pdf", policy_name="readers") == ["pdf-merge"]
    assert set(search(db, "pdf", policy_name="writers")) == {"pdf-merge", "pdf-forms"} and "tax-return" in search(
        db, "pdf"
    )
    assert search(db, "web research", policy_name="readers") == []
    register_described(db, "pdf-mystery", "A PDF skill without a manifest.", manifest=False)
    assert "pdf-mystery" in search(db, "pdf") and "pdf-mystery" not in search(db, "pdf", policy_name="readers")
    with pytest.raises(errors.UndefinedObject):
        search(db, "pdf", policy_name="nobody")
    # However many are hidden at the top, what is allowed is found behind them.
    for i in range(230):
        register_described(db, f"gnu-{i:03}", "gnu gnu gnu", effects=["net.fetch"])
    register_described(db, "other-beast", "Like a gnu.", effects=["fs.read"])
    assert search(db, "gnu", policy_name="readers", max_rows=5) == ["other-beast"]


def test_namespaces_and_tenants(library, connect):
    db = library
    namespace = f"ns{uuid.uuid4().hex[:6]}"
    register_described(db, "yak", "A yak in its own place.", namespace=namespace)
    assert (
        search(db, "yak", namespace=namespace) == ["yak"]
        and search(db, "yak", namespace="default") == []
        and search(db, "yak") == ["yak"]
    )
    other = connect()
    other.execute("SET skill_system.tenant = 'elsewhere'")
    assert search(other, "yak") == [] and search(other, "pdf") == []
    register_described(other, "yak", "Another yak with a secret.")
    assert search(other, "secret") == ["yak"] and search(db, "secret") == []
    other.execute("SELECT skill_system.set_skill_embedding('yak', '{1,0}')")
    assert search(other, None, embedding=[1, 0]) == ["yak"] and search(db, None, embedding=[1, 0]) == []


def test_roles(library, roles, connect):
    for role in roles:
        connection = connect(role)
        assert search(connection, "haiku")[0] == "haiku"
        if role in ("test_agent", "test_auditor"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("SELECT skill_system.set_skill_embedding('haiku', '{1}')")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO skill_system.skill_search (skill_id, document) VALUES (gen_random_uuid(), '')"
            )
    db = library
    db.execute("CREATE ROLE search_nobody LOGIN")
    try:
        with pytest.raises(errors.InsufficientPrivilege):
            search(connect("search_nobody"), "haiku")
    finally:
        db.execute("DROP ROLE search_nobody")
    # An auditor sees the rows of all tenants, and still finds only those of its tenant.
    register_described(db, "emu", "An emu.")
    connection = connect("test_auditor")
    assert search(connection, "emu") == ["emu"]
    connection.close()


def test_embeddings(library):
    db = library
    for name, embedding in (
        ("pdf-forms", [1, 0, 0]),
        ("tax-return", [0.9, 0.1, 0.0]),
        ("haiku", [0, 0, 5]),
        ("web-research", [-1, 0, 0]),
    ):
        assert db.execute("SELECT skill_system.set_skill_embedding(%s, %s)", [name, embedding]).fetchone() == (True,)
    assert search(db, None, embedding=[2.0, 0.01, 0.0]) == ["pdf-forms", "tax-return"]
    assert search(db, None, embedding=[0, 0, 1]) == ["haiku"]
    # Both rankings count.
    assert search(db, "tax", embedding=[1, 0, 0])[:2] == ["tax-return", "pdf-forms"]
    assert set(search(db, "pdf", embedding=[0, 0, 1])) >= {"haiku", "pdf-merge"}
    assert db.execute("SELECT skill_system.set_skill_embedding('haiku', '{0,0,5}')").fetchone() == (False,)
    with pytest.raises(errors.InvalidParameterValue) as told:
        search(db, None, embedding=[1, 2])
    assert "3" in told.value.diag.message_detail
    for bad in ("{}", "{0,0}", "{1,NaN}", "{1e300}", "{Infinity}", "{NULL}", "{1,NULL}"):
        with pytest.raises(errors.InvalidParameterValue):
            db.execute("SELECT skill_system.set_skill_embedding('haiku', %s::float8[])", [bad])
        with pytest.raises(errors.InvalidParameterValue):
            db.execute("SELECT * FROM skill_system.search_skills(NULL, embedding => %s::float8[])", [bad])
    # It belongs to the version: a new one has none, the old one has it again.
    register_described(db, "haiku", "Write short poems of seventeen syllables.")
    assert search(db, None, embedding=[0, 0, 1]) == []
    db.execute("SELECT skill_system.rollback_skill('haiku')")
    assert search(db, None, embedding=[0, 0, 1]) == ["haiku"]
    assert db.execute(
        "SELECT skill_system.set_skill_embedding('haiku', NULL), skill_system.set_skill_embedding('haiku', NULL)"
    ).fetchone() == (True, False)
    assert search(db, None, embedding=[0, 0, 1]) == []
    count = db.execute(
        "SELECT count(*) FROM skill_system.audit_logs WHERE event_type = 'skill.embedded' "
        "AND event_data->>'skill_name' = 'haiku'"
    ).fetchone()[0]
    assert count == 2
    with pytest.raises(psycopg.Error) as told:
        db.execute("SELECT skill_system.set_skill_embedding('nobody', '{1}')")
    assert told.value.sqlstate == "SK404"


def test_bodies_of_any_kind_are_indexed_without_a_word(db, connect):
    connection = connect()
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    texts = [
        "x" * 3000,
        "A" * 400_000,
        "ab-" * 100_000,
        " ".join(f"w{i}" for i in range(60_000)),
        "http://" + "a.b/" * 20_000,
        "日本" * 5000,
        "'\\" * 5000,
    ]
    for i, text in enumerate(texts):
        register_described(connection, f"wild-{i}", "wildebeest", text=text)
    assert notices == []
    assert len(search(connection, "wildebeest")) == len(texts)
