// Package testx holds helpers for tests of the other packages: page-protected
// buffers (guard.go) and the one way to skip for something absent (need.go).
// Nothing outside _test.go files imports it.
package testx
