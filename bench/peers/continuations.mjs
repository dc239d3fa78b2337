// Greedy continuations by llama.cpp, for continuations.py.
//
//   node continuations.mjs < request.json > answer.json
//
// request: {"node_modules": DIR, "model": FILE.gguf, "prompts": [[id, ...], ...], "texts": [...], "tokens": N,
//           "conversations": [[template, messages, variables], ...]}
// answer: {"release", "ids": [[...]], "tokenized": [[...]] of texts by llama.cpp, "rendered": the conversations by
//          Hugging Face's Jinja in JavaScript}
//
// float32 throughout where the file is: the KV cache is float32, flash attention off, one thread.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import fs from "node:fs";

const request = JSON.parse(fs.readFileSync(0, "utf8"));
const require = createRequire(request.node_modules + "/package.json");
const load = (name) => import(pathToFileURL(require.resolve(name)));
const answer = {ids: [], tokenized: [], rendered: []};

const {Template} = await load("@huggingface/jinja");
for (const [template, messages, variables] of request.conversations ?? [])
    answer.rendered.push(new Template(template).render({messages, add_generation_prompt: true, ...variables}));

const {getLlama} = await load("node-llama-cpp");
const llama = await getLlama({gpu: false, build: "never", maxThreads: 1, logLevel: "error"});
answer.release = llama.llamaCppRelease.release;
const model = await llama.loadModel({modelPath: request.model});
const context = await model.createContext({
    contextSize: 512, threads: 1, flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
});
const sequence = context.getSequence();
for (const text of request.texts ?? [])
    answer.tokenized.push(model.tokenize(text, true));
for (const prompt of request.prompts) {
    await sequence.clearHistory();
    const ids = [];
    for await (const id of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        ids.push(id);
        if (ids.length >= request.tokens || model.isEogToken(id))
            break;
    }
    answer.ids.push(ids);
}
fs.writeFileSync(1, JSON.stringify(answer));
await llama.dispose();
