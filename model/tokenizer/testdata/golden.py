#!/usr/bin/env python3
"""Makes the small tokenizers in this directory and what Hugging Face's tokenizers makes of tricky texts.

    python3 model/tokenizer/testdata/golden.py UPDRAFT_DATA

Needs the Python package tokenizers (0.23.3). Each NAME.json is a vocabulary of about 700 tokens, trained here on
questions of GSM8K (MIT licence) and the texts of texts.py, under the components that the family's own file has;
flags.json has added tokens with every flag. golden.json holds for each the lengths in bytes of the pieces
that it splits a text into, the ids of Encode, those under
encode_special_tokens where they differ, and for the first texts those under add_special_tokens.
"""
import json, os, random, sys
import texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>"]


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, True, False)])


PRE = {
    "smollm2": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    "llama3": split(LLAMA3),
    "qwen": split(QWEN),
    "flags": pre_tokenizers.Sequence([pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(True)]),
}


def bare(s, **flags):
    return AddedToken(s, **dict(dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False), **flags))


FLAGS = [bare("<l>", lstrip=True), bare("<r>", rstrip=True), bare("<lr>", lstrip=True, rstrip=True), bare("word", single_word=True),
         bare("Å\u0301", normalized=True), bare("\u00e9t\u00e9", normalized=True, single_word=True), bare("<l><r>"), bare(" <sp>"),
         bare("<s>", special=True, lstrip=True), bare("<n>", special=True, normalized=True, rstrip=True)]


def make(name, lines):
    t = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    t.pre_tokenizer, t.decoder = PRE[name], decoders.ByteLevel()
    if name in ("qwen", "flags"):
        t.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if name == "smollm2":  # which has no tokens for some bytes
        alphabet = [c for c in alphabet if c not in "\u0104\u0106"]
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=SPECIAL if name == "smollm2" else [], show_progress=False))
    if name == "smollm2":  # the trainer meets what the alphabet leaves out
        j = json.loads(t.to_str())
        for c in "\u0104\u0106":
            assert not [m for m in j["model"]["merges"] if c in "".join(m)]
            j["model"]["vocab"].pop(c, None)
        for i, k in enumerate(sorted(j["model"]["vocab"], key=j["model"]["vocab"].get)):
            j["model"]["vocab"][k] = i
        t = Tokenizer.from_str(json.dumps(j))
    else:
        t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIAL])
    if name == "llama3":  # words that ignore_merges alone finds
        j = json.loads(t.to_str())
        j["model"]["merges"] = j["model"]["merges"][:-40]
        t = Tokenizer.from_str(json.dumps(j))
    t.add_tokens([bare("<think>"), bare("</think>")])
    if name == "flags":
        for a in FLAGS:
            (t.add_special_tokens if a.special else t.add_tokens)([a])
    if name in ("llama3", "flags"):
        bos = t.token_to_id("<|begin_of_text|>")
        end = [("<|im_end|>", t.token_to_id("<|im_end|>"))] if name == "flags" else []
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single="<|begin_of_text|> $A" + "".join(" " + e[0] for e in end), special_tokens=[("<|begin_of_text|>", bos), *end])])
    elif name == "qwen":
        t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return t


def tricky():
    r = random.Random(7)
    out = ["", " ", "  ", "   x", "\n", "\r\n\r\n x", "\t\tx\t\t", " \n \n", "x \n ", "a  b   c", "don't I'LL we'Ve 'ſ '", "12345678 1 22 333", "٣٤٥ Ⅷ½ ①②",
           "e\u0301 \u212b \u1100\u1161\u11a8 ᄀ각", "a" + "\u0323\u0301" * 40, "\u1df8\u0345a\u0301\u1df8", "\U0001e5d0a \U00010d40 \U00011de0\U00016ff4", "世界 こんにちは 안녕", "👩‍👩‍👧‍👦🇩🇪", "\x00\x04\x06\x1c\x7f\x85\xa0\ufeff",
           "<|im_start|>user\nHi<|im_end|>\n", "<|im_<|im_end|>", "<think></think>", "<|im_start|><|im_start|>", "x" * 200, " " * 100 + "y", "=" * 77 + "\n\n", "\u2028\u3000 z",
           "a <l> b", "a <r>  \n b", " <lr> ", "<r> <l> x", "word words sword a word. word_ word\u0301", "A\u030a\u0301 \u212b\u0301 Å\u0301", "e\u0301te\u0301 été étés", "<l><r> <l> <r>", "<r>  <sp>x <sp>", "\nab \rcd\n\r ef", "x \r y \n\r z", "a\u0301\u0301 a\u0323\u0323\u0301", "\U00011935\U00011930 \u1df8e\u0301", "12345ab 1a", "  <s>  <n>  y", "<n>",
           ]
    while len(out) < 260:
        out.append("".join(r.choice([" ", *(f.content for f in FLAGS), *SPECIAL, "a"]) if r.random() < 0.25 else texts.atom(r) for _ in range(r.randint(1, 14))))
    return out


def main():
    lines = []
    with open(sys.argv[1] + "/gsm8k_test.jsonl") as f:
        for line in f:
            lines.append(json.loads(line)["question"])
    lines = lines[:300] + texts.fuzz(random.Random(3), 2000)
    golden = {"texts": tricky(), "pieces": {}, "ids": {}}
    nfc = normalizers.NFC()
    golden["nfc"] = [n if (n := nfc.normalize_str(s)) != s else None for s in golden["texts"]]
    for name in PRE:
        t = make(name, lines)
        t.save(os.path.join(HERE, name + ".json"), pretty=False)
        t = Tokenizer.from_file(os.path.join(HERE, name + ".json"))
        # In a byte-level piece each character is a byte.
        golden["pieces"][name] = [[len(p) for p, _ in t.pre_tokenizer.pre_tokenize_str(s)] for s in golden["texts"]]
        rows = []
        for s in golden["texts"]:
            row = {"ids": t.encode(s, add_special_tokens=False).ids}
            around = t.encode(s, add_special_tokens=True).ids
            t.encode_special_tokens = True
            plain = t.encode(s, add_special_tokens=False).ids
            t.encode_special_tokens = False
            if around != row["ids"] and len(rows) < 40:
                row["around"] = around
            if plain != row["ids"]:
                row["plain"] = plain
            rows.append(row)
        golden["ids"][name] = rows
    with open(os.path.join(HERE, "golden.json"), "w") as w:
        short = lambda v: json.dumps(v, separators=(",", ":"))
        for key in ("texts", "nfc"):
            w.write(('{' if key == "texts" else '],\n') + f'"{key}": [\n' + ",\n".join(map(short, golden[key])) + "\n")
        w.write('],\n"pieces": {\n' + ",\n".join(f'"{n}": {short(v)}' for n, v in golden["pieces"].items()) + '},\n"ids": {\n')
        w.write(",\n".join(f'"{n}": [\n' + ",\n".join(map(short, rows)) + "\n]" for n, rows in golden["ids"].items()) + "\n}}\n")


if __name__ == "__main__":
    main()
