# dwh_ext: build, install, demo, tests.
#   make PG_CONFIG=..., make install PG_CONFIG=..., make installcheck PG_CONFIG=...    as for any extension
#   make demo, make test, make bench                           install what is missing and do the rest
# The control file is the only place that knows the version.

EXTENSION = dwh_ext
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" dwh_ext.control)
MODULE_big = dwh_ext

# The floors of src/README.md; a file includes only floors below its own (test/lint/run).
WORDS = src/reject.o src/guc.o
BYTES = src/buffer.o src/arena.o src/lines.o src/decimal.o src/rfc3339.o src/json.o src/digest.o src/event.o \
        src/flat.o src/batch.o src/parser.o src/faults.o src/stream.o
ROWS  = src/memory.o src/warehouse.o src/paths.o src/source.o src/ledger.o src/content.o src/parse_ahead.o \
        src/payload.o src/long_line.o src/line_payload.o src/typed.o src/typed_store.o src/index_entries.o \
        src/writer.o src/rejects.o src/raw_rows.o src/event_filter.o src/partition_writer.o src/stage_chunk.o src/evidence.o \
        src/claims.o src/judgement.o src/examination.o src/line_sink.o src/load.o src/load_set.o
VERBS = src/load_jsonl.o src/examine.o src/parse_line.o src/parse_event.o src/stage_load.o src/last_known.o src/generate_events.o \
        src/fill_event_filter.o src/make_partition.o src/write_facts.o src/line_bytes.o src/internal.o src/dwh_ext.o
OBJS = $(WORDS) $(BYTES) $(ROWS) $(VERBS)

SQL_MODULES = $(sort $(wildcard sql/[0-9][0-9]_*.sql))
SCRIPT = dwh_ext--$(EXTVERSION).sql
DATA_built = $(SCRIPT)
EXTRA_CLEAN = $(SCRIPT) META.json

PG_CPPFLAGS = -Isrc
PG_CFLAGS = -std=gnu11
SHLIB_LINK = -lyyjson -lz -lzstd -lcrypto -pthread

REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --outputdir=test/results --encoding=UTF8
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=test/results --encoding=UTF8

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

# These two install what is missing first, so they must work where there is no pg_config yet.
ifeq ($(PGXS),)
all install:
	@echo "pg_config was not found: install the server-dev package of PostgreSQL and give PG_CONFIG=/path/to/pg_config, or run make demo" >&2; exit 1
else
include $(PGXS)

$(OBJS): $(wildcard src/*.h) Makefile
$(SCRIPT): $(SQL_MODULES) dwh_ext.control
	cat $(SQL_MODULES) > $@
all: META.json
META.json: META.json.in dwh_ext.control
	sed 's/@VERSION@/$(EXTVERSION)/' $< > $@
endif

demo demo-stop test docs bench:
	@test/machine/$@

.PHONY: demo demo-stop test docs bench
