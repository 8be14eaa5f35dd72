# skill_system: `make demo` shows it, `make test` proves it, `make install` installs it.
# PG_CONFIG=/path/to/pg_config chooses the server; DESTDIR= is for packagers.

PG_CONFIG ?= pg_config
export PG_CONFIG DESTDIR
unexport MAKEFLAGS MFLAGS

all:
	@tools/build

install: all
	@tools/install

# Against the running server that PGHOST, PGPORT and PGUSER name, with the extension installed.
installcheck:
	@tools/installcheck

# Formatters, linters, lengths of lines, licences: what needs no running server.
check:
	@tools/check

# psql in a database that has the extension as it stands here, in a private copy of the server.
dev:
	@tools/dev

# One test: make t T=policy (a regression test), make t T=tests/runs/test_runs.py::test_name (pytest). T is one argument, as
# a test's name may hold blanks and brackets; tools/t takes more.
t:
	@tools/t '$(subst ','\'',$(value T))'

# Everything, in throw-away clusters. This is what CI runs.
test:
	@tests/run

# Of it only the tests that are marked long.
test-long:
	@tests/run long

# The release build: regression tests and a smoke test.
test-release:
	@tests/run release

# The same on PostgreSQL 17 and 18, in Debian chroots, and the regression tests on 16. Needs root.
test-servers:
	@tools/other-servers

demo:
	@demo/demo.sh

# The audit trail under kill -9, restarts and moves to other servers. CHAOS_MINUTES=120 for two hours.
chaos:
	@tests/chaos/run

# docs/reference, from the comments of the catalogue.
docs:
	@tools/docs

# In a separate cluster. BENCH="audit policy" chooses sections.
bench:
	@tools/bench $(BENCH)

# Stops the clusters that demo, dev and t leave running.
stop:
	@tools/stop

clean: stop
	@tools/clean

.PHONY: all install installcheck check dev t test test-long test-release test-servers chaos demo bench docs stop clean
