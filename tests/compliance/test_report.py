"""The report as people see it: in a browser, in light and dark, on paper, and through a checker of accessibility."""

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

HOSTILE = (
    '"><script>document.title="pwned"</script><img src=x onerror="document.title=\'pwned\'"> {{ 7*7 }} ' + "W" * 300
)
AXE = Path(os.environ.get("SKILL_NODE_MODULES", ROOT / ".build" / "node" / "node_modules")) / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def report(db, database, tmp_path_factory):
    bin_dir = subprocess.run(
        [os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    done = subprocess.run(
        [f"{bin_dir}/psql", "-Xq", "-d", database, "-v", "entities=300", "-f", str(ROOT / "demo" / "texas.sql")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    checklist = db.execute(
        "SELECT checklist_id FROM skill_system.create_checklist('42-hostile' || %s, 'well', 'rule_37', %s, "
        "now() + interval '3 days', entity_district => '<b>')",
        [HOSTILE[:200], HOSTILE],
    ).fetchone()[0]
    db.execute("SELECT skill_system.add_artifact(%s, 0, 'document', %s, 'x')", [checklist, HOSTILE])
    db.execute(
        "SELECT skill_system.publish_rule('SWR_37', 'spacing', '2026-01-01', %s, 'manual', change_summary => %s)",
        [json.dumps({"min_distance_to_line_ft": 330, HOSTILE: HOSTILE}), HOSTILE],
    )
    html = db.execute("SELECT skill_system.compliance_report('html', %s)", [HOSTILE[:250]]).fetchone()[0]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html)
    return path


def opened(browser, path, **options):
    page = browser.new_context(**options).new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    # It needs nothing else.
    assert asked == [path.as_uri()]
    return page


def colours(png):
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return image.size, {colour for _, colour in image.getcolors(1 << 24)}


@pytest.mark.parametrize(
    "scheme,page_colour,overdue", [("light", (255, 255, 255), (255, 201, 196)), ("dark", (20, 23, 26), (110, 31, 26))]
)
@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_seen(browser, report, scheme, page_colour, overdue, width):
    page = opened(browser, report, color_scheme=scheme, viewport={"width": width, "height": 900})
    text = page.inner_text("body")
    for wanted in (
        "Districts",
        "Matrix",
        "Deadlines",
        "Stale rules",
        "Evidence",
        "rule_37",
        "form_pr",
        "overdue",
        "min_distance_to_line_ft: 467 → 330",
        "{{ 7*7 }}",
        "<script>document.title",
    ):
        assert wanted in text, wanted
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
        "the page is wider than the window"
    )
    outside = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg') &&
            e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName)"""
    )
    assert outside == []
    clipped = page.evaluate(
        """() => [...document.querySelectorAll('td, th, h1, h2, p, li')].filter(e => e.scrollWidth > e.clientWidth +
            1).map(e => e.textContent.slice(0, 40))"""
    )
    assert clipped == []
    size, found = colours(page.screenshot(full_page=True))
    assert size[1] > 1500 and page_colour in found and overdue in found
    assert page.locator("svg circle").count() > 20
    page.context.close()


def test_hostile_names_are_inert(browser, report):
    page = opened(browser, report)
    page.wait_for_timeout(300)
    assert page.title().startswith('"><script>') and page.title() != "pwned"
    assert page.locator("script, img, iframe, object, a, form").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !a.name.startsWith('on')))"
    )
    page.context.close()


def test_on_paper(browser, report):
    page = opened(browser, report)
    pdf = page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 1123})
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth + 1)"), (
        "a table is cut off on paper"
    )
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(browser, report, scheme):
    page = opened(browser, report, color_scheme=scheme)
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in result["violations"]] == []
    assert len(result["passes"]) > 20, "the checker hardly looked at anything"
    # It would find something.
    page.evaluate(
        "document.querySelector('h1').insertAdjacentHTML('afterend', '<div role=button></div>'); "
        "document.documentElement.removeAttribute('lang')"
    )
    assert {v["id"] for v in page.evaluate("axe.run()")["violations"]} >= {"html-has-lang"}
    page.context.close()


def test_an_empty_report(browser, db, fresh_database, connect, tmp_path):
    html = connect(dbname=fresh_database()).execute("SELECT skill_system.compliance_report()").fetchone()[0]
    path = tmp_path / "empty.html"
    path.write_text(html)
    page = opened(browser, path)
    assert "No entity has been assessed." in page.inner_text("body")
    page.context.close()
