"""Steps of libraries that users would take: transformers, and TRL at a pinned version."""
import tempfile

import torch

from timing import host_round

TRL = "1.16.0"


def model(r, context, **more):
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=r["vocab"], hidden_size=r["hidden"], intermediate_size=r["ffn"], num_hidden_layers=r["layers"],
        num_attention_heads=r["heads"], num_key_value_heads=r["kv"], max_position_embeddings=context, rms_norm_eps=1e-6,
        tie_word_embeddings=True, eos_token_id=None, bos_token_id=None, pad_token_id=0, **more)
    torch.manual_seed(1)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(torch.bfloat16)


def version():
    import transformers

    return transformers.__version__


def generate(r):
    """transformers' generate with a static cache. Two lengths are timed, and the
    difference is the steps'."""
    rows, prompt, steps = r["rows"], r["prompt"], r["steps"]
    m = model(r, prompt + 4 * steps).eval()
    ids = torch.randint(1, r["vocab"], (rows, prompt), device="cuda")
    mask = torch.ones_like(ids)

    def run(n):
        with torch.no_grad():
            m.generate(ids, attention_mask=mask, do_sample=True, top_k=0, min_new_tokens=n, max_new_tokens=n, cache_implementation="static")

    short, long = host_round(lambda: run(steps)), host_round(lambda: run(3 * steps))
    for f in (short, long):
        f()
    return f"transformers {version()} generate, static cache", lambda: max((long() - short()) / (2 * steps), 1e-9)


def train(r):
    s, n = r["sequences"], r["length"]
    m = torch.compile(model(r, n + 1).train())
    optimizer = torch.optim.AdamW(m.parameters(), lr=1e-6, fused=True)
    ids = torch.randint(1, r["vocab"], (s, n), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        m(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0, foreach=True)
        optimizer.step()

    for _ in range(2):
        step()
    return f"transformers {version()}, torch.compile, fused AdamW on bf16", host_round(step)


def grpo_trl(r):
    """Whole steps of TRL's GRPOTrainer, with transformers' generation."""
    import trl

    if trl.__version__ != TRL:
        raise RuntimeError(f"TRL {TRL} is wanted, {trl.__version__} is here")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [f"w{i}" for i in range(r["vocab"] - 2)]
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<eos>"] + words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left")
    prompts = [" ".join(f"w{(7 * i + j) % len(words)}" for j in range(r["length"])) for i in range(64 * r["prompts"])]
    rows = r["prompts"] * r["group"]
    with tempfile.TemporaryDirectory() as directory:
        args = trl.GRPOConfig(
            output_dir=directory, per_device_train_batch_size=max(1, rows // 16), gradient_accumulation_steps=min(16, rows),
            num_generations=r["group"], max_completion_length=r["completion"], learning_rate=1e-6, beta=0.0, bf16=True, max_steps=2,
            save_strategy="no", report_to=[], logging_steps=1, optim="adamw_torch_fused", temperature=1.0,
            generation_kwargs={"min_new_tokens": r["completion"]}, disable_tqdm=True)
        trainer = trl.GRPOTrainer(
            model=model(r, r["length"] + r["completion"]), args=args, processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))])
    return f"TRL {TRL} GRPOTrainer, transformers {version()}", host_round(trainer.train, 2)


KINDS = {"generate-transformers": generate, "train-transformers": train, "grpo-trl": grpo_trl}
