# Weir. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

GO ?= go
# Tools are pinned there, apart from the module's own dependencies.
TOOL := $(GO) tool -modfile=hack/tools/go.mod

# One package's tests at most; the kill and load tests are the long ones.
TEST_TIMEOUT ?= 20m
# `make test PKG=./internal/stream/... TESTFLAGS='-run Commit -v'` narrows it.
PKG ?= ./...
TESTFLAGS ?=
# Time for each fuzz target of `make fuzz`; FUZZ narrows by target name (a regular expression).
FUZZTIME ?= 10m
FUZZ ?= ^Fuzz

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install PostgreSQL, PgBouncer and curl if they are missing
	@hack/install-deps.sh

.PHONY: deps-test
deps-test: ## the same, a C compiler for the race detector, and Chromium
	@hack/install-deps.sh --test

# Built and exec'd instead of `go run`: a SIGTERM to make reaches it.
.PHONY: run
run: deps ## run all of it locally, with the orders sample, until Ctrl-C (WEIR_LISTEN=host:port)
	@echo "==> Building hack/run"
	@$(GO) build -o bin/run ./hack/run && exec bin/run

.PHONY: clean-data
clean-data: ## remove the data of make run
	@$(GO) build -o bin/run ./hack/run && exec bin/run -clean

.PHONY: build
build: ## build every binary into bin/
	@mkdir -p bin
	$(GO) build ./...
	$(GO) build -o bin/ $$($(GO) list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./cmd/... ./services/...)

.PHONY: tools
tools: ## build the pinned helm, kubectl, prometheus, exporters and versitygw (the tests' S3) into bin/
	@hack/tools/kube/install.sh
	@hack/tools/prometheus/install.sh
	@hack/tools/exporters/install.sh
	@hack/tools/s3/install.sh

.PHONY: test
test: deps-test tools ## everything, with the race detector and the real parts
	$(GO) test -race -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(PKG)

.PHONY: lint
lint: ## golangci-lint, and shellcheck if it is there
	$(TOOL) golangci-lint run ./...
	@if command -v shellcheck >/dev/null; then shellcheck -x hack/*.sh hack/tools/*/*.sh hack/cluster/*.sh hack/cluster/lib/*.sh hack/cluster/node/*.sh hack/cluster/images/postgres/entrypoint.sh .ci/run; else echo "lint: shellcheck is not installed; the shell scripts are not checked"; fi

.PHONY: fmt
fmt: ## format all Go code
	$(TOOL) golangci-lint fmt ./...

.PHONY: generate
generate: ## write what is generated
	hack/update-codegen.sh

.PHONY: verify
verify: ## check that what is generated is up to date
	@for script in hack/verify-*.sh; do echo "==> $$script"; "$$script" || exit 1; done

.PHONY: images
images: ## build all container images into bin/images (IMAGES='--repo registry/weir --tag v1 --push')
	$(GO) run ./hack/images $(IMAGES)

.PHONY: cluster-up
cluster-up: ## start a throw-away Kubernetes with Knative, from source (root; Debian)
	hack/cluster/cluster.sh up

.PHONY: cluster-down
cluster-down: ## end it
	hack/cluster/cluster.sh down

.PHONY: e2e
e2e: ## test/e2e in the throw-away cluster, or with E2E_KUBECONFIG and E2E_IMAGES in yours
	hack/e2e.sh

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (default 10m), one after the other
	@hack/fuzz.sh '$(FUZZ)' '$(FUZZTIME)'

.PHONY: soak
soak: deps-test tools ## the long sizes of what the tests cut short: kills, power cuts, 10,000 scripts against the model of jobs; hours
	WEIR_LONG=1 $(GO) test -count=1 -timeout 4h -v -run '^TestModel$$' ./internal/job
	WEIR_LONG=1 $(GO) test -race -count=1 -timeout 8h ./internal/realtime ./test/chaos

.PHONY: bench
bench: deps ## measure; ONLY=ingest,drain,latency and ROUNDS=5 narrow it; writes bench/latest.json
	$(GO) run ./test/load/bench
