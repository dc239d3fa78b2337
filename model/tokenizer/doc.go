// Package tokenizer turns text into token ids and back, as Hugging Face's
// tokenizers does from a tokenizer.json, and from the metadata of a GGUF file.
//
// Two kinds of vocabulary are read. Byte-level BPE is that of GPT-2, SmolLM2,
// Llama 3 and Qwen2 to Qwen3: added tokens are cut out first, the rest is
// brought to NFC where the file asks for it, split by one of three known
// patterns (hand-written scanners, no regular expressions) and merged by rank.
// A character vocabulary is BPE without merges whose entries are single
// characters; the demo's models have one. A file that asks for anything else
// (another model, normalizer, pattern, decoder) is refused by the name of what
// it asks for, rather than tokenized wrongly.
//
// Ids equal those of Hugging Face's library, and so does what follows from
// them: a byte without a token vanishes (SmolLM2 has none for some control
// characters). They differ in two things only. Text that is not valid UTF-8 is
// encoded byte by byte where the library takes none, and added tokens decode
// to their own text where the library takes those made of Latin letters with
// accents for bytes. docs/tokenizers.md says what was compared.
//
// It does not render chat templates: model/chat does.
//
// Start reading at Tokenizer, then bpe.go and split.go; file.go has the format.
package tokenizer
