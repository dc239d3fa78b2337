#!/usr/bin/env python3
"""Runs the workloads of bench/gpu with PyTorch and what is built on it.

Usage: peer.py DEVICE, driven by `gpubench -peer "python3 peer.py"`: requests come
as lines of JSON on standard input, each is answered by a line.

    {"do": "open", "id": 1, "kind": "gemm", ...}  ->  {"name": "..."} or {"missing": "why"}
    {"do": "round", "id": 1}                      ->  {"seconds": of one run}
    {"do": "close", "id": 1}                      ->  {}

Kinds are in ops.py (single operations), net.py (whole steps in plain PyTorch) and
libraries.py (transformers, TRL). A kind is a function of the request that returns
a name and a function that runs it; what it raises is why it is missing. A run is
timed as ours is: random data, operands rotated through more than the L2 cache,
CUDA graphs where PyTorch can capture one, events around rounds of about 20 ms.
"""
import gc
import json
import os
import sys
import traceback

# Whatever libraries print must not stand between the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def answer(**what):
    answers.write(json.dumps(what) + "\n")


def kinds():
    import libraries
    import net
    import ops

    return {**ops.KINDS, **net.KINDS, **libraries.KINDS}


def main():
    device = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    known, why = {}, ""
    try:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(device)
            torch.manual_seed(1)
            known = kinds()
        else:
            why = f"PyTorch {torch.__version__} sees no CUDA device"
    except Exception as e:  # PyTorch is not there, or does not start
        why = f"{type(e).__name__}: {e}"
    runs = {}
    for line in sys.stdin:
        r = json.loads(line)
        try:
            if r["do"] == "open":
                if r["kind"] not in known:
                    answer(missing=why or f"peer.py knows no {r['kind']}")
                    continue
                name, runs[r["id"]] = known[r["kind"]](r)
                answer(name=f"{name}, PyTorch {torch.__version__}")
            elif r["do"] == "round":
                answer(seconds=runs[r["id"]]())
            else:
                runs.pop(r["id"], None)
                gc.collect()
                if known:
                    torch.cuda.empty_cache()
                answer()
        except Exception as e:
            traceback.print_exc()
            runs.pop(r["id"], None)
            answer(**{"missing" if r["do"] == "open" else "error": f"{type(e).__name__}: {e}".splitlines()[0][:300]})


if __name__ == "__main__":
    main()
