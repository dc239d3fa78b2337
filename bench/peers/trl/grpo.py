"""Measures a step of TRL's GRPOTrainer on the CPU, float32, for a Llama of random weights in SmolLM2-135M's shape.

    bench/peers/trl/setup.sh
    bench/peers/trl/run [--steps N] [--micro M] [--gradient-checkpointing] [--tiny]

Every step samples 8 responses of 256 tokens to each of 8 prompts of 64 tokens and makes one update of AdamW from all of
them, --micro responses at a time. Every second response of a group is rewarded, so that each has a gradient. There are no
reference model (beta 0) and no evaluation. The result is one JSON object on stdout:

    seconds              of each step after the first, which is not counted
    median_seconds
    peak_rss             bytes, the whole process
    rss_after_import     bytes, before there is a model: PyTorch's CUDA libraries, which a build for CPUs lacks, are in it
    completion_tokens    mean length of the responses; below --length where a response ended by itself
"""
import argparse
import json
import os
import random
import resource
import statistics
import string
import sys
import tempfile
import time

STDOUT = os.dup(1)
os.dup2(2, 1)  # what libraries print is no result

import datasets
import tokenizers
import torch
import transformers
import trl

SMOLLM2 = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, rope_theta=100000.0)
TINY = dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, rope_theta=10000.0)


def peak_rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


class Clock(transformers.TrainerCallback):
    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def tokenizer():
    """A token for each byte, so that a prompt has as many tokens as letters."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    t = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(letters)}, []))
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|end|>", pad_token="<|pad|>")


def every_second(completions, **_):
    return [float(i % 2) for i in range(len(completions))]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--steps", type=int, default=3, help="counted steps")
    arguments.add_argument("--prompts", type=int, default=8)
    arguments.add_argument("--generations", type=int, default=8)
    arguments.add_argument("--length", type=int, default=256, help="tokens of a response")
    arguments.add_argument("--prompt-length", type=int, default=64)
    arguments.add_argument("--micro", type=int, default=8, help="responses in one forward and backward (per_device_train_batch_size)")
    arguments.add_argument("--gradient-checkpointing", action="store_true", help="TRL's default: less memory, more time")
    arguments.add_argument("--tiny", action="store_true", help="a tiny model and short responses, to see that it runs")
    a = arguments.parse_args()
    if a.tiny:
        a.length, a.prompt_length = 16, 8
    imported = peak_rss()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    random.seed(1)
    torch.manual_seed(1)
    clock = Clock()
    tok = tokenizer()
    config = transformers.LlamaConfig(
        **(TINY if a.tiny else SMOLLM2), tie_word_embeddings=True, max_position_embeddings=2048, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )
    model = transformers.LlamaForCausalLM._from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    responses = a.prompts * a.generations
    prompts = ["".join(random.choices(string.ascii_lowercase, k=a.prompt_length)) for _ in range(a.prompts * (a.steps + 1))]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=model, reward_funcs=every_second, processing_class=tok, train_dataset=datasets.Dataset.from_dict({"prompt": prompts}), callbacks=[clock],
            args=trl.GRPOConfig(
                output_dir=folder, use_cpu=True, bf16=False, seed=1, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
                max_steps=a.steps + 1, per_device_train_batch_size=a.micro, gradient_accumulation_steps=responses // a.micro,
                num_generations=a.generations, max_completion_length=a.length, learning_rate=1e-6, gradient_checkpointing=a.gradient_checkpointing,
                dataloader_pin_memory=False,
            ),
        )
        trainer.train()
    seconds = [after - before for before, after in zip(clock.ends, clock.ends[1:])]
    lengths = [line["completions/mean_length"] for line in trainer.state.log_history if "completions/mean_length" in line]
    norms = [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]
    if not all(n > 0 for n in norms) or len(seconds) != a.steps:
        sys.exit(f"a step had no gradient or was left out: gradient norms {norms}, {len(seconds)} steps")
    result = {
        "trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "prompts": a.prompts, "generations": a.generations, "length": a.length, "prompt_length": a.prompt_length, "micro": a.micro,
        "gradient_checkpointing": a.gradient_checkpointing, "parameters": model.num_parameters(), "seconds": seconds,
        "median_seconds": statistics.median(seconds), "peak_rss": peak_rss(), "rss_after_import": imported,
        "completion_tokens": statistics.mean(lengths), "load": os.getloadavg()[0],
    }
    os.write(STDOUT, (json.dumps(result, indent=1) + "\n").encode())


main()
