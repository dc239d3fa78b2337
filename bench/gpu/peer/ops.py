"""Single operations: cuBLAS through torch.matmul, scaled dot-product attention,
the language-model head, fused AdamW, sampling, copies."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from timing import device_round, sets

BF16 = torch.bfloat16


def random(*shape, dtype=BF16):
    return (torch.rand(*shape, device="cuda") * 2 - 1).to(dtype)


def copy(r):
    n = sets(8 * r["n"], r["quick"])
    src = [random(r["n"], dtype=torch.float32) for _ in range(n)]
    dst = [torch.empty_like(x) for x in src]
    run, how = device_round(lambda i: dst[i].copy_(src[i]), n, r["quick"])
    return f"Tensor.copy_ ({how})", run


def gemm(r):
    """bf16 in and out. Ours of wgrad adds to F32: here the product is written in
    bf16, which is less work."""
    t, n, k = r["t"], r["n"], r["k"]
    a, b, c = {"forward": ((t, k), (n, k), (t, n)), "dgrad": ((t, n), (n, k), (t, k)), "wgrad": ((t, n), (t, k), (n, k))}[r["pass"]]
    count = sets(2 * (a[0] * a[1] + b[0] * b[1] + c[0] * c[1]), r["quick"])
    all = [(random(*a), random(*b), torch.empty(*c, device="cuda", dtype=BF16)) for _ in range(count)]

    def run(i):
        a, b, c = all[i]
        if r["pass"] == "forward":
            torch.matmul(a, b.t(), out=c)
        elif r["pass"] == "dgrad":
            torch.matmul(a, b, out=c)
        else:
            torch.matmul(a.t(), b, out=c)

    run, how = device_round(run, count, r["quick"])
    return f"torch.matmul: cuBLAS ({how})", run


BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}


def best(make):
    """The fastest of PyTorch's backends for make(grouped), measured here. Where a
    backend knows no grouped queries, keys and values are repeated beforehand."""
    found, failed = [], []
    for name, backend in BACKENDS.items():
        for grouped in (True, False):
            try:
                with sdpa_kernel(backend):
                    run, how = make(grouped)
                    run()
                    found.append((min(run() for _ in range(3)), f"{name}{'' if grouped else ', repeated keys'}, {how}", run, backend))
                break
            except Exception as e:
                failed.append(f"{name}: {type(e).__name__}")
                torch.cuda.empty_cache()
    if not found:
        raise RuntimeError("no backend of scaled_dot_product_attention runs this: " + "; ".join(failed))
    _, name, run, backend = min(found, key=lambda f: f[0])

    def round():
        with sdpa_kernel(backend):
            return run()

    return f"SDPA ({name})", round


def heads_of(grouped, heads, kv):
    return kv if grouped else heads


def sdpa(r):
    s, t, h, kv, d = r["sequences"], r["length"], r["heads"], r["kv"], r["dim"]
    backward = r["pass"] == "backward"
    count = sets(2 * s * t * d * (4 * h + 4 * kv) * (2 if backward else 1), r["quick"])

    def make(grouped):
        n = heads_of(grouped, h, kv)

        def one():
            q, k, v = (random(s, x, t, d).requires_grad_(backward) for x in (h, n, n))
            if not backward:
                return q, k, v, None, None
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=n != h)
            return q, k, v, o, torch.randn_like(o)

        all = [one() for _ in range(count)]

        def run(i):
            q, k, v, o, do = all[i]
            if backward:
                torch.autograd.grad(o, (q, k, v), do, retain_graph=True)
            else:
                F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=n != h)

        return device_round(run, count, r["quick"])

    return best(make)


def sdpa_decode(r):
    """One query for each row over keys that lie densely, each row its own: PyTorch
    shares no prompt. A group's query heads see the same keys, so they are rows of
    one head."""
    b, t, h, kv, d = r["rows"], r["tokens"], r["heads"], r["kv"], r["dim"]
    count = sets(4 * b * t * kv * d, r["quick"])

    def make(_):
        all = [(random(b, kv, h // kv, d), random(b, kv, t, d), random(b, kv, t, d)) for _ in range(count)]
        return device_round(lambda i: F.scaled_dot_product_attention(*all[i]), count, r["quick"])

    return best(make)


def head(r):
    """Log-probs of targets, logits whole: torch.compile fuses what follows them."""
    t, c, v = r["t"], r["c"], r["v"]
    x, w = random(t, c).requires_grad_(r["backward"]), random(v, c).requires_grad_(r["backward"])
    y, d = torch.randint(v, (t,), device="cuda"), random(t, dtype=torch.float32)

    @torch.compile
    def logprob(x, w):
        z = F.linear(x, w).float() * 0.125
        return -F.cross_entropy(z, y, reduction="none")

    def run(_):
        if r["backward"]:
            torch.autograd.grad(logprob(x, w), (x, w), d)
        else:
            logprob(x, w)

    run, how = device_round(run, 1, r["quick"], capture=False)
    return f"torch.compile of linear and cross_entropy ({how})", run


def adamw(r):
    n = r["n"]
    p = torch.nn.Parameter(random(n, dtype=torch.float32))
    p.grad = random(n, dtype=torch.float32)
    optimizer = torch.optim.AdamW([p], lr=1e-3, fused=True, capturable=True)
    run, how = device_round(lambda _: optimizer.step(), 1, r["quick"])
    return f"torch.optim.AdamW, fused ({how})", run


def sample(r):
    rows, v, top_p = r["rows"], r["vocab"], r["top_p"]
    count = sets(4 * rows * v, r["quick"])
    all = [random(rows, v, dtype=torch.float32) for _ in range(count)]

    def run(i):
        p = torch.softmax(all[i], -1)
        if top_p < 1:
            p, order = p.sort(-1, descending=True)
            p = torch.where(p.cumsum(-1) - p < top_p, p, 0)
            order.gather(-1, torch.multinomial(p, 1))
        else:
            torch.multinomial(p, 1)

    run, how = device_round(run, count, r["quick"])
    return f"softmax{', sort' if top_p < 1 else ''}, multinomial ({how})", run


KINDS = {"copy": copy, "gemm": gemm, "sdpa": sdpa, "sdpa-decode": sdpa_decode, "head": head, "adamw": adamw, "sample": sample}
