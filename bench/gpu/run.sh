#!/bin/sh
# Checks, then times Updraft's GPU kernels on this machine. Needs an NVIDIA
# driver (525 or newer); compares with cuBLAS where python3 has PyTorch with
# CUDA. Usage: ./run.sh [DEVICE]. Leaves results/results.json and results.md.
set -eu
cd "$(dirname "$0")"
device=${1:-0}
mkdir -p results
rm -f results/peer.json

# Correctness first: a failure ends the run here, before anything is timed.
./gpubench -check -device "$device" -out results
# A Hopper GPU has kernels of its own; those of every other GPU run there too.
hopper=
case "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i "$device" 2>/dev/null)" in
  9.0) hopper=yes; ./gpubench -check -no-sm90a -device "$device" -out results/sm80 ;;
esac
# The whole backend: conformance, contract, models and trainings. UPDRAFT_REQUIRE
# makes a test that finds no GPU fail instead of skip.
./updraft info
CUDA_VISIBLE_DEVICES="$device" UPDRAFT_REQUIRE=cuda ./engine-gpu.test -test.timeout 30m
if [ -n "$hopper" ]; then
  CUDA_VISIBLE_DEVICES="$device" UPDRAFT_REQUIRE=cuda UPDRAFT_TEST_NO_SM90A=1 ./engine-gpu.test -test.timeout 30m
fi
if command -v compute-sanitizer >/dev/null 2>&1; then
  compute-sanitizer --error-exitcode 3 ./gpubench -check -quick -device "$device" -out results/sanitizer
else
  echo "compute-sanitizer is not here: memory checks skipped"
fi

peer=
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; then
  ./gpubench -print-shapes | python3 peer.py results/peer.json "$device"
  peer=results/peer.json
else
  echo "python3 has no PyTorch with CUDA: no comparison with cuBLAS"
fi
if [ -n "$hopper" ]; then
  ./gpubench -no-sm90a -device "$device" -out results/sm80 -peer "$peer"
fi
./gpubench -device "$device" -out results -peer "$peer"
