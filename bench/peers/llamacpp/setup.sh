#!/bin/sh
# llama.cpp as npm's node-llama-cpp carries it: libraries for every x86-64 CPU (ggml chooses by what this one has), and the
# release's sources as a git bundle, of which the headers are used. Needs npm, git and g++.
set -eu
cd "$(dirname "$0")"
package=3.22.1 release=v0.5.0
test -f "build/$package/headers/llama.h" || {
    rm -rf build
    mkdir -p "build/$package/headers"
    cd "build/$package"
    npm pack --silent @node-llama-cpp/linux-x64@$package node-llama-cpp@$package >packed
    tar -xzf node-llama-cpp-linux-x64-$package.tgz --strip-components=3 package/bins/linux-x64
    tar -xzf node-llama-cpp-$package.tgz --strip-components=2 package/llama/gitRelease.bundle package/llama/binariesGithubRelease.json
    rm -- *.tgz packed
    grep -q "\"$release\"" binariesGithubRelease.json
    git clone --quiet --bare gitRelease.bundle source
    git -C source archive HEAD include ggml/include | tar -xf - --transform 's|.*/\([^/]*[.]h\)$|headers/\1|' --wildcards "*.h"
    rm -r source gitRelease.bundle
    cd ../..
}
lib=$PWD/build/$package
g++ -std=c++17 -O2 -I"$lib/headers" -DLLAMA_RELEASE="\"$release\"" -DLLAMA_LIBRARIES="\"$lib\"" peer.cpp -o build/peer \
    -L"$lib" -l:libllama.$release.so -l:libggml.$release.so -l:libggml-base.so -Wl,-rpath,"$lib"
