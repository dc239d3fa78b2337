package gapg

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// judgeLimit bounds one verifier call. A verifier that takes longer leaves its
// group unresolved.
const judgeLimit = 30 * time.Second

// judgeAll judges every rollout, several at once. A rollout that could not be
// judged leaves its group unresolved; only the end of ctx is an error.
func judgeAll(ctx context.Context, task Task, groups []*Group) error {
	type item struct {
		g *Group
		r *Rollout
	}
	var items []item
	for _, g := range groups {
		for i := range g.Rollouts {
			items = append(items, item{g, &g.Rollouts[i]})
		}
	}
	errs := make([]error, len(items))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(items), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(items) || ctx.Err() != nil {
					return
				}
				one, cancel := context.WithTimeout(ctx, judgeLimit)
				items[i].r.Verdict, errs[i] = task.Judge(one, items[i].g.Prompt, items[i].r.Text)
				cancel()
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil && items[i].g.Unresolved == "" {
			items[i].g.Unresolved = fmt.Sprintf("verifier: %v", err)
		}
	}
	return ctx.Err()
}
