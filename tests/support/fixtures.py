"""Fixtures of several test files; tests/conftest.py imports them.

orphans     servers killed during the test are reaped by it
copies      copies(cluster) is a server on a copy of that cluster's files (standby.Copy), destroyed at the end of the
test
pair        a cluster with the database "governed", and its streaming hot standby
"""

import pytest

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


@pytest.fixture
def pair(new_cluster, copies):
    primary = new_cluster()
    with governed(primary) as connection:
        connection.execute("SELECT * FROM skill_system.install_starter_policies()")
        connection.execute("SELECT skill_system.log_run('skill', 'op', 'ok', 5)")
    return primary, copies(primary).backup(primary, "-R").start("hot_standby=on")
