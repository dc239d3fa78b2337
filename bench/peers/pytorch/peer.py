"""PyTorch: training, prefill and decode of a Llama through transformers, float32, scaled_dot_product_attention."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers
from transformers import DynamicCache, LlamaForCausalLM, StaticCache

import protocol


def load(request):
    return LlamaForCausalLM.from_pretrained(request["model"], dtype=torch.float32, attn_implementation="sdpa")


def tokens(request, rows, columns):
    return torch.from_numpy(np.fromfile(request["tokens"], "<i4").astype(np.int64).reshape(rows, columns))


class Train:
    """Zero the gradients, forward, mean cross-entropy, backward, AdamW.

    eager is transformers as it comes; compiled is the same step with the model under torch.compile. Each variant trains a
    model of its own, from the same weights.
    """
    variants = ["eager", "compiled"]

    def __init__(self, request):
        self.request = request
        self.ids = tokens(request, request["sequences"], request["length"])
        self.states = {}

    def begin(self, variant):
        if variant not in self.states:
            self.states[variant] = self.State(load(self.request), variant == "compiled")

    class State:
        def __init__(self, model, compiled):
            model.train()
            model.config.use_cache = False
            self.parameters = list(model.parameters())
            self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, fused=True)
            self.model = torch.compile(model) if compiled else model
            self.losses = []
            self.norm = None

    def repeat(self, variant):
        s = self.states[variant]
        s.optimizer.zero_grad()
        loss = s.model(input_ids=self.ids, labels=self.ids).loss
        loss.backward()
        if s.norm is None:  # of the first repeat alone; the harness's first run is not timed
            s.norm = torch.nn.utils.get_total_norm([p.grad for p in s.parameters]).item()
        s.optimizer.step()
        s.losses.append(loss.item())

    def output(self, variant):
        s = self.states[variant]
        return np.array([s.losses[0], s.norm, *s.losses[1:]], np.float32)


class Prefill:
    """The prompt from an empty cache, the last position's logits."""
    variants = ["prefill"]

    def __init__(self, request):
        self.model = load(request).eval()
        self.ids = tokens(request, 1, request["length"])

    def begin(self, variant):
        pass

    @torch.inference_mode()
    def repeat(self, variant):
        self.logits = self.model(input_ids=self.ids, use_cache=True, logits_to_keep=1).logits

    def output(self, variant):
        self.repeat(variant)
        return self.logits[0, -1].numpy()


class Decode:
    """Steps of the whole batch over a cache that holds the prompts; the cache is wound back between repeats.

    dynamic is the cache that generate uses, which grows by a copy at each step; static has its places from the start.
    """
    variants = ["dynamic", "static"]

    @torch.inference_mode()
    def __init__(self, request):
        self.prompt, self.new = request["prompt"], request["new"]
        self.model = load(request).eval()
        self.ids = tokens(request, request["batch"], self.prompt + self.new)
        total = self.prompt + self.new
        self.caches = {"dynamic": DynamicCache(config=self.model.config), "static": StaticCache(config=self.model.config, max_cache_len=total)}
        for cache in self.caches.values():
            self.model(input_ids=self.ids[:, :self.prompt], past_key_values=cache, logits_to_keep=1)

    def begin(self, variant):
        pass

    @torch.inference_mode()
    def repeat(self, variant):
        cache = self.caches[variant]
        for i in range(self.prompt, self.prompt + self.new):
            self.logits = self.model(input_ids=self.ids[:, i:i + 1], past_key_values=cache).logits
        cache.crop(-self.new)

    def output(self, variant):
        self.repeat(variant)
        return self.logits[:, -1].numpy()


def main():
    torch.set_num_threads(protocol.threads())
    torch.manual_seed(0)
    hello = {
        "peer": "pytorch", "version": torch.__version__,
        "detail": f"transformers {transformers.__version__}, sdpa, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
    }
    protocol.serve(hello, {"train": Train, "prefill": Prefill, "decode": Decode}, settle=0.01)


main()
