"""README and docs run as they stand: each page in its order, in a separate database, by psql and sh, without a driver.

    ```sql                 goes unchanged into the page's one psql session, with ON_ERROR_STOP
    ```sql error=42501     its last statement fails with this SQLSTATE, and nothing before it
    ```sh                  sh -e, in a scratch directory, skill-verify in the path; `sh status=1` ends with that status
    ```text                directly below one of these: what it printed. "..." stands for the rest of a line, or for lines
    ```console             cannot run here: another host, systemd, make
    ```json, ```python     material that is read only

A page that creates the extension gets an empty database, any other one with the extension and the starter policies.
Pages about keys and the whole server have a preloaded cluster to themselves, and the README runs there too.
"""

import contextlib
import os
import re
import subprocess
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import ROOT, open_connection
from psycopg import sql

from cluster import skill_verify_program

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<tag>[^`\n]*)\n(?P<text>.*?)^(?P=fence)$", re.M | re.S)
TAG = re.compile(r"sql( error=(?P<error>\w{5}))?|sh( status=(?P<status>\d))?|text|console|json|python")
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
RUN = [page for page in PAGES if re.search("^`{3,}(sql|sh)", (ROOT / page).read_text(), re.M)]
PRELOADED = ("README.md", "docs/operations.md", "docs/retention.md")
# Other pages hold no commands but are checked for links and words.
WRITTEN = [*PAGES, *sorted(path.name for path in ROOT.glob("*.md") if path.name != "README.md")]

Block = namedtuple("Block", "line kind error status text output")


def blocks(page):
    """The blocks of a page that run, each with the output that the page shows below it."""
    text = (ROOT / page).read_text()
    found, last = [], None
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        tag = TAG.fullmatch(fence["tag"])
        assert tag, f"{page} line {line}: unknown kind of block: {fence['tag']!r}"
        if fence["tag"] == "text" and last is not None and not text[last : fence.start()].strip():
            found[-1] = found[-1]._replace(output=fence["text"])
        kind = fence["tag"].split()[0] if fence["tag"] else ""
        last = None
        if kind in ("sql", "sh"):
            found.append(Block(line, kind, tag["error"], int(tag["status"] or 0), fence["text"], None))
            last = fence.end()
    return found


class Psql:
    """One psql session for a page, as somebody has it who copies block after block into it."""

    def __init__(self, environment):
        self.process = subprocess.Popen(
            ["psql", "-X", "-v", "ON_ERROR_STOP=1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    def run(self, text, may_fail):
        """What was printed, and the SQLSTATE of the last statement; None when psql has ended by an error."""
        stop = "off" if may_fail else "on"
        script = f"\\set ON_ERROR_STOP {stop}\n{text}\\echo\n\\echo @@end :SQLSTATE\n\\! true\n"
        timer = threading.Timer(120, self.process.kill)
        timer.start()
        printed = []
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(script)
                self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith("@@end "):
                    return "".join(printed)[:-1], line.split()[1]
                printed.append(line)
            return "".join(printed), None
        finally:
            timer.cancel()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)


def is_complete(text):
    """The last statement of a block ends; otherwise psql would wait for more, and a reader with it."""
    lines = [re.sub(r"\s*--\s.*$", "", line).strip() for line in text.splitlines()]
    last = [line for line in lines if line and not line.startswith("--")][-1]
    return last.endswith(";") or last.startswith("\\") or bool(re.search(r"\\g(set|x|exec)?\b", last))


def as_pattern(output):
    """What a page shows as a pattern: "..." is the rest of a line or, alone, any number of lines."""
    parts = []
    for line in output.rstrip().split("\n"):
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(re.escape(part) for part in line.rstrip().split("...")) + r"[ ]*\n")
    return "".join(parts)


def environment_of(server, database, skill_verify):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment.update(
        {name: server[name] for name in ("PGHOST", "PGPORT", "PGUSER")},
        PGDATABASE=database,
        PATH=f"{skill_verify.parent}:{environment['PATH']}",
        PAGER="cat",
        LC_ALL="C.UTF-8",
        PGCLIENTENCODING="UTF8",
        # As long as psql prints to nobody, notices are the page's only if it shows them.
        PGOPTIONS="-c client_min_messages=warning",
    )
    return environment


def run_page(page, server, database, skill_verify, scratch):
    environment = environment_of(server, database, skill_verify)
    psql = Psql(environment)
    try:
        for block in blocks(page):
            where = f"{page} line {block.line}"
            if block.kind == "sql":
                assert is_complete(block.text), f"{where}: the last statement does not end"
                printed, state = psql.run(block.text, block.error is not None)
                assert state is not None, f"{where}: {printed}"
                assert state == (block.error or "00000"), f"{where}: ended with {state}\n{printed}"
                errors = re.findall(r"^ERROR:", printed, re.M)
                assert len(errors) == (1 if block.error else 0), f"{where}: {printed}"
            else:
                done = subprocess.run(
                    ["sh", "-e", "-c", block.text],
                    cwd=scratch,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=120,
                )
                printed = done.stdout
                assert done.returncode == block.status, f"{where}: ended with {done.returncode}\n{printed}"
            if block.output is not None:
                shown = "".join(line.rstrip() + "\n" for line in printed.strip("\n").split("\n"))
                if not re.fullmatch(as_pattern(block.output), shown):
                    pytest.fail(f"{where}: the page does not show\n{shown}", pytrace=False)
    finally:
        psql.close()


@pytest.fixture(scope="module")
def skill_verify():
    return Path(skill_verify_program())


@contextlib.contextmanager
def database_for(page, server):
    """A database as the page expects it, and afterwards without it and the roles that the page made."""
    name = "docs_" + re.sub(r"\W", "_", page.lower())
    with open_connection(environment=server) as admin:
        before = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            if not any("CREATE EXTENSION skill_system" in block.text for block in blocks(page)):
                with open_connection(dbname=name, environment=server) as connection:
                    connection.execute("CREATE EXTENSION skill_system")
                    connection.execute("SELECT * FROM skill_system.install_starter_policies()")
            yield name
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for (role,) in admin.execute("SELECT rolname FROM pg_roles").fetchall():
                if role not in before and not role.startswith("skill_system_"):
                    admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
                    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("page", [page for page in RUN if page not in PRELOADED[1:]])
def test_page(page, skill_verify, tmp_path):
    with database_for(page, os.environ) as database:
        run_page(page, os.environ, database, skill_verify, tmp_path)


@pytest.mark.parametrize("page", PRELOADED)
def test_page_on_a_preloaded_server(page, new_cluster, skill_verify, tmp_path):
    server = new_cluster("shared_preload_libraries=skill_system", "max_worker_processes=16").environment
    with database_for(page, server) as database:
        run_page(page, server, database, skill_verify, tmp_path)


def test_the_pages_hold_blocks():
    """A change of the pattern or of the pages must not empty the test."""
    count = {page: len(blocks(page)) for page in PAGES}
    assert sum(count.values()) >= 90
    modules = set(re.findall(r"^(\w+)/", (ROOT / "sql/ORDER").read_text(), re.M))
    # What the module system has is on the page about operations.
    assert {page for page in PAGES if page.startswith("docs/tour/")} == {
        f"docs/tour/{module}.md" for module in modules - {"system"}
    }
    assert all(count[page] >= 4 for page in PAGES if page.startswith("docs/tour/"))
    for page in WRITTEN:
        if page == "SKILL.md":  # a skill's form is its readers', and its front matter has one line a field
            continue
        text = FENCE.sub("", (ROOT / page).read_text())
        assert "```" not in text, f"{page}: a fence that does not close"
        indented = re.findall(r"\n\n(    \S.*)", text)
        assert [line for line in indented if not re.match(r"\s+([-*]|\d+\.) ", line)] == [], page


def test_a_block_that_is_wrong_is_found():
    for wrong in ("SELECT 1", "SELECT 1 -- ;", "SELECT 1;\nSELECT 2"):
        assert not is_complete(wrong)
    assert is_complete("SELECT 1;   -- one\n-- two\n") and is_complete("SELECT 1 \\gset\n")
    assert TAG.fullmatch("sql error=42501") and TAG.fullmatch("sh status=1")
    assert not any(TAG.fullmatch(tag) for tag in ("", "bash", "sql error=4250", "sql  error=42501", "sh status=a"))
    assert re.fullmatch(as_pattern("a ... c\n...\nz\n"), "a b c\nx\ny\nz\n")
    assert not re.fullmatch(as_pattern("a\nz\n"), "a\ny\nz\n")


@pytest.mark.parametrize("page", WRITTEN)
def test_links(page):
    """What a page links to exists, headings too."""
    text = FENCE.sub("", (ROOT / page).read_text())
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, heading = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists():
            wrong.append(target)
        elif heading and heading not in headings(file.read_text()):
            wrong.append(target)
    assert wrong == []


def headings(text):
    """The names under which the headings of a page can be linked to."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_a_front_door():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    linked = "\n".join((ROOT / page).read_text() for page in ("README.md", "docs/README.md"))
    unreachable = [page for page in PAGES if page not in ("README.md",) and Path(page).name not in linked]
    assert unreachable == []


def test_the_reference_is_what_the_catalogue_says(db, database, tmp_path):
    subprocess.run([ROOT / "tools" / "reference.py", tmp_path], env={**os.environ, "PGDATABASE": database}, check=True)
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert set(written) == {"functions.md", "tables.md", "settings.md", "errors.md", "roles.md"}
    for name, text in written.items():
        assert (ROOT / "docs" / "reference" / name).read_text() == text, f"{name} is stale: run make docs"


def test_the_reference_names_everything(db):
    """Counted without the program that writes it."""
    reference = "".join(file.read_text() for file in sorted((ROOT / "docs" / "reference").glob("*.md")))
    names = db.execute(
        """SELECT DISTINCT p.proname::text FROM pg_proc p
               JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
               WHERE p.pronamespace = 'skill_system'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
           UNION SELECT relname::text FROM pg_class
               WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition"""
    ).fetchall()
    assert len(names) > 100
    assert [name for (name,) in sorted(names) if f"`{name}" not in reference] == []
    db.execute("SELECT skill_system.current_tenant()")
    settings = db.execute("SELECT name FROM pg_settings WHERE name LIKE 'skill_system.%'").fetchall()
    assert len(settings) >= 9
    assert [name for (name,) in settings if f"`{name}`" not in reference] == []


def test_the_page_of_skill_verify_has_what_its_help_has(skill_verify):
    told = subprocess.run([skill_verify, "--help"], capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs/skill-verify.md").read_text()
    calls = re.findall(r"^  (skill-verify .*)$", told, re.M)
    assert len(calls) == 8 and [call for call in calls if f"\n{call}\n" not in page] == []
    options = set(re.findall(r"--[a-z-]+", told))
    assert len(options) == 14 and [option for option in options if f"`{option}" not in page] == []
    assert re.findall(r"^  (\w*) +(\d)  ", told, re.M) == [
        (verdict, status) for status, verdict in re.findall(r"^\| (\d) \|(?: `(\w+)`)? \|", page, re.M)
    ]


def test_lines_are_not_too_long():
    """Tables and the generated pages are as wide as they are."""
    for page in WRITTEN:
        long = [
            number
            for number, line in enumerate((ROOT / page).read_text().splitlines(), 1)
            if len(line) > 140
            and not line.startswith(("|", "description:", "compatibility:"))
            and "reference/" not in page
        ]
        assert long == [], f"{page} lines {long}"
