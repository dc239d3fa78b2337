#!/usr/bin/env bash
# Makes dist/updraft-gpu-linux-amd64.tar.gz: the program, tests and benchmarks as
# binaries, and run.sh, for a host with an NVIDIA driver and without Go.
#
# cgo needs a C compiler. zig's links against an old glibc, so that the binaries run
# on every Linux with glibc 2.28 (RHEL 8, Debian 10, Ubuntu 20.04) or newer. It is
# $ZIG, or on the PATH, or PyPI's ziglang, installed or fetched into the user's cache.
# Where none can be had (or ZIG=none), the host's compiler is taken, and the binaries
# need a glibc as new as the host's own; the file GLIBC says which.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=x86_64-linux-gnu.2.28
ziglang=0.17.1 # the release of PyPI's package
bundle=dist/updraft-gpu-linux-amd64

find_zig() {
  [ "${ZIG:-}" != none ] || return 1
  if [ -n "${ZIG:-}" ]; then echo "$ZIG"; return; fi
  if command -v zig >/dev/null; then echo zig; return; fi
  if python3 -c 'import ziglang' 2>/dev/null; then echo "python3 -m ziglang"; return; fi
  local venv="${XDG_CACHE_HOME:-$HOME/.cache}/updraft/zig-$ziglang"
  if [ ! -x "$venv/bin/python-zig" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null 2>&1 &&
      timeout 300 "$venv/bin/pip" install -q --disable-pip-version-check "ziglang==$ziglang" 2>/dev/null || { rm -rf "$venv"; return 1; }
  fi
  echo "$venv/bin/python-zig"
}

limit=()
if zig=$(find_zig); then
  export CC="$zig cc -target $target" CXX="$zig c++ -target $target"
  limit=(-most 2.28)
  echo "compiling C with: $CC"
else
  [ "$(uname -m)" = x86_64 ] || { echo "gpu-bundle: needs zig on this machine, to compile for linux/amd64" >&2; exit 1; }
  echo "no zig: compiling C with this machine's compiler, against this machine's glibc"
fi
export CGO_ENABLED=1 GOOS=linux GOARCH=amd64
rm -rf "$bundle" "$bundle.tar.gz"
mkdir -p "$bundle/tests"
go build -trimpath -o "$bundle/updraft" ./cmd/updraft
go build -trimpath -o "$bundle/gpubench" ./bench/gpu
go test -c -trimpath -o "$bundle/tests/gpu.test" ./engine/gpu
go test -c -trimpath -o "$bundle/tests/cuda.test" ./cuda
cp -r bench/gpu/run.sh bench/gpu/peer "$bundle/"
rm -rf "$bundle/peer/__pycache__"
git rev-parse HEAD >"$bundle/COMMIT" 2>/dev/null || true
env -u CC -u CXX GOOS= GOARCH= go run ./bench/gpu/glibc "${limit[@]}" "$bundle/updraft" "$bundle/gpubench" "$bundle"/tests/* >"$bundle/GLIBC"
tar -C dist -czf "$bundle.tar.gz" "$(basename "$bundle")"
echo "$bundle.tar.gz, for glibc $(cat "$bundle/GLIBC") or newer: copy it to the GPU host, unpack it, run ./run.sh"
