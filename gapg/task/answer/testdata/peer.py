#!/usr/bin/env python3
"""How math-verify (Hugging Face) judges the pairs of pairs.txt.

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install math-verify==0.9.0
    /tmp/peer/bin/python gapg/task/answer/testdata/peer.py [-v]

Prints its share of agreement with the file, kind by kind; -v prints where it
disagrees. Each answer is given to it inside \\boxed{}, which is how a model of
MATH's problems answers. A check that raises an error or takes over five seconds
counts as "not the same", as math-verify's own reward function has it.
"""
import collections
import logging
import pathlib
import sys

from math_verify import parse, verify

logging.disable(logging.CRITICAL)


def judge(given, wanted):
    try:
        return bool(verify(parse("\\boxed{%s}" % wanted), parse("\\boxed{%s}" % given)))
    except Exception:  # math-verify's own reward function does the same
        return False


kind, count, agree = "", collections.Counter(), collections.Counter()
for number, line in enumerate((pathlib.Path(__file__).parent / "pairs.txt").read_text().split("\n"), 1):
    if line.startswith("#") or not line:
        continue
    sign = "≡" if " ≡ " in line else "≢" if " ≢ " in line else ""
    if not sign:
        kind = line[1:-1]
        continue
    given, wanted = line.split(f" {sign} ")
    same = judge(given, wanted)
    count[kind, sign] += 1
    agree[kind, sign] += same == (sign == "≡")
    if "-v" in sys.argv and same != (sign == "≡"):
        print(f"pairs.txt:{number}: {line}")

for name in dict.fromkeys(k for k, _ in count):
    print(f"{name:40}" + "   ".join(f"{s} {agree[name, s]:3} of {count[name, s]:3}" for s in "≡≢"))
for s in "≡≢":
    a, n = (sum(v for (_, t), v in c.items() if t == s) for c in (agree, count))
    print(f"{'all ' + s:40}{a} of {n}, {a / n:.1%}")
