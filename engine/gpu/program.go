package gpu

import (
	"errors"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
)

// command is one thing that is put into the stream: a launch, a fill or a copy.
type command struct {
	op string // the operation that it belongs to

	fn     *cuda.Function // a launch
	config cuda.LaunchConfig
	args   cuda.Args

	dst, src       *cuda.Buffer // a copy of n bytes; without src a fill of n words
	dstOff, srcOff int
	n              int
	word           uint32
}

func (c *command) run(s *cuda.Stream) error {
	switch {
	case c.fn != nil:
		return s.Launch(c.fn, c.config, &c.args)
	case c.src != nil:
		return s.Copy(c.dst, c.dstOff, c.src, c.srcOff, c.n)
	}
	return s.Fill32(c.dst, c.dstOff, c.n, c.word)
}

// program is a list of commands, and the CUDA graph that was captured from it.
type program struct {
	owner    *Backend
	ops      int
	commands []command
	graph    *cuda.Graph
	uses     map[*buffer]struct{}
	dropped  bool
}

// Ops returns the number of recorded operations.
func (p *program) Ops() int { return p.ops }

// drop gives the graph back.
func (p *program) drop() error {
	p.dropped, p.commands, p.uses = true, nil, nil
	if p.graph == nil {
		return nil
	}
	err := p.graph.Close()
	p.graph = nil
	return err
}

// Record keeps what build submits and captures a CUDA graph of it. Arguments are
// resolved while recording; tables that they need are uploaded then.
func (b *Backend) Record(build func()) engine.Program {
	b.open()
	if b.recording != nil {
		panic("gpu: record: already recording")
	}
	p := &program{owner: b, uses: map[*buffer]struct{}{}}
	b.recording = p
	b.stale()
	func() {
		defer func() { b.recording = nil; b.stale() }()
		build()
	}()
	if len(p.commands) > 0 {
		var err error
		p.graph, err = b.stream.Capture(func() error {
			for i := range p.commands {
				if err := p.commands[i].run(b.stream); err != nil {
					return err
				}
			}
			return nil
		})
		b.fail("Record", err)
	}
	b.programs = append(b.programs, p)
	return p
}

// Run launches the graph of a recorded program; inside Record it appends its
// operations.
func (b *Backend) Run(x engine.Program) {
	b.open()
	p, ok := x.(*program)
	if !ok || p.owner != b {
		panic("gpu: run: program of another backend")
	}
	if p.dropped {
		panic("gpu: run: a buffer that the program uses was freed")
	}
	b.stale()
	if r := b.recording; r != nil {
		r.ops += p.ops
		r.commands = append(r.commands, p.commands...)
		for x := range p.uses {
			r.uses[x] = struct{}{}
		}
		return
	}
	if p.graph != nil {
		b.issue("Run", b.stream.LaunchGraph(p.graph))
	}
}

// use notes that the program being recorded needs x.
func (b *Backend) use(x *buffer) {
	if b.recording != nil {
		b.recording.uses[x] = struct{}{}
	}
}

// dropUsers ends the programs that use x.
func (b *Backend) dropUsers(x *buffer) {
	kept := b.programs[:0]
	var errs []error
	for _, p := range b.programs {
		if _, uses := p.uses[x]; uses {
			errs = append(errs, p.drop())
		} else {
			kept = append(kept, p)
		}
	}
	clear(b.programs[len(kept):])
	b.programs = kept
	if len(kept) == 0 {
		b.scratch.unpin(b.pool)
		b.turns.unpin(b.pool)
		b.decode.mem.unpin(b.pool)
		b.tables.unpin()
	}
	b.fail("Free", errors.Join(errs...))
}

// begin opens an operation: it counts in a recording, and failures are named
// after it.
func (b *Backend) begin(op string) {
	b.open()
	b.latest = op
	if b.recording != nil {
		b.recording.ops++
	}
}

// submit keeps a command while recording and issues it otherwise.
func (b *Backend) submit(c *command) {
	if b.recording != nil {
		b.recording.commands = append(b.recording.commands, *c)
		return
	}
	b.fail(c.op, c.run(b.stream))
}

// issue notes what has been put into the stream outside of commands.
func (b *Backend) issue(op string, err error) {
	b.latest = op
	b.fail(op, err)
}
