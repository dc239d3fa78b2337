# Targets: make help
GO ?= go
PYTHON ?= python3
FUZZTIME ?= 20s

.DEFAULT_GOAL := help

include kernels/ptx.mk bench/gpu/bundle.mk
.PHONY: help build demo test test-noasm test-emulated check-emulated race conformance lint generate gobench bench bench-peers fuzz golden check-full

help: ## this list
	@awk '/^[a-z-]+:.*## / { name = $$1; sub(/:.*/, "", name); sub(/.*## /, "") } \
	  /^## [a-z-]+: / { name = $$2; sub(/:$$/, "", name); sub(/^## [a-z-]+: /, "") } \
	  name { printf "%-14s %s\n", name, $$0; name = "" }' $(MAKEFILE_LIST)

build: ## the program, as ./updraft
	$(GO) build -trimpath -o updraft ./cmd/updraft

demo: build ## train the embedded tiny model, compare all methods, write runs/demo/report.html
	./updraft demo

test: ## every fast test; no network, no Python, at most 10 minutes on 2 cores
	$(GO) vet ./...
	$(GO) test ./...

test-noasm: ## without assembly, those that compute on a CPU
	$(GO) test -tags noasm ./simd/... ./engine/... ./model/... ./gapg/... ./cmd/...

# What the tag cudaemu adds to make test, which runs the kernels and the driver binding on the emulated device: the
# backend's conformance and contract, models and trainings on it, the command line. make test and make check-emulated
# together are go test -tags cudaemu ./...
EMULATED = $(GO) test -tags cudaemu -timeout 30m $(1) ./engine/gpu && $(GO) test -tags cudaemu $(1) -run Emulated ./cmd/updraft/cli

test-emulated: ## the GPU path on the emulated device (needs g++ or another C++ compiler, on Linux)
	$(GO) vet -tags cudaemu ./engine/gpu ./cmd/updraft/cli
	$(call EMULATED,-short)

check-emulated: ## the same, whole
	$(call EMULATED)

race: ## the tests of what runs concurrently, under the race detector (needs a C compiler)
	$(GO) test -race -short -timeout 20m ./engine ./engine/cpu ./model/... ./gapg/... ./cuda/... ./cmd/...

conformance: ## our cloud client beside OpenAI's own, openai-go (needs the module proxy)
	$(GO) -C gapg/cloud/_conformance test ./...

lint: ## gofmt, and vet for linux, macOS and Windows
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet ./...

generate: ## remake the assembly from simd/_gen (needs the module proxy, for avo)
	$(GO) generate ./...

bench: build ## the engine's speed against this machine's limits, in under 5 minutes on 2 cores; BENCHFLAGS=… (docs/bench.md)
	./updraft bench $(BENCHFLAGS)

bench-peers: build ## every shape and size, beside the peers that are set up, in half an hour; BENCHDIR=runs/bench, BENCHFLAGS=--resume
	./updraft bench --full --peers all --output-dir $(or $(BENCHDIR),runs/bench) $(BENCHFLAGS)

gobench: ## Go benchmarks: BENCH=regexp, COUNT=n, BENCHTIME=1s
	$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -benchtime $(or $(BENCHTIME),1s) -count $(or $(COUNT),1) ./simd/... ./engine/... ./model/... ./gapg/...

fuzz: ## every fuzz target for FUZZTIME=20s each
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

golden: ## remake model/testdata from PyTorch (needs torch, transformers, safetensors)
	$(PYTHON) model/testdata/make_golden.py

check-full: lint test test-noasm check-emulated race fuzz ## the long checks: all of these, half an hour and more
