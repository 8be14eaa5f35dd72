"""run_page(): a run as people see it in a browser."""

import io
import json

import psycopg
import pytest
from PIL import Image

HOSTILE = '"><script>document.title="pwned"</script>{{ 7*7 }}'
STEPS = [("fetch", "ok", 2000, 0.25), ("parse", "error", 500, None), (HOSTILE, "ok", 40, 0.125)]


@pytest.fixture(scope="module")
def run(db, roles):
    db.execute("SELECT * FROM skill_system.install_starter_policies()")
    run = db.execute(
        "SELECT skill_system.start_run(%s, policy_name => 'locked', agent_id => 'writer')", [HOSTILE]
    ).fetchone()[0]
    for skill, status, duration, cost in STEPS:
        metrics = {"gen_ai.request.model": "m1", "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 7}
        db.execute(
            "SELECT skill_system.log_step(%s, %s, 'run', %s, %s, metrics => %s)",
            [run, skill, status, duration, json.dumps(metrics | ({"cost_usd": cost} if cost else {}))],
        )
    db.execute("SELECT skill_system.log_event(%s, 'approval_asked', %s)", [run, json.dumps({"of": HOSTILE})])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("SELECT skill_system.enforce_policy('locked', '{fs.write:/etc/passwd}')")
    db.execute("SELECT skill_system.finish_run(%s, 'failed', 'no more paper')", [run])
    return run


def page_of(connection, run):
    return connection.execute("SELECT skill_system.run_page(%s)", [run]).fetchone()[0]


def opened(browser, tmp_path, html, **options):
    path = tmp_path / "run.html"
    path.write_text(html)
    page = browser.new_context(**options).new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert asked == [path.as_uri()]
    return page


@pytest.mark.parametrize("scheme, failed", [("light", (255, 201, 196)), ("dark", (110, 31, 26))])
@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_seen(browser, tmp_path, connect, run, scheme, failed, width):
    page = opened(
        browser,
        tmp_path,
        page_of(connect("test_auditor"), run),
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
    )
    text = page.inner_text("body")
    for wanted in (
        f"Run {run}",
        "agent writer",
        "Policy locked, version 1",
        "no more paper",
        "3\nsteps, 1 failed",
        "300\ninput tokens",
        "21\noutput tokens",
        "$0.3750",
        "2.0 s",
        "approval_asked",
        "fs.write:/etc/passwd",
        "{{ 7*7 }}",
    ):
        assert wanted in text, wanted
    assert page.title() != "pwned" and page.locator("script, img, iframe, object, a, form").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    bars = page.locator(".bar").all()
    widths = [bar.bounding_box()["width"] for bar in bars]
    assert len(bars) == 3 and widths[0] > 3 * widths[1] > widths[2] >= 3
    image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    assert failed in {colour for _, colour in image.getcolors(1 << 24)}
    page.context.close()


def test_an_agent_is_told_that_denials_are_elsewhere(connect, run):
    html = page_of(connect("test_agent"), run)
    assert "may not read" in html and "/etc/passwd" not in html


def test_long_lists_are_cut_and_counted(db, connect):
    run = db.execute("SELECT skill_system.start_run('long')").fetchone()[0]
    db.execute(
        "SELECT skill_system.log_events(%s, (SELECT jsonb_agg(jsonb_build_object('event_type', t, 'payload', p)) FROM "
        "generate_series(1, 600), (VALUES ('note', '{}'::jsonb), ('step_completed', '{\"skill\": \"s\"}')) v(t, p)))",
        [run],
    )
    db.execute("SELECT skill_system.log_event(%s, 'large', jsonb_build_object('a', repeat('x', 8000000)))", [run])
    html = page_of(connect("test_agent"), run)
    assert "The first 500 of 600" in html and "The first 500 of 601" in html and len(html) < 500_000
    assert "Without a policy" in html


def test_an_unknown_run_is_an_error(connect):
    with pytest.raises(psycopg.errors.UndefinedObject):
        page_of(connect("test_agent"), 987654321)
