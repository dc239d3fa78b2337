#!/bin/sh
# PyTorch and transformers from PyPI. The wheel that PyPI has for Linux needs NVIDIA's libraries to load, on a machine
# without a GPU too: 3 GB to download, 6 GB on the disk. What computes on a CPU in it is the same as in the CPU-only wheel.
set -eu
cd "$(dirname "$0")"
test -x .env/bin/python || python3 -m venv .env
.env/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
