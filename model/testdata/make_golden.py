#!/usr/bin/env python3
"""Makes the golden values that golden_test.go compares with.

    python3 model/testdata/make_golden.py

For a tiny Llama, Qwen2 and Qwen3 of Hugging Face's transformers it draws
weights and token sequences by a fixed seed, computes the log-prob and entropy
of each response token, a loss that weighs them, and the loss's gradient with
respect to every parameter, and writes one safetensors file per model (weights,
gradients, log-probs, entropies in float32), the model's config.json and one
note, golden.json, with the sequences and the versions. Arithmetic is float64
but for what transformers itself does in float32: norms, attention's softmax
and the rotary tables.
"""
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

SEED = 20240917
HERE = pathlib.Path(__file__).parent

COMMON = dict(
    vocab_size=29,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    initializer_range=0.25,
    attn_implementation="eager",
    use_cache=False,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,  # a padding row would get no gradient
)
MODELS = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, dict(tie_word_embeddings=False)),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, dict(tie_word_embeddings=True)),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, dict(tie_word_embeddings=True)),
}


def draw_groups(gen):
    """Prompts around one attention split of 32 keys, three responses each."""
    groups = []
    for prompt in (1, 6, 32, 37):
        tokens = lambda n: torch.randint(0, COMMON["vocab_size"], (n,), generator=gen).tolist()
        groups.append(dict(prompt=tokens(prompt), responses=[tokens(n) for n in (3, 9, 34)]))
    return groups


def main():
    gen = torch.Generator().manual_seed(SEED)
    groups = draw_groups(gen)
    n = sum(len(r) for g in groups for r in g["responses"])
    weight = torch.randn(n, generator=gen).double()  # of each token's log-prob in the loss
    weight_entropy = torch.randn(n, generator=gen).double() * 0.5
    for name, (config_class, model_class, extra) in MODELS.items():
        torch.manual_seed(SEED)
        config = config_class(**COMMON, **extra)
        config.architectures = [model_class.__name__]
        model = model_class(config)
        with torch.no_grad():  # norms and biases off their ones and zeros
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(torch.randn(p.shape, generator=gen) * 0.2)
                p.copy_(p.float())
        state = {k: v.detach().float().clone().contiguous() for k, v in model.named_parameters()}
        model = model.double()
        # One accumulation of the loss over sequences, each run by itself: no
        # padding, no sharing, no mask but the causal one.
        log_probs, entropies = [], []
        loss, at = torch.zeros((), dtype=torch.float64), 0
        for g in groups:
            for r in g["responses"]:
                ids = torch.tensor([g["prompt"] + r])
                logits = model(ids[:, :-1]).logits[0, len(g["prompt"]) - 1 :]
                lp = torch.log_softmax(logits, -1)
                ent = -(lp.exp() * lp).sum(-1)
                chosen = lp.gather(-1, torch.tensor(r)[:, None])[:, 0]
                w, we = weight[at : at + len(r)], weight_entropy[at : at + len(r)]
                loss = loss + (w * chosen).sum() + (we * ent).sum()
                log_probs.append(chosen.detach())
                entropies.append(ent.detach())
                at += len(r)
        loss.backward()
        out = {"weight." + k: v for k, v in state.items()}
        for k, p in model.named_parameters():
            out["grad." + k] = p.grad.float().contiguous()
        out["log_probs"] = torch.cat(log_probs).float()
        out["entropies"] = torch.cat(entropies).float()
        out["d_log_probs"] = weight.float()
        out["d_entropies"] = weight_entropy.float()
        path = HERE / f"{name}.safetensors"
        save_file(out, path)
        path.chmod(0o644)
        (HERE / f"{name}.config.json").write_text(json.dumps(config.to_dict(), indent=1, sort_keys=True) + "\n")
    note = dict(
        generator="model/testdata/make_golden.py",
        torch=torch.__version__.split("+")[0],
        transformers=transformers.__version__,
        seed=SEED,
        arithmetic="float64; norms, softmax and rotary tables float32, as transformers has them",
        groups=groups,
    )
    (HERE / "golden.json").write_text(json.dumps(note) + "\n")


main()
