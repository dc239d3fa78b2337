// Package task holds problems with verifiable answers: what a prompt says, how
// a response is read, and when an answer is right.
//
// It is the only judge of correctness in the program, so everything that reads
// a model's output is written for an adversary: a policy under training will
// find whatever a lenient verifier lets through.
//
// Where to start reading:
//
//   - parse.go reads a response of any task: does it ask for help, does it keep
//     the format, what is its answer.
//   - countdown.go defines a Countdown problem, its key and its prompt.
//   - verify.go decides whether an answer solves a problem.
//   - solve.go is the exact solver, generate.go the seeded generator and the
//     split of all problems into disjoint parts.
//   - demo.go writes demonstrations for the supervised warm start.
//   - jsonl.go reads problems from files made elsewhere.
//   - selfcheck.go and features.go serve two baselines of the comparison.
//
// It is not a trainer and knows nothing of models, tokens or rewards: those are
// in package gapg, which imports this one. Nothing here has state: every
// function is deterministic in its arguments and safe for concurrent use.
package task
