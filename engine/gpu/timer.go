package gpu

import (
	"errors"
	"time"

	"github.com/updraft-ml/updraft/cuda"
)

// Timer measures what the device takes for work, by two events in the backend's
// stream: the host's own time shows only where the device waits for it.
type Timer struct {
	b          *Backend
	start, end *cuda.Event
}

// NewTimer makes a timer. Close gives it back.
func (b *Backend) NewTimer() (*Timer, error) {
	b.outside()
	start, err := b.dev.NewEvent()
	if err != nil {
		return nil, err
	}
	end, err := b.dev.NewEvent()
	if err != nil {
		return nil, errors.Join(err, start.Close())
	}
	return &Timer{b, start, end}, nil
}

// Time returns the device's time from the first to the last piece of work that
// submit gives to the backend. It waits for the work, and returns its failure.
func (t *Timer) Time(submit func()) (time.Duration, error) {
	t.b.outside()
	if err := t.b.stream.Record(t.start); err != nil {
		return 0, err
	}
	submit()
	if err := t.b.stream.Record(t.end); err != nil {
		return 0, err
	}
	if err := errors.Join(t.end.Sync(), t.b.Sync()); err != nil {
		return 0, err
	}
	return t.end.Since(t.start)
}

// Close gives the events back.
func (t *Timer) Close() error { return errors.Join(t.start.Close(), t.end.Close()) }
