// Package cloud is the other side of a collaboration: the Cloud interface, the
// simulated cloud, and the ledger that asks for an answer at most once and
// counts what it cost.
package cloud
