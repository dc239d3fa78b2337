// Package cloud is the other side of a collaboration: the Cloud interface, the
// simulated cloud, and the ledger that asks for an answer at most once and
// counts what it cost.
//
// Where to start reading:
//
//   - cloud.go is the interface that a user implements, errors.go how it says
//     that an answer could not be had.
//   - simulated.go is a cloud made of a solver, right on a fixed share of all
//     questions: no network, the same answers in every run.
//   - ledger.go asks a cloud on behalf of a run: at most once per question, with
//     bounded concurrency, each call journalled before it is sent and its
//     outcome before it is used.
//   - store.go is what a ledger remembers, in memory or (disk.go) in a file
//     that survives the end of the process at any instant; limits.go keeps its
//     calls within bounds that survive too.
//   - openai.go is a cloud behind OpenAI's protocol. It sends one request for one
//     call; call.go in the ledger is the only place that repeats one, because a
//     repetition that nobody counts is a call that nobody budgeted.
//     _conformance compares it with OpenAI's own client (make conformance).
package cloud
