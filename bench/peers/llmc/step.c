/* Measures training steps of llm.c's CPU reference on a GPT-2 of 124M parameters with random weights: 4 sequences of
   64 random tokens, forward, backward and AdamW, as its own main loop takes them. See ../README.md.

   Output, on standard output: {"seconds": [each counted step], "tokens": 256, "parameters": n, "loss": the last one} */
#define TESTING /* leaves llm.c's own main out */
#include "train_gpt2.c"

static float uniform(uint64_t *s) { /* of variance 1 */
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return ((float)(*s >> 40) / (1 << 24) - 0.5f) * 3.4641016f;
}

static void write_checkpoint(const char *path) {
    GPT2Config c = {.max_seq_len = 1024, .vocab_size = 50257, .padded_vocab_size = 50304, .num_layers = 12, .num_heads = 12, .channels = 768};
    int header[256] = {20240326, 3, c.max_seq_len, c.vocab_size, c.num_layers, c.num_heads, c.channels, c.padded_vocab_size};
    size_t sizes[NUM_PARAMETER_TENSORS];
    uint64_t state = 1;
    FILE *f = fopenCheck(path, "wb");
    fwrite(header, sizeof(int), 256, f);
    fill_in_parameter_sizes(sizes, c);
    for (int i = 0; i < NUM_PARAMETER_TENSORS; i++) {
        /* ln1w, ln2w and lnfw, in its order of the parameters, are ones */
        int gain = i == 2 || i == 8 || i == 14;
        for (size_t j = 0; j < sizes[i]; j++) {
            float v = gain ? 1 : 0.02f * uniform(&state);
            fwrite(&v, sizeof v, 1, f);
        }
    }
    fcloseCheck(f);
}

int main(int argc, char **argv) {
    enum { B = 4, T = 64, WARM = 2 };
    int steps = argc > 1 ? atoi(argv[1]) : 15, tokens[B * T + 1];
    char path[] = "/tmp/llmc-XXXXXX";
    close(mkstemp(path));
    write_checkpoint(path);
    FILE *out = fdopen(dup(1), "w");
    dup2(2, 1); /* what llm.c prints is no result */
    GPT2 model;
    gpt2_build_from_checkpoint(&model, path);
    unlink(path);
    uint64_t state = 2;
    for (int i = 0; i <= B * T; i++)
        tokens[i] = (int)((uniform(&state) / 3.4641016f + 0.5f) * 50256);
    fprintf(out, "{\"seconds\": [");
    for (int step = 0; step < WARM + steps; step++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        gpt2_forward(&model, tokens, tokens + 1, B, T);
        gpt2_zero_grad(&model);
        gpt2_backward(&model);
        gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, step + 1);
        clock_gettime(CLOCK_MONOTONIC, &end);
        if (step >= WARM)
            fprintf(out, "%s%.4f", step > WARM ? ", " : "", (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9);
    }
    fprintf(out, "], \"tokens\": %d, \"parameters\": %zu, \"loss\": %.4f}\n", B * T, model.num_parameters, model.mean_loss);
    return 0;
}
