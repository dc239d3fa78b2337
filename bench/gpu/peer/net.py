"""Whole steps in plain PyTorch, put together to be fast: a decoder of Qwen2's
architecture, torch.compile, fused AdamW, a static cache with CUDA graphs. Random
weights in bf16, without F32 masters: less to do than ours."""
import torch
import torch.nn.functional as F
from torch import nn

from timing import host_round

BF16 = torch.bfloat16


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    def __init__(self, r):
        super().__init__()
        self.h, self.kv, self.d = r["heads"], r["kv"], r["dim"]
        c, f = r["hidden"], r["ffn"]
        self.norm1, self.norm2 = nn.RMSNorm(c, 1e-6), nn.RMSNorm(c, 1e-6)
        self.qkv = nn.Linear(c, (self.h + 2 * self.kv) * self.d)
        self.o = nn.Linear(self.h * self.d, c, bias=False)
        self.gate_up, self.down = nn.Linear(c, 2 * f, bias=False), nn.Linear(f, c, bias=False)

    def forward(self, x, cos, sin, attend):
        b, t, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, self.h + 2 * self.kv, self.d).transpose(1, 2)
        q, k, v = qkv.split((self.h, self.kv, self.kv), 1)
        o = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + self.o(o.transpose(1, 2).reshape(b, t, -1))
        g, u = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(g) * u)


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


class Decoder(nn.Module):
    def __init__(self, r, context):
        super().__init__()
        self.embed = nn.Embedding(r["vocab"], r["hidden"])
        self.layers = nn.ModuleList(Layer(r) for _ in range(r["layers"]))
        self.norm = nn.RMSNorm(r["hidden"], 1e-6)
        angle = torch.outer(torch.arange(context), 1e6 ** (-torch.arange(0, r["dim"], 2) / r["dim"]))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def hidden(self, ids):
        t = ids.shape[1]
        x = self.embed(ids)
        for y in self.layers:
            x = y(x, self.cos[:t], self.sin[:t], causal)
        return self.norm(x)

    def loss(self, ids, weights):
        """Σ weight · log-prob of each next token, negated."""
        z = F.linear(self.hidden(ids[:, :-1]), self.embed.weight).float()
        nll = F.cross_entropy(z.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (nll * weights.flatten()).sum()


def decoder(r, context):
    torch.manual_seed(1)
    with torch.device("cuda"):
        m = Decoder(r, context)
    for p in m.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.02)
    return m.to(BF16)


class Generator:
    """Prefill, then decode steps from one CUDA graph over a static cache."""

    def __init__(self, m, r, rows, context):
        self.m, self.rows, self.context = m, rows, context
        shape = (r["layers"], 2, rows, r["kv"], context, r["dim"])
        self.cache = torch.zeros(shape, device="cuda", dtype=BF16)
        self.ids = torch.zeros(rows, 1, device="cuda", dtype=torch.long)
        self.at = torch.zeros(1, device="cuda", dtype=torch.long)
        self.out = torch.zeros(rows, context, device="cuda", dtype=torch.long)
        self.places = torch.arange(context, device="cuda")
        self.compiled = torch.compile(self.step)
        self.graph = None

    def step(self):
        m = self.m
        cos, sin = m.cos[self.at], m.sin[self.at]
        mask = (self.places <= self.at).view(1, 1, 1, -1)
        x = m.embed(self.ids)
        for y, (ks, vs) in zip(m.layers, self.cache):

            def attend(q, k, v):
                ks.index_copy_(2, self.at, k)
                vs.index_copy_(2, self.at, v)
                # A group's query heads see the same keys, so they can be rows of one head.
                rows, kv, _, d = k.shape
                return F.scaled_dot_product_attention(q.reshape(rows, kv, -1, d), ks, vs, attn_mask=mask).reshape(q.shape)

            x = y(x, cos, sin, attend)
        p = torch.softmax(F.linear(m.norm(x[:, -1]), m.embed.weight).float(), -1)
        # The exponential race, which is multinomial without its synchronisation.
        return (p / torch.empty_like(p).exponential_()).argmax(-1, keepdim=True)

    def advance(self):
        token = self.compiled()
        self.ids.copy_(token)
        self.at.add_(1)
        self.out.index_copy_(1, self.at.clamp(max=self.context - 1), token)

    @torch.no_grad()
    def prefill(self, ids):
        n = ids.shape[1]
        part = max(1, 8192 // n)
        for i in range(0, len(ids), part):
            x = self.m.embed(ids[i : i + part])
            for l, y in enumerate(self.m.layers):

                def attend(q, k, v):
                    self.cache[l, 0, i : i + part, :, :n] = k
                    self.cache[l, 1, i : i + part, :, :n] = v
                    return causal(q, k, v)

                x = y(x, self.m.cos[:n], self.m.sin[:n], attend)
        self.out[:, :n] = ids
        self.ids.copy_(ids[:, -1:])
        self.at.fill_(n - 1)

    @torch.no_grad()
    def decode(self, steps):
        if self.graph is None:
            ids, at = self.ids.clone(), self.at.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.advance()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.advance()
            self.ids.copy_(ids)
            self.at.copy_(at)
        for _ in range(steps):
            self.graph.replay()


def generate(r):
    """Decode steps in the middle of a generation."""
    rows, prompt, steps = r["rows"], r["prompt"], r["steps"]
    context = prompt + 8 * steps
    with torch.no_grad():
        g = Generator(decoder(r, context), r, rows, context)
        g.prefill(torch.randint(r["vocab"], (rows, prompt), device="cuda"))
        g.decode(steps)
        torch.cuda.synchronize()

    def run():
        g.at.fill_(prompt + 3 * steps)
        g.decode(steps)

    return "plain PyTorch: static cache, compiled step in a CUDA graph, no shared prompt", host_round(run, steps)


class Trainer:
    def __init__(self, m):
        self.m = m
        self.parameters = list(m.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6, fused=True)
        self.loss = torch.compile(m.loss)

    def step(self, batches):
        self.optimizer.zero_grad(set_to_none=True)
        for ids, weights in batches:
            self.loss(ids, weights).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()


def train(r):
    s, n = r["sequences"], r["length"]
    t = Trainer(decoder(r, n + 1))
    ids, w = torch.randint(r["vocab"], (s, n + 1), device="cuda"), torch.full((s, n), 1 / (s * n), device="cuda")
    for _ in range(2):
        t.step([(ids, w)])
    return "plain PyTorch: compiled forward and backward, fused AdamW on bf16", host_round(lambda: t.step([(ids, w)]))


def grpo(r):
    """Generate, then one update on everything, prompts repeated for each response."""
    rows, n, c = r["prompts"] * r["group"], r["length"], r["completion"]
    m = decoder(r, n + c)
    g, t = Generator(m, r, rows, n + c), Trainer(m)
    prompts = torch.randint(r["vocab"], (r["prompts"], n), device="cuda").repeat_interleave(r["group"], 0)
    part = max(1, 8192 // (n + c))

    def step():
        g.prefill(prompts)
        g.decode(c)
        weights = torch.zeros(rows, n + c - 1, device="cuda")
        weights[:, n - 1 :] = 1 / (rows * c)
        weights[1::2] *= -1
        t.step([(g.out[i : i + part], weights[i : i + part]) for i in range(0, rows, part)])

    step()
    return "plain PyTorch: static cache in a CUDA graph, compiled update, fused AdamW", host_round(step)


KINDS = {"generate": generate, "train": train, "grpo": grpo}
