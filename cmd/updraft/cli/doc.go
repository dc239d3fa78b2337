// Package cli is the command line of Updraft as a package: New makes the root
// command, Main runs it with signals and exit codes. Options take further
// algorithms, tasks and rewards, so that a program of ten lines is Updraft with
// a task of its own.
//
// It holds flags, configuration files, wiring and printing. What trains,
// evaluates or judges is in package gapg and below; nothing here decides
// anything about the method.
//
// Exit codes: 0 for success, 2 for input that cannot be used (a flag, a file, a
// configuration) and for a training whose loss is not finite, 130 and 143 after
// an interrupt and a termination, 1 for everything else.
//
// Standard output holds results alone (with --json exactly one JSON object);
// logs and progress go to standard error.
//
// Start reading at cli.go, then config.go (flags and run.yaml), then train.go.
package cli
