# Targets: make help
GO ?= go
PYTHON ?= python3
FUZZTIME ?= 20s

.DEFAULT_GOAL := help

include kernels/ptx.mk bench/gpu/bundle.mk
.PHONY: help build demo test test-noasm race lint generate bench fuzz golden check-full

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

build: ## the program, as ./updraft
	$(GO) build -trimpath -o updraft ./cmd/updraft

demo: build ## train the embedded tiny model, compare all methods, write runs/demo/report.html
	./updraft demo

test: ## every fast test; no network, no Python, at most 10 minutes on 2 cores
	$(GO) vet ./...
	$(GO) test ./...

test-noasm: ## the same without assembly
	$(GO) test -tags noasm ./...

race: ## the tests of what runs concurrently, under the race detector (needs a C compiler)
	$(GO) test -race -short ./engine/... ./model/... ./gapg/... ./cuda/... ./cmd/...

lint: ## gofmt, vet, and generated files that are up to date
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet ./...

generate: ## remake generated files (assembly from simd/_gen)
	$(GO) generate ./...

bench: ## every benchmark once or more: BENCH=regexp, COUNT=n
	$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -benchtime $(or $(BENCHTIME),1s) -count $(or $(COUNT),1) ./simd/... ./engine/... ./model/... ./gapg/...

fuzz: ## every fuzz target for FUZZTIME each
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

golden: ## remake the golden values from PyTorch (needs torch and transformers)
	$(PYTHON) model/testdata/make_golden.py

check-full: lint test test-noasm race fuzz ## everything, long
