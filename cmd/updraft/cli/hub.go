package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/updraft-ml/updraft/model/hub"
)

// hubName reads the name of a model on the Hub. What begins with a directory that
// exists is a path with a mistake in it.
func hubName(s string) (hub.Name, bool) {
	n, ok := hub.ParseName(s)
	if ok {
		first, _, _ := strings.Cut(s, "/")
		_, err := os.Stat(first)
		ok = err != nil
	}
	return n, ok
}

// fetch returns the directory of a model of the Hub, from the cache or, with
// progress shown, from the Hub.
func (a *app) fetch(ctx context.Context, flag string, n hub.Name) (string, error) {
	c, err := hub.FromEnv(os.Getenv)
	if err != nil {
		return "", input(err)
	}
	t := &transfer{a: a, name: n.String()}
	c.Progress = t.report
	dir, err := c.Fetch(ctx, n)
	t.finish()
	switch {
	case err == nil:
		return dir, nil
	case errors.Is(err, context.Canceled):
		a.log.Info("stopped; the same command goes on where this one ended", flag, n)
		return "", err
	}
	err = inputf("--%s %s: no such file or directory, and as a model of the Hub: %w", flag, n, err)
	if errors.Is(err, hub.ErrReach) || errors.Is(err, hub.ErrChecksum) {
		return "", errors.Unwrap(err) // not the user's to mend
	}
	return "", err
}

// transfer shows how far a download is: a bar on a terminal, lines in the log
// elsewhere.
type transfer struct {
	a           *app
	name        string
	first, last time.Time
	from        int64 // bytes that were there at the start
	max         int64
}

func (t *transfer) report(done, total int64) {
	now := time.Now()
	s := t.a.screen
	if t.first.IsZero() {
		t.first, t.last, t.from = now, now, done
		t.a.log.Info("fetching from the Hub", "model", t.name, "bytes", bytesText(total))
	}
	if s.terminal {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.bar == nil {
			s.bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(s.w), progressbar.OptionSetDescription(t.name), progressbar.OptionSetWidth(20), progressbar.OptionShowBytes(true),
				progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
			t.max = total
		}
		if total != t.max {
			s.bar.ChangeMax64(total)
			t.max = total
		}
		s.bar.Set64(done)
		return
	}
	if now.Sub(t.last) < logEvery {
		return
	}
	t.last = now
	rate := float64(done-t.from) / now.Sub(t.first).Seconds()
	figures := []any{"model", t.name, "done", bytesText(done), "of", bytesText(total), "per_second", bytesText(int64(rate))}
	if rate > 0 {
		figures = append(figures, "left", time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
	}
	t.a.log.Info("fetching", figures...)
}

func (t *transfer) finish() {
	s := t.a.screen
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		s.bar.Finish()
		s.bar.Clear()
		s.bar = nil
	}
}
