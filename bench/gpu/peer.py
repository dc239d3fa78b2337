#!/usr/bin/env python3
"""Times torch.matmul (cuBLAS) on the shapes that are given, the way timing.go does.

Usage: gpubench -print-shapes | peer.py OUT.json [DEVICE]

bf16 in and out, C = A·Bᵀ with both operands' K contiguous. Random data; the
launches walk through copies of the operands that together exceed L2; events
around rounds of about 20 ms; the median of 15 rounds.
"""
import json
import statistics
import sys

import torch

ROUNDS, ROUND_MS, L2_TURNS = 15, 20.0, 4


def time_shape(m, n, k, device):
    l2 = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 64 << 20)
    size = 2 * (m * k + n * k + m * n)
    copies = min(max(L2_TURNS * l2 // size, 1) + 1, 256)
    sets = []
    for _ in range(copies):
        a = (torch.rand(m, k, device=device) * 2 - 1).to(torch.bfloat16)
        b = (torch.rand(n, k, device=device) * 2 - 1).to(torch.bfloat16)
        sets.append((a, b, torch.empty(m, n, device=device, dtype=torch.bfloat16)))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    step = 0

    def one_round(launches):
        nonlocal step
        start.record()
        for _ in range(launches):
            a, b, c = sets[step % copies]
            step += 1
            torch.matmul(a, b.t(), out=c)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    warm = one_round(2 * copies) / (2 * copies)
    warm = min(warm, one_round(2 * copies) / (2 * copies))  # the first includes cuBLAS' start
    launches = max(int(ROUND_MS / max(warm, 1e-3)), 1)
    return statistics.median(one_round(launches) / launches for _ in range(ROUNDS)) * 1e3


def main():
    out = sys.argv[1]
    device = torch.device("cuda", int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    torch.cuda.set_device(device)
    result = {"peer": f"PyTorch {torch.__version__} (cuBLAS), CUDA {torch.version.cuda}", "microseconds": {}}
    for s in json.load(sys.stdin):
        result["microseconds"][s["name"]] = time_shape(s["m"], s["n"], s["k"], device)
        torch.cuda.empty_cache()
    with open(out, "w") as f:
        json.dump(result, f, indent=2)


main()
