package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// screen is standard error: log lines, and on a terminal a progress bar under
// them.
type screen struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	width    int
	bar      *progressbar.ProgressBar
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal = true
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.width = width
		}
	}
	return s
}

// Write writes log lines, over the bar.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		s.bar.Clear()
	}
	n, err := s.w.Write(p)
	if s.bar != nil {
		s.bar.RenderBlank()
	}
	return n, err
}

// logEvery is the pace of progress in the log where there is no terminal.
const logEvery = 10 * time.Second

// progress reports how far a long piece of work is.
type progress struct {
	s     *screen
	log   *slog.Logger
	name  string
	total int
	done  int
	from  int // steps that a resumed run had
	start time.Time
	last  time.Time
}

// progress begins a piece of work of total steps, done of which are there.
func (a *app) progress(name string, total, done int) *progress {
	p := &progress{s: a.screen, log: a.log, name: name, total: total, done: done, from: done, start: time.Now()}
	p.last = p.start
	if p.s.terminal {
		p.s.mu.Lock()
		p.s.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(p.s.w), progressbar.OptionSetDescription(name), progressbar.OptionSetWidth(20),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("step"),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
			progressbar.OptionSetRenderBlankState(true))
		if done > 0 {
			p.s.bar.Set(done)
		}
		p.s.mu.Unlock()
	}
	return p
}

// step moves to done steps; figures are shown beside the bar, or logged from
// time to time.
func (p *progress) step(done int, figures ...any) {
	p.done = done
	if p.s.terminal {
		text := p.name
		for i := 0; i+1 < len(figures); i += 2 {
			text += fmt.Sprintf(" %v %v", figures[i], figures[i+1])
		}
		p.s.mu.Lock()
		defer p.s.mu.Unlock()
		p.s.bar.Describe(text)
		p.s.bar.Set(done)
		return
	}
	if now := time.Now(); now.Sub(p.last) >= logEvery || done == p.total || done == p.from+1 {
		p.last = now
		p.log.Info(p.name, append([]any{"step", fmt.Sprintf("%d/%d", done, p.total), "left", p.left()}, figures...)...)
	}
}

// left is the time that the rest takes at the mean pace so far.
func (p *progress) left() time.Duration {
	if p.done <= p.from {
		return 0
	}
	per := time.Since(p.start) / time.Duration(p.done-p.from)
	return (per * time.Duration(max(0, p.total-p.done))).Round(time.Second)
}

func (p *progress) finish() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.s.bar != nil {
		p.s.bar.Finish()
		p.s.bar.Clear()
		p.s.bar = nil
	}
}
