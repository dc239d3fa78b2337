"""The protocol of README.md for peers in Python."""
import json
import os
import sys
import time
import traceback


def threads():
    """The threads that the harness asks for."""
    return int(os.environ.get("UPDRAFT_THREADS") or os.cpu_count())


def serve(hello, works, settle):
    """Answers requests until there are no more.

    works has a class for each work: made of the request; variants names what run takes; begin(variant) runs before the
    clock starts, repeat(variant) under it; output(variant) gives a float32 array. Threads that spin for a while after
    their last work are asleep after settle seconds, before which no reply to "run" is given.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply

    def reply(answer):
        print(json.dumps(answer), file=replies, flush=True)

    reply(hello | {"works": list(works)})
    work = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            match request["op"]:
                case "quit":
                    return
                case "prepare":
                    work = None  # two works at once may not fit into memory
                    work = works[request["work"]](request)
                    reply({"ok": True, "variants": work.variants})
                case "close":
                    work = None
                    reply({"ok": True})
                case "run":
                    variant = request["variant"]
                    work.begin(variant)
                    start = time.perf_counter()
                    for _ in range(request["repeat"]):
                        work.repeat(variant)
                    seconds = time.perf_counter() - start
                    time.sleep(settle)
                    reply({"seconds": seconds})
                case "output":
                    work.output(request["variant"]).astype("<f4").tofile(request["file"])
                    time.sleep(settle)
                    reply({"ok": True})
                case op:
                    raise ValueError(f"unknown op {op}")
        except Exception as e:  # one line to the harness, all of it to the log
            traceback.print_exc()
            reply({"error": " ".join(f"{type(e).__name__}: {e}".split())})
