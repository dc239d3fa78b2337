#!/usr/bin/env python3
"""Shares one cache of the Hub's between Updraft and huggingface_hub, each way.

    make build
    python3 -m venv venv && venv/bin/pip install huggingface_hub
    venv/bin/python bench/peers/hub.py --updraft ./updraft

A server on this machine stands in for the Hub. It has the demo's base model as one file and in shards. What one of the two
programs has fetched, the other must find without a network, whole and equal, and with one without fetching a file again; and
what one was interrupted in, the other must complete (a file that is half there it fetches anew: the two name those
differently). Prints a line for each check; exits 1 if one fails.
"""
import argparse
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

REPO, COMMIT = "org/tiny", "0123456789abcdef0123456789abcdef01234567"
BASE = pathlib.Path(__file__).parents[2] / "cmd/updraft/cli/basemodel/model"


def is_large(name):
    return name.endswith(".safetensors")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blob(data):
    """What git calls a file's contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """A listing, checksums by HEAD, files by GET with ranges; weights as large files are, by their SHA-256."""
    protocol_version = "HTTP/1.1"
    files, gets, break_after = {}, [], None

    def log_message(self, *_):
        pass

    def reply(self, code, headers=(), body=b""):
        self.send_response(code)
        for k, v in headers:
            self.send_header(k, v)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def entry(self, name):
        data = self.files[name]
        e = {"type": "file", "path": name, "size": len(data), "oid": blob(data)}
        if is_large(name):
            e["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
        return e

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPO}/revision/"):
            listing = {"id": REPO, "modelId": REPO, "sha": COMMIT, "tags": [], "siblings": [{"rfilename": n} for n in self.files]}
            return self.reply(200, [("Content-Type", "application/json")], json.dumps(listing).encode())
        if path.startswith(f"/api/models/{REPO}/tree/"):
            return self.reply(200, [("Content-Type", "application/json")], json.dumps([self.entry(n) for n in self.files]).encode())
        parts = path.split("/resolve/")
        name = parts[1].split("/", 1)[1] if len(parts) == 2 else None
        if parts[0] != f"/{REPO}" or name not in self.files:
            return self.reply(404, [("X-Error-Code", "EntryNotFound")])
        data = self.files[name]
        large = is_large(name)
        etag = sha256(data) if large else blob(data)
        headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT), ("Accept-Ranges", "bytes")]
        if large:
            headers += [("X-Linked-Etag", f'"{etag}"'), ("X-Linked-Size", str(len(data)))]
        if self.command == "HEAD":
            return self.reply(200, headers + [("Content-Length", str(len(data)))])
        first = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        Hub.gets.append((name, first))
        if first:
            headers.append(("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}"))
        body = data[first:]
        if large and Hub.break_after is not None:  # the connection ends early, and so does every later one
            self.reply(206 if first else 200, headers + [("Content-Length", str(len(body)))], body[:max(0, Hub.break_after - first)])
            self.close_connection = True
            return None
        return self.reply(206 if first else 200, headers, body)

    do_HEAD = do_GET


class Run:
    def __init__(self, updraft):
        self.updraft, self.failed = updraft, False
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def check(self, what, ok, detail=""):
        print(("ok    " if ok else "FAIL  ") + what, detail if not ok else "")
        self.failed |= not ok

    def ours(self, cache, offline=False, model=REPO, limit=60):
        """Updraft's greedy text, or None where it fails or takes too long."""
        env = {**os.environ, "HF_ENDPOINT": self.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": str(int(offline)), "HF_TOKEN": "hf_none"}
        try:
            r = subprocess.run([self.updraft, "generate", "--model", model, "--raw", "--prompt", "17 16 5=69", "--max-completion-length", "24", "--device", "cpu",
                                "--threads", "1", "--json"], env=env, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        return json.loads(r.stdout)["replies"][0]["text"] if r.returncode == 0 else None

    def theirs(self, cache, offline=False):
        """The directory that huggingface_hub gives for the model, in a process of its own: its settings are read once."""
        env = {**os.environ, "HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
        code = (f"from huggingface_hub import snapshot_download as s; print(s({REPO!r}, cache_dir={str(cache)!r}, local_files_only={offline}))")
        r = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
        return pathlib.Path(r.stdout.strip()) if r.returncode == 0 else None

    def whole(self, what, directory, names):
        """All files are there and equal."""
        bad = [n for n in names if directory is None or not (directory / n).exists() or (directory / n).read_bytes() != Hub.files[n]]
        self.check(what, directory is not None and not bad, f"{directory} {bad}")

    def model(self, kind, files, want):
        from huggingface_hub import scan_cache_dir
        Hub.files = files
        names = [n for n in files if n != "README.md"]  # which is not part of a checkpoint
        with tempfile.TemporaryDirectory() as tmp:
            cache = pathlib.Path(tmp)
            self.check(f"{kind}: Updraft fetches it", self.ours(cache) == want)
            self.whole(f"{kind}: huggingface_hub finds it offline", self.theirs(cache, offline=True), names)
            info = scan_cache_dir(cache)
            revisions = [(r.repo_id, v.commit_hash, sorted(v.refs), sorted(f.file_name for f in v.files)) for r in info.repos for v in r.revisions]
            self.check(f"{kind}: its scan of the cache has no complaint", not info.warnings and revisions == [(REPO, COMMIT, ["main"], sorted(names))],
                       f"{info.warnings} {revisions}")
            Hub.gets.clear()
            self.whole(f"{kind}: online it has every file", self.theirs(cache), list(files))
            self.check(f"{kind}: and fetches only what Updraft left out", [n for n, _ in Hub.gets] == ["README.md"], Hub.gets)
        with tempfile.TemporaryDirectory() as tmp:
            cache = pathlib.Path(tmp)
            self.whole(f"{kind}: huggingface_hub fetches it", self.theirs(cache), list(files))
            Hub.gets.clear()
            for name in (REPO, f"{REPO}@main", f"{REPO}@{COMMIT}"):
                self.check(f"{kind}: Updraft finds {name} offline", self.ours(cache, offline=True, model=name) == want)
            self.check(f"{kind}: and asks for no file online", self.ours(cache) == want and not Hub.gets, Hub.gets)
        for first, second in ((self.theirs, self.ours), (self.ours, self.theirs)):
            with tempfile.TemporaryDirectory() as tmp:
                cache = pathlib.Path(tmp)
                Hub.break_after = 400_000
                broken = first(cache, **({"limit": 30} if first == self.ours else {}))
                Hub.break_after = None
                Hub.gets.clear()
                there = second(cache)
                which = "Updraft" if second == self.ours else "huggingface_hub"
                self.check(f"{kind}: {which} completes what the other was interrupted in", broken is None and (there == want if second == self.ours else there is not None),
                           f"{broken} {there}")
                self.whole(f"{kind}: every file", self.theirs(cache, offline=True), names)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--updraft", required=True)
    run = Run(os.path.abspath(args.parse_args().updraft))
    import huggingface_hub
    print("huggingface_hub", huggingface_hub.__version__)
    with tempfile.TemporaryDirectory() as tmp:
        whole, sharded = BASE, pathlib.Path(tmp) / "sharded"
        subprocess.run([run.updraft, "export", "--model", str(whole), "--output", str(sharded), "--format", "safetensors", "--max-shard-size", "1MB"], check=True, capture_output=True)
        want = run.ours(tmp, offline=True, model=str(whole))
        assert want
        for kind, directory in (("one file", whole), ("shards", sharded)):
            run.model(kind, {"README.md": b"# tiny\n", **{p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.suffix in (".json", ".safetensors")}}, want)
    sys.exit(run.failed)


if __name__ == "__main__":
    main()
