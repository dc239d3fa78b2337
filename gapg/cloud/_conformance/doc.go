// Package conformance compares package cloud's client with OpenAI's own, openai-go:
// both ask the same server, send it the same requests, and get the same answers,
// counts of tokens and failures. It is a module of its own, so that Updraft does not
// depend on openai-go. From the root of the repository:
//
//	go -C gapg/cloud/_conformance test ./...
package conformance
