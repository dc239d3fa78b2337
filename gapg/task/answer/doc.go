// Package answer decides whether two answers to a question are the same: as
// text, as a choice, as a number, or as mathematics written in LaTeX.
//
// Math is a small computer-algebra judge: it reads what an answer in LaTeX or
// plain text denotes (a value, a list, a tuple, an interval, a matrix, an
// equation, words) and compares that: rational numbers exactly, everything else
// by evaluating both at the same points. It runs no other program, and its work
// is bounded by the length of its input, which is bounded too.
//
// It is no theorem prover. Expressions that agree at all points to nine digits
// count as equal; a decimal counts as equal to what it was rounded from only
// if it has that many.
//
// Start reading at math.go, then parse.go and compare.go.
package answer
