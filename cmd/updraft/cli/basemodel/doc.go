// Package basemodel holds the small model that the demonstration starts from:
// a Llama-style decoder of 0.7 million parameters over a vocabulary of
// characters, warm-started on Countdown demonstrations and not post-trained. It
// is data, not code: README.md in its directory has the command that makes it.
package basemodel
