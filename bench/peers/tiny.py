"""A tiny Llama in numpy, float64, by the plainest means: what check.py holds the peers against."""
import json
import struct

import numpy as np

VOCAB, HIDDEN, FFN, LAYERS, HEADS, KV, HEAD = 40, 32, 48, 2, 4, 2, 8
EPSILON, THETA = 1e-5, 10000.0


def shapes():
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (HIDDEN,)
        yield layer + "self_attn.q_proj.weight", (HEADS * HEAD, HIDDEN)
        yield layer + "self_attn.k_proj.weight", (KV * HEAD, HIDDEN)
        yield layer + "self_attn.v_proj.weight", (KV * HEAD, HIDDEN)
        yield layer + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD)
        yield layer + "post_attention_layernorm.weight", (HIDDEN,)
        yield layer + "mlp.gate_proj.weight", (FFN, HIDDEN)
        yield layer + "mlp.up_proj.weight", (FFN, HIDDEN)
        yield layer + "mlp.down_proj.weight", (HIDDEN, FFN)
    yield "model.norm.weight", (HIDDEN,)


def weights(rng):
    """Random ones, float32's values in float64. The head is the embedding."""
    w = {name: (rng.standard_normal(shape) * 0.18 + (len(shape) == 1)).astype(np.float32) for name, shape in shapes()}
    return {name: v.astype(np.float64) for name, v in w.items()}


def norm(x, w):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + EPSILON) * w


def rotate(x):
    """RoPE over x[B, heads, T, HEAD], first half against second."""
    angle = np.arange(x.shape[2])[:, None] * THETA ** (-np.arange(HEAD // 2) / (HEAD // 2))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :HEAD // 2], x[..., HEAD // 2:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def logits(w, ids):
    """[B, T, VOCAB] of ids[B, T]."""
    B, T = ids.shape
    split = lambda x, n: x.reshape(B, T, n, HEAD).swapaxes(1, 2)
    future = np.where(np.tri(T) > 0, 0, -np.inf)
    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        p = lambda name: w[f"model.layers.{i}.{name}.weight"]
        h = norm(x, p("input_layernorm"))
        q = rotate(split(h @ p("self_attn.q_proj").T, HEADS))
        k = rotate(split(h @ p("self_attn.k_proj").T, KV)).repeat(HEADS // KV, 1)
        v = split(h @ p("self_attn.v_proj").T, KV).repeat(HEADS // KV, 1)
        scores = q @ k.swapaxes(2, 3) / np.sqrt(HEAD) + future
        share = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + ((share / share.sum(-1, keepdims=True)) @ v).swapaxes(1, 2).reshape(B, T, -1) @ p("self_attn.o_proj").T
        h = norm(x, p("post_attention_layernorm"))
        gate = h @ p("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ p("mlp.up_proj").T)) @ p("mlp.down_proj").T
    return norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def loss(w, ids):
    """Mean cross-entropy of each next token."""
    z = logits(w, ids)[:, :-1]
    z = z - z.max(-1, keepdims=True)
    chosen = np.take_along_axis(z, ids[:, 1:, None].astype(np.int64), -1)[..., 0]
    return np.mean(np.log(np.exp(z).sum(-1)) - chosen)


def gradient(w, ids, h=1e-4):
    """Of loss, by central differences."""
    g = {name: np.zeros_like(v) for name, v in w.items()}
    for name, v in w.items():
        for at in np.ndindex(v.shape):
            kept = v[at]
            v[at] = kept + h
            above = loss(w, ids)
            v[at] = kept - h
            g[name][at] = (above - loss(w, ids)) / (2 * h)
            v[at] = kept
    return g


def adamw_first(w, g, rate):
    """The weights after AdamW's first step without weight decay: its moments, corrected for their start, are g and g²."""
    return {name: v - rate * g[name] / (np.abs(g[name]) + 1e-8) for name, v in w.items()}


def config():
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD, "rms_norm_eps": EPSILON,
        "rope_theta": THETA, "max_position_embeddings": 128, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "float32",
        "bos_token_id": 0, "eos_token_id": 1,
    }


def write_safetensors(w, folder):
    """A Hugging Face directory of float32 weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config()))
    header, data = {}, bytearray()
    for name, v in w.items():
        raw = v.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": v.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)


GGUF = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    name = name.removesuffix(".weight")
    if name.startswith("model.layers."):
        _, _, i, rest = name.split(".", 3)
        return f"blk.{i}.{GGUF[rest]}.weight"
    return GGUF[name] + ".weight"


def interleaved(v, heads):
    """Rows in the order of GGUF's Llama, whose RoPE turns neighbours: the two halves of a head one in the other."""
    return v.reshape(heads, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(v.shape)


def write_gguf(w, path):
    """A GGUF file, version 3, of float32 weights without a vocabulary."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    u32 = lambda key, n: text(key) + struct.pack("<II", 4, n)
    f32 = lambda key, x: text(key) + struct.pack("<If", 6, x)
    word = lambda key, s: text(key) + struct.pack("<I", 8) + text(s)
    fields = [
        word("general.architecture", "llama"), u32("llama.vocab_size", VOCAB), u32("llama.context_length", 128), u32("llama.embedding_length", HIDDEN),
        u32("llama.feed_forward_length", FFN), u32("llama.block_count", LAYERS), u32("llama.attention.head_count", HEADS),
        u32("llama.attention.head_count_kv", KV), u32("llama.rope.dimension_count", HEAD), f32("llama.rope.freq_base", THETA),
        f32("llama.attention.layer_norm_rms_epsilon", EPSILON), word("tokenizer.ggml.model", "no_vocab"),
    ]
    infos, data = b"", bytearray()
    for name, v in w.items():
        for part, heads in (("q_proj", HEADS), ("k_proj", KV)):
            if part in name:
                v = interleaved(v, heads)
        data += b"\0" * (-len(data) % 32)
        infos += text(gguf_name(name)) + struct.pack(f"<I{v.ndim}Q", v.ndim, *reversed(v.shape)) + struct.pack("<IQ", 0, len(data))
        data += v.astype("<f4").tobytes()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(w), len(fields)) + b"".join(fields) + infos
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
