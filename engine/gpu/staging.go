package gpu

import (
	"errors"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
)

// staging is a ring of page-locked host memory, through which host slices and
// device memory meet: a copy between the two runs by itself, while the host goes
// on. A piece of the ring is free again when the event behind its copy has come;
// for a download, its bytes are handed to the slice that waits for them first.
type staging struct {
	dev    *cuda.Device
	stream *cuda.Stream
	mem    *cuda.HostBuffer // nil until first used
	head   int              // where the next piece begins
	queue  []piece          // in order of issue, the first ones at from
	from   int
	events []*cuda.Event // not in use
	made   int
}

// Sizes of a ring. A copy of more than stagingPiece is cut into pieces, so that
// filling one piece overlaps copying another.
const (
	stagingBytes  = 16 << 20
	stagingPiece  = 4 << 20
	stagingPieces = 256 // most pieces under way
	stagingAlign  = 64
)

// piece is one copy under way.
type piece struct {
	at, n   int
	event   *cuda.Event
	ticket  engine.Ticket // of a download
	deliver delivery
}

// delivery is where a download's elements go.
type delivery struct {
	f     []float32
	i     []int32
	dtype engine.DType
}

func newStaging(dev *cuda.Device, stream *cuda.Stream) *staging {
	return &staging{dev: dev, stream: stream}
}

// reserve returns n bytes of the ring and their place, waiting for the oldest
// copies where they are in the way.
func (s *staging) reserve(n int) (at int, mem []byte, err error) {
	if s.mem == nil {
		if s.mem, err = s.dev.AllocHost(stagingBytes); err != nil {
			return 0, nil, err
		}
	}
	end := (n + stagingAlign - 1) / stagingAlign * stagingAlign
	if s.head+end > stagingBytes {
		for s.from < len(s.queue) && s.queue[s.from].at >= s.head {
			if err := s.retire(); err != nil {
				return 0, nil, err
			}
		}
		s.head = 0
	}
	for s.from < len(s.queue) {
		oldest := &s.queue[s.from]
		blocks := oldest.at < s.head+end && s.head < oldest.at+oldest.n
		if !blocks && len(s.queue)-s.from < stagingPieces {
			break
		}
		if err := s.retire(); err != nil {
			return 0, nil, err
		}
	}
	at = s.head
	s.head += end
	return at, s.mem.Bytes()[at : at+n], nil
}

// issued puts a copy, just issued, behind those under way.
func (s *staging) issued(p piece) error {
	if err := s.reuse(); err != nil {
		return err
	}
	if len(s.events) == 0 {
		e, err := s.dev.NewEvent()
		if err != nil {
			return err
		}
		s.events = append(s.events, e)
		s.made++
	}
	p.event = s.events[len(s.events)-1]
	s.events = s.events[:len(s.events)-1]
	if s.from == len(s.queue) {
		s.queue, s.from = s.queue[:0], 0
	} else if s.from >= stagingPieces {
		n := copy(s.queue, s.queue[s.from:])
		clear(s.queue[n:])
		s.queue, s.from = s.queue[:n], 0
	}
	s.queue = append(s.queue, p)
	return s.stream.Record(p.event)
}

// reuse retires uploads that have been carried out, until there is an event to
// reuse: so a step needs no more events than it needed before.
func (s *staging) reuse() error {
	for len(s.events) == 0 && s.from < len(s.queue) && s.queue[s.from].ticket == 0 {
		done, err := s.queue[s.from].event.Done()
		if err != nil {
			return err
		}
		if !done {
			break
		}
		if err := s.retire(); err != nil {
			return err
		}
	}
	return nil
}

// retire waits for the oldest copy, delivers what it brought and frees its piece.
func (s *staging) retire() error {
	p := s.queue[s.from]
	s.queue[s.from] = piece{}
	s.from++
	s.events = append(s.events, p.event)
	if err := p.event.Sync(); err != nil {
		return err
	}
	p.deliver.take(s.mem.Bytes()[p.at : p.at+p.n])
	return nil
}

// drain retires every copy up to a ticket, those that fail too; it returns the
// first failure.
func (s *staging) drain(t engine.Ticket) error {
	var first error
	for s.from < len(s.queue) && s.queue[s.from].ticket <= t {
		if err := s.retire(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// close gives the ring and its events back; no copy may be under way.
func (s *staging) close() error {
	var errs []error
	for ; s.from < len(s.queue); s.from++ {
		s.events = append(s.events, s.queue[s.from].event)
	}
	for _, e := range s.events {
		errs = append(errs, e.Close())
	}
	if s.mem != nil {
		errs = append(errs, s.mem.Free())
	}
	return errors.Join(errs...)
}
