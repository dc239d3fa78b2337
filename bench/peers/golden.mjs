// Makes model/testdata/llamacpp.json: llama.cpp's greedy continuations of tiny GGUF files of Updraft's.
//
//   npm install --ignore-scripts --prefix peers node-llama-cpp
//   mkdir gguf; UPDRAFT_PEER_GGUF=$PWD/gguf go test ./model -run LlamaCpp    (fails where the files have changed)
//   node bench/peers/golden.mjs peers gguf > model/testdata/llamacpp.json
//
// float32 throughout: weights, KV cache; one thread.
import {createHash} from "node:crypto";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import fs from "node:fs";
import path from "node:path";

const [modules, files] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, "package.json"));
const {getLlama} = await import(pathToFileURL(require.resolve("node-llama-cpp")));
const llama = await getLlama({gpu: false, build: "never", maxThreads: 1, logLevel: "error"});
const TOKENS = 64;
const PROMPTS = [[3], [5, 0, 7], [20, 4, 4, 9, 11, 2, 13], Array.from({length: 40}, (_, i) => (i * 7 + 3) % 28)];
const out = {};
for (const kind of ["llama", "qwen2", "qwen3"]) {
    const file = path.resolve(files, kind + ".gguf");
    const model = await llama.loadModel({modelPath: file});
    const context = await model.createContext({
        contextSize: 128, threads: 1, flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
    });
    const sequence = context.getSequence();
    const ids = [];
    for (const prompt of PROMPTS) {
        await sequence.clearHistory();
        const list = [];
        for await (const id of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            list.push(id);
            if (list.length >= TOKENS || model.isEogToken(id))
                break;
        }
        ids.push(list);
    }
    out[kind] = {
        sha256: createHash("sha256").update(fs.readFileSync(file)).digest("hex"), release: llama.llamaCppRelease.release, prompts: PROMPTS, ids
    };
    await model.dispose();
}
fs.writeFileSync(1, JSON.stringify(out) + "\n");
await llama.dispose();
