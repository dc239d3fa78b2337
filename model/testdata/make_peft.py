#!/usr/bin/env python3
"""Makes the golden values that peft_test.go compares with.

    python3 model/testdata/make_peft.py

For the tiny models of make_golden.py, from the files that it wrote, it has
Hugging Face's peft make adapters of two kinds, draws their weights by a fixed
seed, saves them as peft does, and writes the log-probs of the response tokens
and the gradients of A and B of the same loss as there, in float64.
"""
import json
import pathlib

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

SEED = 20240918
HERE = pathlib.Path(__file__).parent
KINDS = {
    "llama": dict(r=3, lora_alpha=5, target_modules="all-linear"),
    "qwen2": dict(r=4, lora_alpha=8),  # peft's own choice of targets
    "qwen3": dict(r=2, lora_alpha=1, target_modules=["down_proj", "o_proj", "k_proj"]),
}


def main():
    groups = json.loads((HERE / "golden.json").read_text())["groups"]
    for name, kind in KINDS.items():
        golden = load_file(HERE / f"{name}.safetensors")
        config = transformers.AutoConfig.for_model(**json.loads((HERE / f"{name}.config.json").read_text()))
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config)
        weights = {k.removeprefix("weight."): v for k, v in golden.items() if k.startswith("weight.")}
        model.load_state_dict(weights, strict=False)
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **kind))
        torch.manual_seed(SEED)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape) * 0.2)
        directory = HERE / "peft" / name
        model.save_pretrained(directory)
        (directory / "README.md").unlink(missing_ok=True)
        model = model.double()
        log_probs, loss, at = [], torch.zeros((), dtype=torch.float64), 0
        for g in groups:
            for r in g["responses"]:
                ids = torch.tensor([g["prompt"] + r])
                logits = model(input_ids=ids[:, :-1]).logits[0, len(g["prompt"]) - 1 :]
                lp = torch.log_softmax(logits, -1)
                ent = -(lp.exp() * lp).sum(-1)
                chosen = lp.gather(-1, torch.tensor(r)[:, None])[:, 0]
                d, de = (golden[k][at : at + len(r)].double() for k in ("d_log_probs", "d_entropies"))
                loss = loss + (d * chosen).sum() + (de * ent).sum()
                log_probs.append(chosen.detach())
                at += len(r)
        loss.backward()
        out = {"log_probs": torch.cat(log_probs).float()}
        for k, p in model.named_parameters():
            if p.requires_grad:  # as its file names it
                out["grad." + k.replace(".default.weight", ".weight")] = p.grad.float().contiguous()
        save_file(out, directory / "values.safetensors", metadata={"peft": peft.__version__, "torch": torch.__version__.split("+")[0]})
        for f in directory.iterdir():
            f.chmod(0o644)


main()
