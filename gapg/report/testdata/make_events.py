#!/usr/bin/env python3
"""Makes events.golden with TensorBoard's own writer, and reads it (or any event
file named on the command line) back with TensorBoard's own reader.

    pip install tensorboard        # made with 2.21.0
    python make_events.py          # writes events.golden
    python make_events.py DIR      # prints what TensorBoard sees in DIR

TestEventsEqualTensorBoards writes the same events and demands the same bytes.
"""
import os
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

START = 1732323600.25  # wall time of the first event; each one is 0.5 s later


def scalars(wall, step, values):
    value = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in sorted(values.items())]
    return event_pb2.Event(wall_time=wall, step=step, summary=summary_pb2.Summary(value=value))


def make(path):
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    events = [
        event_pb2.Event(wall_time=START, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=START, step=41, session_log=session),
        scalars(START + 0.5, 0, {"reward": 0.5}),
        scalars(START + 1.0, 41, {"reward": 1.25, "cloud/ratio": 0.3, "accuracy/überall": 0.912, "zero": 0.0}),
        scalars(START + 1.5, 300, {"kl": float("nan"), "grad_norm": float("inf"), "many": 1e38}),
        scalars(START + 2.0, 1 << 40, {"t%03d" % i: i / 7 for i in range(40)}),
    ]
    with open(path, "wb") as f:
        writer = RecordWriter(f)
        for e in events:
            writer.write(e.SerializeToString())
        writer.flush()


def show(path):
    acc = event_accumulator.EventAccumulator(path)
    acc.Reload()
    for tag in acc.Tags()["scalars"]:
        print(tag, [(e.step, e.value) for e in acc.Scalars(tag)])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        show(sys.argv[1])
    else:
        make(os.path.join(os.path.dirname(os.path.abspath(__file__)), "events.golden"))
