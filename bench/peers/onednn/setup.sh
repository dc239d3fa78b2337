#!/bin/sh
# oneDNN with OpenMP threads from PyPI's onednn-cpu-gomp. PyPI's newer oneDNN (3.13) is built on SYCL and TBB alone: the same
# kernels for float32 (README.md has the comparison), dearer calls, 2 GB to install. Needs Python with pip, and g++.
set -eu
cd "$(dirname "$0")"
version=2023.2.0
test -f "build/$version/lib/libdnnl.so.3" || {
    rm -rf build
    mkdir -p build/wheels
    python3 -m pip download --quiet --no-deps --dest build/wheels onednn-cpu-gomp==$version onednn-devel-cpu-gomp==$version
    for wheel in build/wheels/*.whl; do python3 -m zipfile -e "$wheel" build/wheels; done
    mkdir "build/$version"
    mv build/wheels/onednn_cpu_gomp-*.data/data/lib build/wheels/onednn_devel_cpu_gomp-*.data/data/include "build/$version"
    rm -r build/wheels
}
lib=$PWD/build/$version
g++ -std=c++17 -O2 -I"$lib/include" peer.cpp -o build/peer -L"$lib/lib" -l:libdnnl.so.3 -Wl,-rpath,"$lib/lib"
