"""Fixtures of several test files; tests/conftest.py imports them.

orphans     servers killed during the test are reaped by it
copies      copies(cluster) is a server on a copy of that cluster's files (standby.Copy), destroyed at the end of the
test
browser     Chromium, driven by Playwright
pair        a cluster with the database "governed", and its streaming hot standby
"""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from cluster import adopt_orphans, governed
from standby import Copy


@pytest.fixture
def orphans():
    adopt_orphans(True)
    yield
    adopt_orphans(False)


@pytest.fixture
def copies():
    created = []

    def create(cluster):
        created.append(Copy(cluster))
        return created[-1]

    yield create
    for copy in created:
        copy.destroy()


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    assert program, "no Chromium: tools/deps tests installs it"
    with sync_playwright() as playwright:
        # Root, as in CI containers, cannot have the sandbox.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def pair(new_cluster, copies):
    primary = new_cluster()
    with governed(primary) as connection:
        connection.execute("SELECT * FROM skill_system.install_starter_policies()")
        connection.execute("SELECT skill_system.log_run('skill', 'op', 'ok', 5)")
    return primary, copies(primary).backup(primary, "-R").start("hot_standby=on")
