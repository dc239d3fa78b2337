// Package enginetest is the conformance suite for engine.Backend, and backends
// for tests: NewReference computes and stores in float64, NewRounding computes in
// float64 and stores in F32 and BF16, NewNoisy and NewErring err at random, as far as
// a device may, NewDeferred proves of the layers above that they need no host
// memory.
//
// A backend's test calls the suite in a line:
//
//	func TestConformance(t *testing.T) {
//		enginetest.Run(t, func(t testing.TB) engine.Backend { return cpu.New(2) })
//	}
//
// Every case is a Check, a function that returns an error, so that the suite's
// own teeth can be tested: package tests inject one defect at a time into a
// backend and demand that the named check fails.
//
// Run goes through everything at F32 and, where Backend.Precision says that the
// device can, through all that has matrices or activations once more at BF16.
// The cases are written once, for whatever types env says weights and
// activations are of.
//
// Where to add a case: each operation has a file (linear.go, norm.go,
// attention.go, ...) whose xxxChecks function lists its cases; suite.go joins
// the lists. env.go holds what cases share: tensors with canaries around them,
// comparison with tolerances. tolerance.go derives the tolerance of each
// operation from its operands.
//
// The package is not for production code: it imports testing.
package enginetest
