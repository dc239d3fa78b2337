#!/usr/bin/env python3
"""Worked solutions for a data set of word problems that has their results alone.

    equations.py < mawps.jsonl > mawps_worked.jsonl

Where exactly one operation on two numbers of a question, or else exactly one chain
of two on three of them, gives the answer, that is the solution; a question without
one is left out. Nothing but the question and its answer is looked at. The lines come
out in a random order, the same each time: such files are sorted by kind.
"""
import itertools
import json
import random
import re
import sys
from fractions import Fraction


def text(x):
    """A number in decimals, None where it has more than two."""
    hundredths = x * 100
    if hundredths.denominator != 1:
        return None
    s = f"{int(hundredths) / 100:.2f}".rstrip("0").rstrip(".")
    return s


def steps(a, b):
    """What one operation makes of two numbers, as (result, line)."""
    for op, r in (("+", a + b), ("-", a - b), ("*", a * b), ("/", a / b if b else None)):
        if r is not None and r >= 0 and text(r) is not None:
            if op in "+*" and a < b:  # the other order says the same
                continue
            yield r, f"{text(a)} {op} {text(b)} = {text(r)}"


def solutions(numbers, target):
    one = {line for a, b in itertools.permutations(numbers, 2) for r, line in steps(a, b) if r == target}
    if one:
        return one
    return {first + "\n" + second
            for a, b, c in itertools.permutations(numbers, 3)
            for r, first in steps(a, b)
            for x, y in ((r, c), (c, r))
            for s, second in steps(x, y) if s == target}


worked = []
for line in sys.stdin:
    row = json.loads(line)
    question, target = row["input"], Fraction(str(row["target"]))
    numbers = [Fraction(n) for n in re.findall(r"\d+(?:\.\d+)?", question.replace(",", ""))]
    if text(target) is None or any(text(n) is None for n in numbers):
        continue
    found = solutions(numbers, target)
    if len(found) == 1:
        worked.append(json.dumps({"input": question, "answer": f"{found.pop()}\n#### {text(target)}"}))
random.Random(1).shuffle(worked)
print(*worked, sep="\n")
