#!/bin/sh
# TRL from PyPI, beside PyTorch in ../pytorch/.env.
set -eu
cd "$(dirname "$0")"
../pytorch/setup.sh
../pytorch/.env/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
