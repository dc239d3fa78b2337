package gapg

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// judgeLimit bounds one call of a verifier unless Config.JudgeTimeout says
// otherwise.
const judgeLimit = 30 * time.Second

// judgeAll is judgeWithin for judgeLimit.
func judgeAll(ctx context.Context, task Task, groups []*Group) error {
	return judgeWithin(ctx, task, groups, judgeLimit)
}

// judgeWithin judges every rollout, several at once. A rollout that could not
// be judged, within the limit or at all, leaves its group unresolved; only the
// end of ctx is an error.
func judgeWithin(ctx context.Context, task Task, groups []*Group, limit time.Duration) error {
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
				one, cancel := context.WithTimeout(ctx, limit)
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
