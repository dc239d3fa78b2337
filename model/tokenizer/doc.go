// Package tokenizer turns text into token ids and back, from the tokenizer.json
// of Hugging Face's tokenizers.
//
// It reads the part of that format that a character vocabulary needs: added
// tokens, matched first and longest first, over a BPE model without merges
// whose entries are single characters. A file that asks for more (merges,
// normalizers, pre-tokenizers, byte fallback) is refused by the name of what it
// asks for, rather than tokenized wrongly. It does not render chat templates.
//
// Start reading at Tokenizer; file.go has the format.
package tokenizer
