# build   bin/curfew, static, without cgo
# demo    the whole story, with a real PostgreSQL and psql, then a real MariaDB and mariadb, in about a minute
# test    everything: format, vet, unit tests, the race detector where there is a C compiler, the stories in e2e
# lint    format and vet
# matrix  the engines' tests and the stories on PostgreSQL 14 to 18, MariaDB 10.11 and 11.8 and MySQL 9: ONLY=postgres-17, SUITES=protocol
# fuzz    every fuzz target for FUZZTIME: ONLY=protocol/mysql, ONLY=FuzzStory, JOBS at a time
# bench   what Curfew costs beside HAProxy and pgbouncer: QUICK=1, ONLY=rows, ROUNDS, SECONDS (docs/PERFORMANCE.md)
# soak    a thousand idle and a hundred busy sessions for DURATION (10m), with accidents, and what must hold after it
# dex     logins at Dex, a second provider, which asserts no MFA: apart, because Dex takes long to build
# screenshot  docs/img/decision.png, from the page itself in Chromium
# units   the benchmarks of single packages

FUZZTIME ?= 30s
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Stories mostly wait: more of them than there are cores run side by side.
# The race detector needs cgo; the product never does. What allocates is counted without it, and
# what takes many megabytes, and the many stories of the desk's models, are tested without it.
RACE     := $(shell command -v gcc >/dev/null && echo CGO_ENABLED=1)

.PHONY: build demo test lint matrix fuzz bench soak dex screenshot units deps

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/curfew ./cmd/curfew

demo: deps build
	cd e2e && CGO_ENABLED=0 go run ./cmd/demo -curfew ../bin/curfew

test: deps lint
	$(if $(RACE),$(RACE) go test -race -timeout 10m ./...,go test -timeout 10m ./...)
	CGO_ENABLED=0 go test -run 'Allocat|FrameBoundary|Model' ./recorder ./protocol/postgres ./protocol/mysql ./control
	cd e2e && CGO_ENABLED=0 go test -parallel 8 -timeout 10m ./...

# One server at a time; servers are fetched once, and kept in the user's cache.
matrix: deps
	cd e2e && CGO_ENABLED=0 go run ./cmd/matrix $(if $(ONLY),-only '$(ONLY)') $(if $(SUITES),-suites '$(SUITES)')

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-clean:" $$unformatted; exit 1; }
	go vet ./...
	go vet -tags crash ./cmd/curfew
	cd e2e && go vet ./...

# JOBS targets at a time, each with one process that works. What takes longer than 10 s counts as hung: no more
# of them than there are cores, or a busy machine is taken for a finding.
JOBS ?= 1
fuzz:
	@git grep -n '^func Fuzz' -- '*_test.go' | sed 's|/[^/]*:[0-9]*:func \(Fuzz[A-Za-z0-9_]*\).*| \1|' | grep -E -- '$(ONLY)' | \
	  xargs -P $(JOBS) -L 1 sh -c 'if said=$$(go test -run "^$$" -fuzz "^$$1\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $(if $(filter-out 1,$(JOBS)),-parallel 1) ./$$0 2>&1); \
	    then echo "$$1 in $$0: $$(echo "$$said" | grep -o "execs: [0-9]*" | tail -n 1)"; \
	    else echo "$$said" | grep -v "^fuzz: elapsed"; echo "$$1 in $$0: FOUND SOMETHING"; exit 1; fi'

bench: build
	@.ci/deps bench
	cd e2e && CGO_ENABLED=0 go build -trimpath -o ../bin/bench ./cmd/bench && CURFEW_BIN=$(CURDIR)/bin/curfew ../bin/bench

DURATION ?= 10m
CRASHES  ?= 0
soak: deps build
	cd e2e && CGO_ENABLED=0 go build -trimpath -o ../bin/soak ./cmd/soak && ../bin/soak -curfew $(CURDIR)/bin/curfew -duration $(DURATION) -crashes $(CRASHES)

dex: deps
	cd e2e && CGO_ENABLED=0 go test -tags dex -count=1 ./dex

screenshot: deps
	mkdir -p docs/img
	cd e2e && CURFEW_SCREENSHOT=$(CURDIR)/docs/img/decision.png CGO_ENABLED=0 go test -count=1 -run '^TestPageByKeyboard$$' .

units:
	CGO_ENABLED=0 go test -run '^$$' -bench . -benchmem ./...

deps:
	@.ci/deps
