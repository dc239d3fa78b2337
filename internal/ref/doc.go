// Package ref holds float64 oracles of every operation in engine.Backend, in
// the plainest loops that state the equations of engine's argument structs.
// Tests compare backends with it; nothing here is fast, and nothing shares
// code with a backend.
//
// Functions take matrices by value and return new ones; where an operation
// adds to its output, the function returns what is to be added. Whatever a
// backward takes from its forward (Rstd, LSE, O, Entropy) is an argument here
// too, so that a comparison feeds both sides the same rounded values.
//
// The package is itself checked by hand-sized tables and by central
// differences of the forward functions. Start reading at linear.go.
package ref
