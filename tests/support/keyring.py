"""The keyring's file, read and replaced as the user of the server, who owns it."""

from pathlib import Path

from cluster import as_server


def keyring_path(connection):
    data = connection.execute("SHOW data_directory").fetchone()[0]
    return Path(data) / load_library(connection).execute("SHOW skill_system.keyring_file").fetchone()[0]


def read_keyring(path):
    return as_server("cat", path)


def write_keyring(path, text, mode="600"):
    as_server(
        "sh", "-c", 'umask 077; cat > "$0.new" && chmod "$1" "$0.new" && mv -f "$0.new" "$0"', path, mode, input=text
    )


def load_library(connection):
    """The extension's settings are known to a session only once its library is loaded."""
    connection.execute("SELECT skill_system.current_tenant()")
    return connection
