# Everything a person or CI does with this project. `make` alone lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test cover check format lint vet race tidy bench bench-peers fuzz mutate stock-goka test-kafka test-postgres test-browser check-api check-deploy chaos vulnerable build release check-release

GO ?= go
TOOL := $(GO) tool -modfile=.ci/tools/go.mod
FUZZTIME ?= 30s
BENCH ?= .
CHAOS ?= TestCampaign|TestSeeds|TestProcesses$$|TestZombie|TestGaps
FAULTS ?= 150

help: ## list what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## the whole flow in one process, fed by a week of real flights; ARGS="--data-dir .data" and others pass on
	$(GO) run ./cmd/klgstream dev $(ARGS)

test: ## all tests; those that need a server not found here are skipped, loudly
	$(GO) test -timeout 30m ./...

cover: ## test coverage per package
	$(GO) test -cover ./processors/... ./codecs/... ./views/... ./cmd/... | awk '$$1 == "ok"'

check: format vet lint race tidy ## format, vet, lint, race detector, tidy go.mod

format: ## fail if a file is not formatted
	$(TOOL) golangci-lint fmt --diff ./...

vet:
	$(GO) vet ./...
	$(GO) vet -tags stockgoka ./processors/engine

lint: ## the laws and habits in .golangci.yml
	$(TOOL) golangci-lint run ./...

race: ## all tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race ./...

tidy: ## fail if go.mod or go.sum are not tidy
	$(GO) mod tidy -diff
	$(GO) -C .ci/tools mod tidy -diff

bench: ## benchmarks; BENCH=regexp chooses, compare two outputs with: go tool -modfile=.ci/tools/go.mod benchstat
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

bench-peers: ## klgstream, Apache Flink and Kafka Streams side by side on a real Kafka (needs Java and Maven); ARGS="--events=20000000 --rounds=3"
	deploy/bench/run.sh $(ARGS)

fuzz: ## every fuzz target for FUZZTIME (30s)
	.ci/fuzz $(FUZZTIME)

mutate: ## break PACKAGE (./processors/window) in every way gremlins knows, and tell what no test notices; ARGS="-files session"
	$(GO) run ./.ci/mutate $(ARGS) $(or $(PACKAGE),./processors/window)

stock-goka: ## show that goka as it comes loses, doubles and hangs where the engine does not
	$(GO) test -count=1 -tags stockgoka -run 'Stock' -v ./processors/engine

test-kafka: ## the tests that want a real Apache Kafka (needs Java and Maven)
	KLGSTREAM_REQUIRE_KAFKA=1 $(GO) test -count=1 -run 'Kafka' -v ./deploy/devstack/... ./cmd/... ./processors/... | .ci/ran

test-postgres: ## the tests that want a real PostgreSQL (needs its server programs; root, to fill a disk of its own)
	KLGSTREAM_REQUIRE_POSTGRES=1 $(GO) test -count=1 -v ./views ./views/risingwave ./views/sink ./views/sqlite | .ci/ran

test-browser: ## the tests of the page (needs Chromium)
	KLGSTREAM_REQUIRE_BROWSER=1 $(GO) test -count=1 -v -run 'Browser|Page' ./views/httpapi/... | .ci/ran

check-api: ## the running API held to its OpenAPI document by schemathesis (needs Python 3); ARGS="--max-examples=500 --seed=1"
	.ci/api $(ARGS)

vulnerable: ## known vulnerabilities in what this program can call (asks Go's vulnerability database)
	.ci/vulnerable

check-deploy: ## everything below deploy held to the real binary: compose, Kubernetes, systemd, alerts, dashboards, documents
	$(GO) -C deploy/checks test -timeout 30m ./...

chaos: ## break everything FAULTS (150) times, and compare every window with the input log; CHAOS=regexp chooses
	KLGSTREAM_CHAOS_FAULTS=$(FAULTS) $(GO) test -count=1 -timeout 60m -v -run '$(CHAOS)' ./deploy/devstack/chaos | .ci/ran

build: ## a static binary in .bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o .bin/klgstream ./cmd/klgstream

VERSION ?= $(shell git describe --tags --always --dirty)
release: ## binaries for Linux and macOS, amd64 and arm64, with manual, completions, modules and checksums, in .bin/release; VERSION=v1.2.3
	.ci/release '$(VERSION)' .bin/release

check-release: ## make a release twice, in two directories with two caches, and compare every byte
	.ci/release-check
