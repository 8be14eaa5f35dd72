#!/usr/bin/env bash
# `make demo`: a cluster in .build/demo, a fresh database, and an agent's session in it. Leaves the cluster running.
set -euo pipefail
. "$(dirname "$0")/../tools/lib.sh"
cd "$root"

tools/build
tools/install
need_server
find_cargo
cargo build --release --quiet -p skill-verify
export SKILL_VERIFY=${CARGO_TARGET_DIR:-$root/target}/release/skill-verify

# The agent's own library, as the chapter on skills uses it.
if [ ! -x .build/demo-venv/bin/python ] || ! .build/demo-venv/bin/python -c 'import skills_runtime, psycopg' 2>/dev/null; then
    say "skills-runtime-sdk for the demo"
    rm -rf .build/demo-venv
    python3 -m venv .build/demo-venv
    .build/demo-venv/bin/pip install -q --disable-pip-version-check --no-input 'skills-runtime-sdk[all]==0.1.12' >&2
fi

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
cat demo/1-policy.sql demo/2-agent.sql demo/3-tampering.sql demo/4-look.sql demo/5-compliance.sql demo/6-skills.sql | psql -d demo 2>&1 || status=$?
if [ "$status" != 0 ]; then
    die "the demo did not go as it should (psql ended with $status); the database is left for you to look at: $pg_bin/psql -h $home -p $PGPORT -U postgres demo"
fi

# psql goes on when a program it calls fails.
[ -f .build/demo.found ] || die "skill-verify did not find what was changed"
grep -q '<name>well-report</name>' .build/demo-loaded.txt || die "skills-runtime-sdk did not load the skill"
[ -f .build/demo-filing.json ] || die "skill-verify did not accept the signed filing"

cat <<TEXT

The cluster is running. Look around:

    $pg_bin/psql -h $home -p $PGPORT -U postgres demo

    \\dx+ skill_system                                  what is in it
    \\df+ skill_system.check_policy                     every function says what it does
    SELECT * FROM skill_system.audit_logs;

Stop it with: make stop
TEXT
