"""Makes quants.gguf: for each type of tensor that Updraft reads, two rows of
blocks of random bytes and, under NAME.expected, what the gguf package makes of
them. Usage: python3 make_gguf.py (needs gguf and numpy)."""
import importlib.metadata
import os

import gguf
import numpy as np
from gguf.quants import dequantize

rng = np.random.default_rng(5)
types = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
two_scales = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")
w = gguf.GGUFWriter(os.path.join(os.path.dirname(__file__), "quants.gguf"), "llama")
w.add_string("made.by", "gguf " + importlib.metadata.version("gguf"))
w.add_array("made.list", ["a", "", "ü"])
w.add_array("made.numbers", [1, -2, 3])
w.add_bool("made.bool", True)
w.add_float32("made.float", 0.5)
for name in types:
    t = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[t]
    cols = max(block, 32)
    raw = rng.integers(0, 256, (2, cols // block * size), dtype=np.uint8)
    # Scales that are finite: random bytes hold NaN and infinity now and then.
    if name in ("F16", "BF16"):
        at = list(range(0, raw.shape[1], 2))
    else:
        at = [208] if name == "Q6_K" else [0, 2] if name in two_scales else [0]
    for i in at:
        raw[:, i + 1] &= 0xBF
        raw[:, i + 1] |= 0x01
    w.add_tensor(name, raw, raw_dtype=t)
    w.add_tensor(name + ".expected", dequantize(raw, t).astype(np.float32))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
