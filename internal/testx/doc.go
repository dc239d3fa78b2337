// Package testx holds helpers for tests of the other packages: the comparator
// with a tolerance for each element and the tolerances themselves (close.go),
// numerical differentiation (gradcheck.go), page-protected buffers (guard.go)
// and the one way to skip for something absent (need.go). Only tests, and
// packages of tests such as engine/enginetest, import it.
package testx
