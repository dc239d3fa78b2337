#!/usr/bin/env python3
"""Holds each peer that is set up against numpy in float64, on tiny works, without the harness.

    bench/peers/pytorch/setup.sh                                   (has numpy)
    bench/peers/pytorch/.env/bin/python bench/peers/check.py [--require] [--threads N] [PEER...]

A peer that is not set up is reported as missing; with --require that is a failure. Checked are the results of every
variant, and that a peer which has replied leaves the processor alone.
"""
import argparse
import pathlib
import sys
import tempfile
import time

import numpy as np

import tiny
from client import Missing, Peer

PEERS = ["openblas", "onednn", "gonum", "gorgonia", "pytorch", "llamacpp"]
EPS = np.finfo(np.float32).eps


def close(name, got, want, tolerance):
    """Fails unless |got - want| <= tolerance; NaN fails."""
    worst = np.max(np.abs(got - want) / tolerance) if got.shape == np.shape(want) else np.inf
    if not worst <= 1:
        raise AssertionError(f"{name}: off by {worst:.3g} tolerances, got {got.ravel()[:4]}, want {np.ravel(want)[:4]}")
    print(f"  {name}: {worst:.2g} of the tolerance")


def output(peer, variant, file):
    peer.ask("output", variant=variant, file=str(file))
    return np.fromfile(file, "<f4").astype(np.float64)


def idle(peer, variant):
    """After a reply no worker of the peer runs on."""
    peer.run(variant, 2)
    before = peer.cpu_seconds()
    time.sleep(0.5)
    used = peer.cpu_seconds() - before
    if used > 0.02:  # a clock tick or two
        raise AssertionError(f"{variant}: used the processor for {used:.2f} s of 0.5 s after its reply")


def gemm(peer, folder, rng):
    for m, n, k in [(1, 1, 1), (1, 576, 192), (8, 49, 64), (5, 7, 300), (70, 129, 65), (128, 96, 256)]:
        a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
        a.tofile(folder / "a")
        b.tofile(folder / "b")
        want = (a.astype(np.float64) @ b.T.astype(np.float64)).ravel()
        bound = k * EPS * (np.abs(a).astype(np.float64) @ np.abs(b).T.astype(np.float64)).ravel()
        for variant in peer.prepare("gemm", dir=str(folder), m=m, n=n, k=k, a=str(folder / "a"), b=str(folder / "b")):
            close(f"gemm {m}x{n}x{k}, {variant}", output(peer, variant, folder / "out"), want, bound)
            idle(peer, variant)
        peer.ask("close")


# What float32 loses between the weights and the logits of a model as small as tiny's, whose logits are of size 1: each of
# its roughly ten roundings in a row is of EPS, and sums are of at most 64 terms of mixed sign.
LOGITS = 200 * EPS


def prefill(peer, folder, rng):
    weights = tiny.weights(rng)
    ids = rng.integers(0, tiny.VOCAB, 45, dtype=np.int32)
    ids.tofile(folder / "tokens")
    want = tiny.logits(weights, ids[None])[0, -1]
    for variant in peer.prepare("prefill", length=45, **model(peer, folder, weights)):
        close(f"prefill, {variant}", output(peer, variant, folder / "out"), want, looser(variant))
        idle(peer, variant)
        close(f"prefill again, {variant}", output(peer, variant, folder / "out"), want, looser(variant))
    peer.ask("close")


def decode(peer, folder, rng):
    weights = tiny.weights(rng)
    for batch in (1, 3, 33):
        ids = rng.integers(0, tiny.VOCAB, (batch, 9 + 4), dtype=np.int32)
        ids.tofile(folder / "tokens")
        want = tiny.logits(weights, ids)[:, -1].ravel()
        for variant in peer.prepare("decode", batch=batch, prompt=9, new=4, **model(peer, folder, weights)):
            for turn in ("", " again"):
                close(f"decode {batch}{turn}, {variant}", output(peer, variant, folder / "out"), want, looser(variant))
                idle(peer, variant)
        peer.ask("close")


def train(peer, folder, rng):
    weights = tiny.weights(rng)
    ids = rng.integers(0, tiny.VOCAB, (2, 9), dtype=np.int32)
    ids.tofile(folder / "tokens")
    gradient = tiny.gradient(weights, ids)
    norm = np.sqrt(sum(np.sum(g * g) for g in gradient.values()))
    losses = [tiny.loss(weights, ids), tiny.loss(tiny.adamw_first(weights, gradient, 1e-5), ids)]
    for variant in peer.prepare("train", sequences=2, length=9, **model(peer, folder, weights)):
        peer.run(variant, 2)
        got = output(peer, variant, folder / "out")
        close(f"train, {variant}: losses", got[[0, 2]], losses, 8 * EPS * losses[0])
        close(f"train, {variant}: gradient's norm", got[1:2], [norm], 1e-5 * norm)
        # The step itself changes the loss by little; it must change it by as much as it should.
        change = losses[1] - losses[0]
        close(f"train, {variant}: the step", got[2:3] - got[:1], [change], 8 * EPS * losses[0] + 0.01 * abs(change))
        idle(peer, variant)
    peer.ask("close")


# The same where keys, queries, values and attention's sums are of half precision, in both layers: a variant that does so
# has it in its name.
HALF = 16 * float(np.finfo(np.float16).eps) / 2


def looser(variant):
    return HALF if variant.startswith("f16") else LOGITS


def model(peer, folder, weights):
    files = {"dir": str(folder), "tokens": str(folder / "tokens")}
    if peer.hello["peer"] == "llamacpp":
        tiny.write_gguf(weights, folder / "model.gguf")
        return files | {"gguf": str(folder / "model.gguf")}
    tiny.write_safetensors(weights, folder / "model")
    return files | {"model": str(folder / "model")}


WORKS = {"gemm": gemm, "train": train, "prefill": prefill, "decode": decode}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--require", action="store_true", help="a peer that is not set up is a failure")
    arguments.add_argument("--threads", type=int, default=2, help="of each peer; 1 where other programs want the processor: some wait by spinning")
    arguments.add_argument("peers", nargs="*", default=PEERS, metavar="PEER")
    arguments = arguments.parse_args()
    failed = 0
    for name in arguments.peers:
        try:
            peer = Peer(name, arguments.threads, log=sys.stderr)
        except Missing as e:
            print(f"{name}: missing: {e}")
            failed += arguments.require
            continue
        print(f"{name} {peer.hello['version']}: {peer.hello['detail']}")
        for work in peer.hello["works"]:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    WORKS[work](peer, pathlib.Path(folder), np.random.default_rng(5))
            except (AssertionError, RuntimeError) as e:
                print(f"  FAILED: {work}: {e}")
                failed += 1
        peer.quit()
    print(f"{failed} failed" if failed else "no failures")
    sys.exit(failed > 0)


main()
