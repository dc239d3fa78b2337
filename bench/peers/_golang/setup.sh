#!/bin/sh
# gonum and gorgonia.org/tensor, from the Go module proxy, in a module of their own. Needs Go.
set -eu
cd "$(dirname "$0")"
go build -o build/ ./cmd/...
