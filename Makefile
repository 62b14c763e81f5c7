# Every command of the project. `make` alone lists them.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
GO      ?= go

# The tools, pinned. golangci-lint brings gofumpt and staticcheck along.
GOLANGCI_LINT := v2.15.0
LINT          := .tools/golangci-lint-$(GOLANGCI_LINT)

FUZZTIME  ?= 30s
BENCH     ?= .
BENCHTIME ?= 1s
LONG      ?= Kill

.DEFAULT_GOAL := help

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Run every role with a demo on an embedded broker
	bin/millrace up --demo

.PHONY: build
build: ## Build bin/millrace
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./services/millrace

.PHONY: test
test: ## Run the tests on the embedded broker (under six minutes on two cores)
	$(GO) test -race -timeout 10m ./...

.PHONY: test-kafka
test-kafka: ## Run the tests that use a broker on Apache Kafka (needs Java 17 and Maven)
	@packages=$$($(GO) list -f '{{.ImportPath}}: {{join .TestImports " "}} {{join .XTestImports " "}}' ./... \
		| awk -F ': ' '$$2 ~ /pipeline\/pipelinetest/ { print $$1 }'); \
	test -n "$$packages" || { echo 'no package uses a broker in its tests' >&2; exit 1; }; \
	MILLRACE_TEST_KAFKA=1 $(GO) test -race -p 1 -timeout 10m $$packages

.PHONY: test-long
test-long: ## Run the long tests, of many kills (LONG=pattern to choose)
	MILLRACE_TEST_LONG=1 $(GO) test -race -p 1 -timeout 90m -run '$(LONG)' ./...

.PHONY: bench
bench: ## Run the benchmarks (BENCH=pattern, BENCHTIME=1s)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) ./...

.PHONY: latency
latency: ## Measure the latency on both brokers, beside two bare hops (takes three minutes)
	for kafka in '' 1; do \
		MILLRACE_TEST_KAFKA=$$kafka MILLRACE_TEST_LONG=1 $(GO) test -count 1 -v -run '^TestLatency$$' ./services/millrace; \
	done

.PHONY: fuzz
fuzz: ## Fuzz everything that parses, FUZZTIME=30s each
	@packages=$$($(GO) list ./...); \
	for package in $$packages; do \
		targets=$$($(GO) test -list '^Fuzz' $$package); \
		for target in $$(grep '^Fuzz' <<<"$$targets" || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: fmt
fmt: $(LINT) ## Format the code
	$(LINT) fmt

.PHONY: fmt-check
fmt-check: $(LINT) ## Fail where code is not formatted
	$(LINT) fmt --diff

.PHONY: lint
lint: $(LINT) ## Run the linters
	$(LINT) config verify
	$(LINT) run

.PHONY: npm
npm: ## Install the packages of npm that tests check signatures with (needs Node.js)
	npm ci --no-audit --no-fund --prefix pipeline/httpsend/testdata/npm

.PHONY: tools
tools: $(LINT) ## Install the pinned tools into .tools

$(LINT):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv .tools/golangci-lint $@
