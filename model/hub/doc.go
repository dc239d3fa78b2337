// Package hub fetches checkpoints from the Hugging Face Hub, or a server that
// speaks its protocol, into the cache that the Hub's own library keeps:
//
//	models--ORG--NAME/refs/REVISION      the commit that a branch or tag is
//	models--ORG--NAME/blobs/ETAG         a file's bytes, under its checksum
//	models--ORG--NAME/snapshots/COMMIT/  links to them under the files' names
//
// so that transformers finds what Updraft has fetched, and the other way round
// (bench/peers/hub.py has both share one cache). A
// snapshot that is complete is used as it is, without asking the server. What is
// fetched goes to ETAG.incomplete first, is resumed there after an interruption,
// and is checked against its SHA-256 (large files) or its git blob's SHA-1.
//
// Only what a checkpoint needs is fetched: config.json, the tokenizer's files, the
// note that updraft export writes and the safetensors weights. Weights in PyTorch's
// pickle format are not, for to read them is to run a program.
//
// It uses net/http alone, does not read flags, and prints nothing. Start reading
// at Client.Fetch.
package hub
