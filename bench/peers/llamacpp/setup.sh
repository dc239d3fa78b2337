#!/bin/sh
# llama.cpp as npm's node-llama-cpp carries it: libraries for every x86-64 CPU (ggml chooses by what this one has), and the
# release's sources as a git bundle, of which the headers are used and the backend for BLAS, which the libraries lack, is
# compiled, against ../openblas. Needs npm, git and g++, and what ../openblas needs.
set -eu
cd "$(dirname "$0")"
package=3.22.1 release=v0.5.0
../openblas/setup.sh
test -d "build/$package/source" || {
    rm -rf build
    mkdir -p "build/$package"
    cd "build/$package"
    npm pack --silent @node-llama-cpp/linux-x64@$package node-llama-cpp@$package >packed
    tar -xzf node-llama-cpp-linux-x64-$package.tgz --strip-components=3 package/bins/linux-x64
    tar -xzf node-llama-cpp-$package.tgz --strip-components=2 package/llama/gitRelease.bundle package/llama/binariesGithubRelease.json
    rm -- *.tgz packed
    grep -q "\"$release\"" binariesGithubRelease.json
    git clone --quiet --bare gitRelease.bundle git
    mkdir source
    git -C git archive HEAD include ggml/include ggml/src | tar -xf - -C source
    rm -rf git gitRelease.bundle
    cd ../..
}
lib=$PWD/build/$package
source=$lib/source
openblas=$(cd ../openblas/build/[0-9]*/scipy_openblas32 && pwd)
names= # scipy's OpenBLAS puts a prefix before them
for f in cblas_sgemm openblas_set_num_threads openblas_get_parallel; do names="$names -D$f=scipy_$f"; done
g++ -std=c++17 -O2 -shared -fPIC -I"$source/ggml/src" -I"$source/ggml/include" -I"$openblas/include" $names \
    -DGGML_BLAS_USE_OPENBLAS -DGGML_SHARED -DGGML_BACKEND_SHARED -DGGML_BACKEND_BUILD -DGGML_BACKEND_DL \
    "$source/ggml/src/ggml-blas/ggml-blas.cpp" -o build/libggml-blas.so \
    -L"$lib" -l:libggml-base.so -L"$openblas/lib" -l:libscipy_openblas.so -Wl,-rpath,"$lib:$openblas/lib"
g++ -std=c++17 -O2 -I"$source/include" -I"$source/ggml/include" \
    -DLLAMA_RELEASE="\"$release\"" -DLLAMA_LIBRARIES="\"$lib\"" -DLLAMA_BLAS="\"$PWD/build/libggml-blas.so\"" peer.cpp -o build/peer \
    -L"$lib" -l:libllama.$release.so -l:libggml.$release.so -l:libggml-base.so -Wl,-rpath,"$lib"
