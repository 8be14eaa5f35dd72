#!/usr/bin/env bash
# `make demo`: a cluster in .build/demo, a fresh database, and an agent's session in it. Leaves the cluster running.
# Installs into a private copy of the server, so the system's stays as it is.
set -euo pipefail
# Without link-time optimization, which a demonstration does not need; the tests share what is built.
export PROFILE=${PROFILE:-ci}
. "$(dirname "$0")/../tools/lib.sh"
cd "$root"
mkdir -p "$work"

# Runs a command with one line of progress; its output is shown when it fails.
quietly() { # what it does, command
    local what=$1 begin=$SECONDS log=$work/demo.log
    shift
    "$@" > "$log" 2>&1 < /dev/null &
    while kill -0 $! 2>/dev/null; do
        if [ -t 2 ]; then
            printf '\r== %s: %d s, %d crates compiled ' "$what" $((SECONDS - begin)) "$(grep -c '^ *Compiling ' "$log")" >&2
        fi
        sleep 0.5
    done
    wait $! || { tail -n 40 "$log" >&2; die "$what: failed; all output is in $log"; }
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
    say "$what: $((SECONDS - begin)) s"
}

python() { # the agent's library, which the chapter on skills uses
    python_packages "$work/demo-venv" "$root/demo/requirements.txt"
}

# In the foreground, as sudo may ask for a password.
if ! tools/deps > "$work/demo.log" 2>&1; then cat "$work/demo.log" >&2; exit 1; fi
find_cargo
say "building; the first time takes some minutes"
# In one call: what the two share is built once.
quietly "extension and skill-verify" tools/build -p skill_system -p skill-verify
quietly "Python packages of the agent" python
PG_CONFIG=$(tools/private-server)
need_server
quietly "private copy of PostgreSQL $pg_major" tools/install
export SKILL_VERIFY=$target/$profile/skill-verify

rm -f .build/demo-loaded.txt
home=$(cluster_home demo)
tools/cluster destroy "$home"
environment=$(tools/cluster start "$home" shared_preload_libraries=skill_system)
eval "$environment"
export PAGER=cat PSQLRC=/dev/null LC_ALL=C

psql() { "$pg_bin/psql" -X -q -v ON_ERROR_STOP=1 "$@"; }
PGOPTIONS='-c client_min_messages=warning' psql <<'SQL'
DROP DATABASE IF EXISTS demo WITH (FORCE);
CREATE DATABASE demo TEMPLATE template0;
SQL

# From stdin, so that errors that are the point come without a file name. \ir would do the opposite.
status=0
cat demo/1-policy.sql demo/2-agent.sql demo/3-tampering.sql demo/4-look.sql demo/5-compliance.sql demo/6-skills.sql |
    psql -d demo 2>&1 || status=$?
if [ "$status" != 0 ]; then
    die "the demo failed (psql ended with status $status); its database still runs: $pg_bin/psql -h $home -p $PGPORT -U postgres demo"
fi

# psql goes on when a program it calls fails.
[ -f .build/demo.found ] || die "skill-verify did not find the changed records"
grep -q '<name>well-report</name>' .build/demo-loaded.txt || die "skills-runtime-sdk did not load the skill"
[ -f .build/demo-filing.json ] || die "skill-verify did not accept the signed filing"

cat <<TEXT

The demo took $((SECONDS / 60)) min $((SECONDS % 60)) s. Its cluster is running. Look around:

    $pg_bin/psql -h $home -p $PGPORT -U postgres demo

    \\dx+ skill_system                                  what is in it
    \\df+ skill_system.check_policy                     each function has a description
    SELECT * FROM skill_system.audit_logs;

The compliance report is .build/demo-report.html; demo/picture makes a PNG of it. make stop stops the cluster.
TEXT
