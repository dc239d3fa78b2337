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
// testdata/pairs.txt holds what Math accepts and refuses, by kind of answer: over
// 700 pairs, on all of which it agrees with the file. math-verify 0.9.0 agrees on
// 322 of the 382 that are the same and on 315 of the 330 that are not (measured by
// testdata/peer.py, whose head gives the command). Of its 75 differences some are
// other conventions (units that differ, a percentage in words), the others forms
// that it does not read (0.\overline{3}, \mathbb{R}, 1:2:3). Its own hard cases are
// not in the file, so this says what Math covers, not which of the two is better.
//
// Start reading at math.go, then parse.go and compare.go.
package answer
