package cloud_test

import (
	"context"
	"fmt"

	"github.com/updraft-ml/updraft/gapg/cloud"
)

// oracle is a Cloud of one's own: a name and one method.
type oracle struct{}

func (oracle) Name() string { return "oracle-1" }

func (oracle) Answer(_ context.Context, q cloud.Question) (cloud.Answer, error) {
	return cloud.Answer{Text: "42", CostUSD: 0.002}, nil
}

func ExampleLedger() {
	store := cloud.NewMemory() // or cloud.Open(path, …), which survives the process
	defer store.Close()
	l, err := cloud.NewLedger(oracle{}, store, cloud.LedgerConfig{Run: "train"})
	if err != nil {
		panic(err)
	}
	q := cloud.Question{ID: "q1", Text: "What is six times seven?"}
	for step := 1; step <= 3; step++ {
		r, err := l.AnswerAll(context.Background(), step, []cloud.Question{q})
		if err != nil {
			panic(err)
		}
		fmt.Println(step, r[0].Answer.Text, r[0].Cached)
	}
	t := l.Totals(3)
	fmt.Println(t.Calls, t.Hits, t.CostUSD)
	// Output:
	// 1 42 false
	// 2 42 true
	// 3 42 true
	// 1 2 0.002
}
