"""How a round of a peer is timed; the numbers are those of ../timing.go."""
import time

import torch

ROUND_SECONDS, L2_TURNS, MOST_SETS, MOST_BYTES = 0.020, 4, 64, 6 << 30


def sets(nbytes, quick=False):
    """How many sets of operands of so many bytes a workload walks through."""
    if quick:
        return 2
    l2 = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "L2_cache_size", 64 << 20)
    n = min(max(L2_TURNS * l2 // max(nbytes, 1), 1) + 1, MOST_SETS)
    return max(min(n, MOST_BYTES // max(nbytes, 1)), 1)


def captured(turn):
    """A CUDA graph of turn(), or turn itself where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            turn()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            turn()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay, "graph"
    except Exception:
        torch.cuda.synchronize()
        return turn, "no graph"


def device_round(run, n, quick=False, capture=True):
    """A function that times a round of run(0) to run(n-1); seconds of one of them."""

    def every():
        for i in range(n):
            run(i)

    turn, how = captured(every) if capture else (every, "no graph")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed(turns):
        start.record()
        for _ in range(turns):
            turn()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / (turns * n)

    turns = 1
    if not quick:
        timed(2)
        turns = max(int(ROUND_SECONDS / max(timed(2) * n, 1e-6)), 1)
    return (lambda: timed(turns)), how


def host_round(run, runs=1):
    """A function that times one call of run, which makes so many runs, by the clock."""

    def one():
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / runs

    return one
