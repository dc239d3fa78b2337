// Command updraft teaches a small language model when to answer and when to ask
// the cloud, measures it and compares it with other methods. All of it is in
// package cli, which takes further algorithms, tasks and rewards.
package main

import (
	"context"
	"os"

	"github.com/updraft-ml/updraft/cmd/updraft/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.Options{}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
