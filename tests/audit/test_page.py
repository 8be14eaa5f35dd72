"""skill-verify export --html as an auditor sees it: in a browser, without a network, with hostile records."""

import base64
import json
import os
import re
import subprocess
import zlib
from pathlib import Path

import pytest
from conftest import ROOT

from cluster import bindir, skill_verify_program

AXE = Path(os.environ.get("SKILL_NODE_MODULES", ROOT / ".build" / "node" / "node_modules")) / "axe-core" / "axe.min.js"
HOSTILE = (
    '</script><script>document.title="pwned"</script><!-- <img src=x onerror="document.title=\'pwned\'"> '
    "{{ 7*7 }} \u202e\u2028 &lt; " + "W" * 300
)
# Two orders of keys, numbers that a double would change, more than is signed as it stands.
ODD = [
    "null",
    "[]",
    "{}",
    '"x"',
    "1.50",
    "-0.0",
    "12345678901234567890.1230",
    "1" * 300,
    "[" * 60 + "]" * 60,
    json.dumps(
        {"\uffff": 1, "\U0001f600": 2, "é": '\u0001\n"\\/', "b": [True, False, None, [[], {}]], "": {}, "aa": 1}
    ),
    json.dumps({"large": "ä" * 40_000}),
    json.dumps({HOSTILE: HOSTILE}),
]


@pytest.fixture(scope="module")
def log(db, database, tmp_path_factory):
    """The files of an auditor: the key, and two exports, of all records and of a part of them."""
    home = tmp_path_factory.mktemp("page")
    insert = "SELECT skill_system.append_audit(%s, %s, %s, 'agent')"
    db.execute(
        "SELECT skill_system.append_audit('made', jsonb_build_object('n', g), 'agent-' || g %% 7) "
        "FROM generate_series(1, 500) g",
        [],
    )
    middle = db.execute("SELECT clock_timestamp()::text").fetchone()[0]
    for value in ODD:
        db.execute(insert, ["odd", value, None])
    db.execute(insert, [HOSTILE[:100].strip(), "{}", HOSTILE[60:160]])
    db.execute("SELECT skill_system.append_audit('later', '{}') FROM generate_series(1, 300)")
    psql = [f"{bindir()}/psql", "-XAtqd", database, "-v", "FETCH_COUNT=100"]

    def fetch(name, *statements):
        commands = [word for statement in statements for word in ("-c", statement)]
        (home / name).write_bytes(subprocess.run([*psql, *commands], capture_output=True, check=True).stdout)

    fetch(
        "log.key", "SELECT FROM skill_system.seal_audit()", "SELECT verifier_key FROM skill_system.audit_public_key()"
    )
    fetch("whole", "SELECT * FROM skill_system.audit_export()")
    fetch("part", f"SELECT * FROM skill_system.audit_export(since => '{middle}')")
    return home


def written(log, export, *arguments, status=0, page="page.html"):
    command = [skill_verify_program(), "export", log / export, "--html", log / page, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return log / page


@pytest.fixture
def opened(browser):
    contexts = []

    def open_one(path, leaf=None, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.problems, asked = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(path.as_uri() + (f"#leaf={leaf}" if leaf is not None else ""))
        page.wait_for_selector("html[data-ready]", state="attached")
        # It needs nothing else.
        assert {url.split("#")[0] for url in asked} == {path.as_uri()}
        return page

    yield open_one
    for context in contexts:
        context.close()


def look_at(page, leaf):
    """The verdict over the record of this leaf."""
    page.evaluate(f"location.hash = '#leaf={leaf}'")
    page.wait_for_selector(f"#chosen:text-is('Leaf {leaf:,}')")
    return page.inner_text("#proven")


def violations(page):
    return page.evaluate(AXE.read_text() + "; axe.run(document, {resultTypes: ['violations']})")["violations"]


def lines(path):
    return path.read_text().rstrip("\n").split("\n")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_seen(log, opened, scheme, width):
    path = written(log, "whole", "--key", log / "log.key")
    page = opened(path, color_scheme=scheme, viewport={"width": width, "height": 900})
    count = len(lines(log / "whole")) - 2
    assert page.inner_text("#verdict") == "OK"
    assert page.inner_text("#signature") == "The root is signed by the key, verified in this browser"
    assert page.inner_text("#count") == f"1 to 50 of {count:,}"
    # A page of rows, not all of them.
    assert page.locator("#list a").count() == 50 and page.locator("body *").count() < 900
    page.click("#next")
    page.wait_for_selector(f"#count:text-is('51 to 100 of {count:,}')")
    page.fill("#search", "AGENT-3")
    page.wait_for_selector("#count:text-matches(' of 7[12]$')")
    page.fill("#search", "{{ 7*7 }}")
    page.wait_for_selector("#count:text-is('1 to 2 of 2')")
    page.fill("#search", "not anywhere")
    page.wait_for_selector("#count:text-is('no record')")
    page.fill("#search", "")
    page.select_option("#type", label="odd (12)")
    page.wait_for_selector("#count:text-is('1 to 12 of 12')")
    page.click("#list a >> nth=11")
    assert page.inner_text("#proven") == "Verified: computed from these values, it leads to the root"
    assert page.locator("svg rect.path").count() == page.locator(".steps li").count() + 1 >= 9
    text = page.inner_text("#record")
    # What cannot be seen is written out.
    assert HOSTILE.replace("\u202e\u2028", "\\u202e\\u2028") in text.replace('\\"', '"') and "root signed" in text
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('#list .data') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    page.wait_for_timeout(200)
    assert page.problems == [] and page.title() == "Audit records"
    assert violations(page) == []


def test_every_record_is_proven(log, opened):
    page = opened(written(log, "whole", "--key", log / "log.key"))
    rows = [json.loads(line) for line in lines(log / "whole")[1:-1]]
    odd = [row["leaf"] for row in rows if row["event_type"] not in ("made", "later")]
    assert len(odd) >= len(ODD) + 1
    for leaf in {0, 1, 254, 255, 256, 257, 511, 512, len(rows) - 1, *odd}:
        assert look_at(page, leaf).startswith("Verified: "), rows[leaf]
        assert rows[leaf]["id"] in page.inner_text("#record")
    assert page.problems == []
    assert "12345678901234567890.1230" in [look_at(page, leaf) and page.inner_text("pre") for leaf in odd]


def test_a_part_of_the_log(log, opened):
    page = opened(written(log, "part", "--key", log / "log.key"))
    leaves = [json.loads(line)["leaf"] for line in lines(log / "part")[1:-1]]
    assert leaves[0] >= 500 and leaves[0] % 256
    for leaf in (leaves[0], leaves[5], leaves[-1]):
        assert look_at(page, leaf).startswith("Verified: ")
    page.evaluate("location.hash = '#leaf=3'")
    page.wait_for_selector("#record:has-text('This page has no record of leaf 3.')")


def test_without_a_key_or_with_another(log, opened):
    page = opened(written(log, "part", status=3))
    assert page.inner_text("#verdict") == "INCOMPLETE"
    assert page.inner_text("#signature") == "No key was given: nothing shows whose checkpoint it is"
    assert violations(page) == []
    origin, _, key = (log / "log.key").read_text().strip().split("+", 2)
    other = base64.b64encode(b"\x01" + bytes(range(32))).decode()
    forged = subprocess.run(
        ["sha256sum"], input=origin.encode() + b"\n" + base64.b64decode(other), capture_output=True, check=True
    ).stdout[:8]
    page = opened(written(log, "part", "--key", f"{origin}+{forged.decode()}+{other}", status=1))
    assert page.inner_text("#verdict") == "TAMPERED"
    assert page.inner_text("#signature") == "The root is not signed by the key" and key != other


def test_a_changed_export(log, opened):
    text = (log / "whole").read_text()
    (log / "changed").write_text(text.replace('{"n": 77}', '{"n": 78}', 1))
    page = opened(written(log, "changed", "--key", log / "log.key", status=1))
    assert page.inner_text("#verdict") == "TAMPERED"
    page.click("summary")
    assert "root_differs" in page.inner_text("#findings")
    assert look_at(page, 0) == "Not verified: the hashes do not give the root of the checkpoint"
    assert violations(page) == []


def test_a_record_that_is_gone(log, opened, db):
    all_lines = lines(log / "whole")
    at = next(i for i, line in enumerate(all_lines) if '{"n": 300}' in line)
    gone = json.loads(all_lines[at])
    leaf_hash = db.execute("SELECT leaf_hash FROM skill_system.audit_leaves(%s, 1)", [gone["leaf"]]).fetchone()[0]
    all_lines[at] = json.dumps(
        {"leaf": gone["leaf"], "id": gone["id"], "missing": True, "hash": base64.b64encode(leaf_hash).decode()}
    )
    (log / "gone").write_text("\n".join(all_lines) + "\n")
    page = opened(written(log, "gone", "--key", log / "log.key", status=1), gone["leaf"])
    page.wait_for_selector("#proven")
    assert page.inner_text("#proven") == "Gone: only its hash leads to the root"
    assert look_at(page, gone["leaf"] - 1).startswith("Verified: ")


def test_a_page_that_was_changed(log, opened):
    """What is in the page proves nothing by itself: the records of the changed chunk no longer lead to the root."""
    path = written(log, "whole", "--key", log / "log.key")
    text = path.read_text()
    chunk = re.search(r'id="c0">([^<]+)<', text)[1]
    records = zlib.decompress(base64.b64decode(chunk), -15)
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(records.replace(b'{"n": 77}', b'{"n": 78}')) + packer.flush()
    path.write_text(text.replace(chunk, base64.b64encode(packed).decode()))
    page = opened(path)
    assert look_at(page, 10) == "Not verified: the hashes do not give the root of the checkpoint"
    # The others use the hash that came along.
    assert look_at(page, 300).startswith("Verified: ")


def test_the_page_holds_no_value_outside_of_its_data(log):
    text = written(log, "whole", "--key", log / "log.key").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert (
        "pwned" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https:" not in text
    )
    assert len(re.findall("<script>", text)) == 1


def test_what_cannot_be_written(log):
    def call(*arguments):
        done = subprocess.run(
            [skill_verify_program(), "export", *arguments, "--key", log / "log.key"], capture_output=True, text=True
        )
        return done.returncode, done.stderr

    status, error = call("-", "--html", log / "x")
    assert status == 2 and "--html reads the export twice: standard input will not do" in error
    status, error = call(log / "whole", "--html", log / "no" / "x")
    assert status == 2 and "could not write the page: No such file" in error
    # A page is there whole or not at all.
    (log / "folder").mkdir()
    before = sorted(log.iterdir())
    status, error = call(log / "whole", "--html", log / "folder")
    assert status == 2 and "could not write the page: Is a directory" in error and sorted(log.iterdir()) == before
    (log / "broken").write_text("x\n")
    assert call(log / "broken", "--html", log / "none")[0] == 2 and not (log / "none").exists()
