# Shared by the scripts here; sourced, never run. Everything it prints goes to stderr.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/.build

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with the rights of the system's administrator.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else
        die "this needs root: $*  (run it as root, or install sudo)"
    fi
}

# Runs a command as the user a server may run as: initdb and postgres refuse root.
as_server() {
    if [ "$(id -u)" != 0 ]; then "$@"
    elif have runuser; then runuser -u postgres -- "$@"
    else su -s /bin/sh postgres -c 'exec "$0" "$@"' -- "$@"
    fi
}

# The major version, if it is one that the extension supports.
supported_major() {
    "$1" --version 2>/dev/null | sed -nE 's/^PostgreSQL (15|16|17|18)([^0-9].*)?$/\1/p'
}

# A pg_config whose server can be built for: its headers and its server are installed.
complete_server() {
    local headers bin
    [ -n "$(supported_major "$1")" ] || return 1
    headers=$("$1" --includedir-server 2>/dev/null) && bin=$("$1" --bindir 2>/dev/null) &&
        [ -f "$headers/postgres.h" ] && [ -x "$bin/initdb" ]
}

# Sets PG_CONFIG (absolute), pg_major, pg_bin. PG_CONFIG= chooses; else pg_config from the path, else the newest of
# Debian's servers.
find_server() {
    local candidate
    if [ "${PG_CONFIG:-pg_config}" != pg_config ]; then
        have "$PG_CONFIG" || return 1
        PG_CONFIG=$(command -v "$PG_CONFIG")
        case $PG_CONFIG in /*) ;; *) PG_CONFIG=$PWD/$PG_CONFIG ;; esac
    else
        PG_CONFIG=
        for candidate in "$(command -v pg_config)" /usr/lib/postgresql/{18,17,16,15}/bin/pg_config; do
            if [ -n "$candidate" ] && complete_server "$candidate"; then PG_CONFIG=$candidate; break; fi
        done
        [ -n "$PG_CONFIG" ] || return 1
    fi
    pg_major=$(supported_major "$PG_CONFIG")
    [ -n "$pg_major" ] || die "$PG_CONFIG is of $("$PG_CONFIG" --version | head -n 1), but skill_system needs PostgreSQL 15, 16, 17 or 18 (PG_CONFIG= chooses)"
    # shellcheck disable=SC2034 # the scripts use it
    pg_bin=$("$PG_CONFIG" --bindir)
    export PG_CONFIG
}

need_server() {
    find_server && complete_server "$PG_CONFIG" || die "no complete PostgreSQL 15 to 18 found; run tools/deps, or say where with PG_CONFIG=/path/to/pg_config"
}

# Where cargo puts what it builds with PROFILE.
# shellcheck disable=SC2034 # the scripts use both
target=${CARGO_TARGET_DIR:-$root/target}
# shellcheck disable=SC2034
profile=${PROFILE:-release}

version() { sed -n "s/^default_version = '\(.*\)'$/\1/p" "$root/skill_system.control"; }

# A rustup installation is not always in the path of a root shell or of CI.
find_cargo() {
    local pinned
    if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
    have cargo || return 1
    # rustup fetches the version of rust-toolchain.toml when it is missing; a cargo without rustup knows no other than itself.
    if ! (cd "$root" && cargo --version) >/dev/null 2>&1; then
        pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' "$root/rust-toolchain.toml")
        die "cargo does not start: rustup could not fetch Rust $pinned, which rust-toolchain.toml names; run: rustup toolchain install $pinned"
    fi
}

# A Rust version that satisfies Cargo.toml.
new_enough() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
    [ "$(printf '%s\n%s\n' "$wanted" "$1" | sort -V | head -n 1)" = "$wanted" ]
}

# cargo for the chosen server. The variable stays unset where .cargo/config.toml has the same path, because another spelling
# of the same path would make cargo build everything again.
cargo_for_server() {
    if [ "$PG_CONFIG" != "$(command -v pg_config)" ]; then export PGRX_PG_CONFIG_PATH=$PG_CONFIG; fi
    cargo "$@"
}

# A Python environment with exactly the packages of a file.
python_packages() { # directory, requirements file
    local wanted
    wanted=$(cksum < "$2")
    if [ "$(cat "$1/made-from" 2>/dev/null)" != "$wanted" ]; then
        say "Python packages of ${2#"$root"/}"
        rm -rf "$1"
        python3 -m venv "$1"
        "$1/bin/pip" install -q --disable-pip-version-check --no-input -r "$2" >&2
        echo "$wanted" > "$1/made-from"
    fi
}
test_packages() { python_packages "$work/venv" "$root/tests/requirements.txt"; }

# Builds with the profile of the tests, installs into a private copy of the server and chooses that one.
use_private_server() {
    export PROFILE=${PROFILE:-ci}
    "$root/tools/build"
    PG_CONFIG=$("$root/tools/private-server")
    need_server
    "$root/tools/install"
}

# A directory for a cluster: .build/NAME, or one in the temporary directory when the server's user cannot get there or
# the path of a socket would be too long (107 bytes; the tests' clusters are two directories deeper).
cluster_home() {
    local home=$work/$1 sum
    mkdir -p "$work"
    if ! as_server test -x "$work" || [ ${#home} -gt 72 ]; then
        sum=$(printf '%s' "$home" | cksum | cut -d' ' -f1)
        home=${TMPDIR:-/tmp}/skill_system_$sum
    fi
    printf '%s\n' "$home"
}
