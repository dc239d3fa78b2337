#!/bin/bash
# Checks Updraft on this machine's GPU, then times it. Needs an NVIDIA driver (525
# or newer) and nothing else; uses compute-sanitizer and, for comparisons, python3
# with PyTorch where they are there.
#
#   ./run.sh              check, then time beside the peers, or alone without them
#   ./run.sh check        conformance, contract, training; twice on a Hopper
#   ./run.sh bench        timings alone
#   ./run.sh peers        timings beside the peers
#   DEVICE=1 ./run.sh     another device
#   QUICK=1 ./run.sh      tiny shapes: a test of this script
#
# A failure stops before anything is timed. Everything goes to results/ as it
# comes: checks.txt, results.jsonl, and from both results.json and results.md; logs
# of every part. A run that was killed keeps what it had.
set -uo pipefail
cd "$(dirname "$0")"
here=$PWD
out=${OUT:-$here/results}
device=${DEVICE:-0}
quick=${QUICK:+-quick}
built=$(cat GLIBC 2>/dev/null || echo 0)
here_is=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')
if [ -n "$here_is" ] && [ "$(printf '%s\n%s\n' "$built" "$here_is" | sort -V | tail -n 1)" != "$here_is" ]; then
  echo "these binaries need glibc $built, this machine has $here_is: make the bundle with zig (bench/gpu/bundle.sh)" >&2
  exit 2
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ "$device" != 0 ]; then export CUDA_VISIBLE_DEVICES=$device; fi
failed=

report() { ./gpubench -report -out "$out" && echo "results: $out/results.md, $out/results.json"; }
trap report EXIT
trap 'exit 130' INT TERM

log() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*" | tee -a "$out/checks.txt"; }

# part NAME SECONDS COMMAND...: runs it with a limit, its output in a file.
part() {
  local name=$1 limit=$2 begun=$SECONDS code
  shift 2
  echo "== $name: $*"
  timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  if [ $code = 0 ]; then
    log "$name: passed in $((SECONDS - begun)) s"
  else
    if [ $code = 124 ] || [ $code = 137 ]; then log "$name: FAILED, not done in $limit s; see $name.log"; else log "$name: FAILED, exit $code; see $name.log"; fi
    tail -n 20 "$out/$name.log"
    failed="$failed $name"
  fi
  return $code
}

# suite NAME: the tests of engine/gpu on the device: every operation against float64,
# the numerical contract, models and training against the CPU. None may be skipped.
suite() {
  local tests=${TESTS:-.}
  [ -z "$quick" ] || tests=${TESTS:-'TestConformance/(Fill|Gather|RMSNorm)$|TestLargeCopies|TestTimer'}
  part "$1" 420 env UPDRAFT_REQUIRE=cuda ./tests/gpu.test -test.timeout 400s -test.v -test.run "$tests"
}

# trains DTYPE: the program itself, from its flags to its metrics.
trains() {
  local on=cuda differences
  [ -z "$quick" ] || on=cpu
  rm -rf "$out/train"
  ./updraft demo --device $on --dtype "$1" --max-steps 3 --test-prompts 50 --validation-prompts 50 --router-prompts 50 --output-dir "$out/train" --json >"$out/train.json" || return 1
  differences=$(grep -rhoE '"sampling/sampling_logp_difference/max": *[^,}]*' "$out/train" | sed 's/.*: *//' | sort | uniq -c)
  echo "differences of log-probs between rollout and forward, at most, and how often:" $differences
  [ "$(echo "$differences" | wc -l)" = 1 ] && [ "$(echo "$differences" | awk '{print $2}')" = 0 ]
}

device_there() { ./updraft info | tee /dev/stderr | grep -q '^GPU  *cuda:'; }

sanitizer() { # sanitizer TOOL: on a quick subset, since each access costs
  part "sanitizer-$1" 180 env UPDRAFT_REQUIRE=cuda compute-sanitizer --tool "$1" --error-exitcode 3 \
    ./gpubench -quick -out "$out/sanitizer" -groups "gemm,attention,decode-attn,head,sample,adamw,memory"
}

check() {
  : >"$out/checks.txt"
  nvidia-smi -q >"$out/nvidia-smi.txt" 2>&1 || echo "nvidia-smi is not here" >"$out/nvidia-smi.txt"
  export -f trains device_there
  export out quick
  part driver 60 bash -c device_there || return 1
  part binding 60 ./tests/cuda.test -test.v -test.run '^TestProbeHere$'
  suite suite
  if ./updraft info 2>/dev/null | grep -q 'sm_90a'; then
    UPDRAFT_TEST_NO_SM90A=1 suite suite-sm80
  else
    log "suite-sm80: this device has no kernels for sm_90a: the suite above ran those for sm_80"
  fi
  part training-f32 180 bash -c 'trains float32'
  if [ -z "$quick" ]; then part training-bf16 180 bash -c 'trains bfloat16'; fi
  if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck initcheck; do sanitizer $tool; done
  else
    log "sanitizer: compute-sanitizer is not here, left out"
  fi
  [ -z "$failed" ]
}

bench() { # bench LIMIT [PEER]: groups one after the other, so that none takes another's time
  local limit=$1 group
  shift
  for group in $(./gpubench $quick -list | awk '{print $1}' | uniq); do
    [ $SECONDS -lt "$limit" ] || { log "time $group: left out, the time is up"; continue; }
    echo "== time $group"
    timeout -k 10 $((limit - SECONDS + 60)) ./gpubench $quick -out "$out" -groups "$group" "$@" 2>&1 | tee "$out/time-$group.log"
    [ "${PIPESTATUS[0]}" = 0 ] || { log "time $group: FAILED or not done; see time-$group.log"; failed="$failed $group"; }
  done
  [ -z "$failed" ]
}

peers() {
  local python=${PYTHON:-python3}
  if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; then
    log "peers: $python has no PyTorch with CUDA: all of them are missing"
    return 2
  fi
  bench 1320 -peer "$python $here/peer/peer.py"
}

rm -f "$out/results.json" "$out/results.md"
case "${1:-all}" in
check) check ;;
bench) bench 900 ;;
peers) peers ;;
all)
  check || { echo "FAILED:$failed. Nothing is timed."; exit 1; }
  peers
  [ $? != 2 ] || bench 900
  ;;
*) sed -n '2,16p' "$0"; exit 2 ;;
esac
code=$?
[ -z "$failed" ] || echo "FAILED:$failed"
exit $code
