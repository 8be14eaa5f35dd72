"""What a session is refused."""

import psycopg
import pytest


def refused(connection, sqlstate, statement, arguments=()):
    """The statement raises this SQLSTATE. Returns the error."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(statement, arguments)
    assert caught.value.sqlstate == sqlstate, (caught.value.sqlstate, str(caught.value))
    return caught.value
