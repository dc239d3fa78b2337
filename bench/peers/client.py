"""A peer's process, spoken to in the protocol of README.md."""
import json
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


class Missing(Exception):
    """The peer is not set up."""


class Peer:
    def __init__(self, name, threads=2, log=subprocess.DEVNULL):
        env = dict(os.environ, UPDRAFT_THREADS=str(threads))
        self.process = subprocess.Popen([HERE / name / "run"], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        if not line:
            if self.process.wait() == 3:
                raise Missing(f"{name} is not set up: bench/peers/{name}/setup.sh")
            raise RuntimeError(f"{name} ended at once")
        self.hello = json.loads(line)

    def ask(self, op, **fields):
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.hello['peer']}: ended with {self.process.wait()} at {op}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.hello['peer']}: {reply['error']}")
        return reply

    def prepare(self, work, **fields):
        return self.ask("prepare", work=work, **fields)["variants"]

    def run(self, variant, repeat):
        return self.ask("run", variant=variant, repeat=repeat)["seconds"]

    def cpu_seconds(self):
        """Processor time of the process and its children so far."""
        total, todo = 0, [self.process.pid]
        while todo:
            pid = todo.pop()
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(stat[11]) + int(stat[12])
            todo += [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return total / os.sysconf("SC_CLK_TCK")

    def quit(self):
        self.process.stdin.write('{"op":"quit"}\n')
        self.process.stdin.close()
        return self.process.wait(timeout=30)
