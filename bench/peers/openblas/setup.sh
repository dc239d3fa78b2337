#!/bin/sh
# OpenBLAS from PyPI's scipy-openblas32 (the library that numpy and scipy carry, with headers), and the peer beside it.
# Needs Python with pip, and g++.
set -eu
cd "$(dirname "$0")"
version=0.3.34.481.3
test -d "build/$version" || {
    rm -rf build
    python3 -m pip install --quiet --root-user-action=ignore --no-deps --target "build/$version" scipy-openblas32==$version
}
lib=$PWD/build/$version/scipy_openblas32
g++ -std=c++17 -O2 -I"$lib/include" peer.cpp -o build/peer -L"$lib/lib" -l:libscipy_openblas.so -Wl,-rpath,"$lib/lib"
