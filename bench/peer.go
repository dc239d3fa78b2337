package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// PeerNames are the peers that there are programs for.
func PeerNames() []string {
	return []string{"openblas", "onednn", "gonum", "gorgonia", "pytorch", "llamacpp"}
}

// exitNotSetUp is with what a peer's run ends when its set-up has not been made.
const exitNotSetUp = 3

// limits bound how long a peer may take.
type limits struct{ start, prepare, run time.Duration }

func usualLimits() limits { return limits{time.Minute, 4 * time.Minute, 4 * time.Minute} }

// restarts is how often a peer that ended or hung is started again: what one
// variant does to it need not cost the others theirs.
const restarts = 8

// peer is a process that does the same work with other software. It is started
// when it is first asked, reads requests as lines of JSON and answers each with a
// line; bench/peers/README.md has the protocol.
type peer struct {
	name    string
	dir     string // its directory
	log     string // where its standard error goes
	threads int
	limits  limits

	started int
	barred  map[string]string // works, and works with a variant, that ended the process, with how
	info    PeerInfo
	works   []string
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan json.RawMessage
}

// reply is the answer to any request.
type reply struct {
	OK       bool     `json:"ok"`
	Variants []string `json:"variants"`
	Seconds  float64  `json:"seconds"`
	Error    string   `json:"error"`
}

// hello is a peer's first line.
type hello struct {
	Peer    string   `json:"peer"`
	Version string   `json:"version"`
	Detail  string   `json:"detail"`
	Works   []string `json:"works"`
}

// open starts the process unless it runs. The error is why there is none.
func (p *peer) open() error {
	if p.cmd != nil {
		return nil
	}
	if p.info.Missing != "" {
		return errors.New(p.info.Missing)
	}
	if p.started > restarts {
		return fmt.Errorf("ended %d times and is not started again; see %s", p.started, filepath.Base(p.log))
	}
	p.started++
	err := p.start()
	if err != nil {
		p.kill()
		p.info.Missing = err.Error()
	}
	return err
}

func (p *peer) start() error {
	program, err := filepath.Abs(filepath.Join(p.dir, "run"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no program run", p.dir)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	p.cmd = exec.Command(program)
	p.cmd.Dir = p.dir
	p.cmd.Env = append(os.Environ(), "UPDRAFT_THREADS="+strconv.Itoa(p.threads))
	p.cmd.Stderr = log
	ownGroup(p.cmd)
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.cmd = nil
		return fmt.Errorf("cannot be started: %w", err)
	}
	p.replies = make(chan json.RawMessage)
	go func(replies chan<- json.RawMessage) {
		defer close(replies)
		s := bufio.NewScanner(stdout)
		s.Buffer(nil, 1<<20)
		for s.Scan() { // whatever else a library prints is skipped
			if line := s.Bytes(); json.Valid(line) && len(line) > 0 && line[0] == '{' {
				replies <- append(json.RawMessage(nil), line...)
			}
		}
	}(p.replies)
	line, err := p.await(p.limits.start)
	if err != nil {
		if code := p.kill(); code == exitNotSetUp {
			return fmt.Errorf("not set up: %s", lastLine(p.log, from, filepath.Join(p.dir, "setup.sh")+" sets it up"))
		}
		return fmt.Errorf("did not start: %w; the last line of its log: %s", err, lastLine(p.log, from, "(none)"))
	}
	var h hello
	if err := json.Unmarshal(line, &h); err != nil || h.Peer == "" {
		return fmt.Errorf("its first line is not a greeting: %.80s", line)
	}
	p.info.Version, p.info.Detail, p.works = h.Version, h.Detail, h.Works
	return nil
}

// lastLine is the last line of a log from an offset on, or what it stands for.
func lastLine(path string, from int64, none string) string {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) <= from {
		return none
	}
	lines := strings.Split(strings.TrimSpace(string(b[from:])), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return last
	}
	return none
}

var errEnded = errors.New("the process ended")

// await reads the next line.
func (p *peer) await(limit time.Duration) (json.RawMessage, error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case line, ok := <-p.replies:
		if !ok {
			return nil, errEnded
		}
		return line, nil
	case <-t.C:
		return nil, fmt.Errorf("no answer within %v", limit)
	}
}

// request sends one request and returns its reply. A peer that ends or does not
// answer is killed; the next prepare starts it again.
func (p *peer) request(fields map[string]any, limit time.Duration) (r reply, err error) {
	if p.cmd == nil {
		return r, errEnded
	}
	line, err := json.Marshal(fields)
	if err != nil {
		return r, err
	}
	if _, err = p.in.Write(append(line, '\n')); err != nil {
		err = errEnded
	}
	var answer json.RawMessage
	if err == nil {
		answer, err = p.await(limit)
	}
	if err != nil {
		p.kill()
		return r, fmt.Errorf("%w (at %v); see %s", err, fields["op"], filepath.Base(p.log))
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("its answer to %v is not understood: %.80s", fields["op"], answer)
	}
	if r.Error != "" {
		return r, errors.New(strings.Join(strings.Fields(r.Error), " "))
	}
	return r, nil
}

// kill ends the process, and what it started, and returns its exit code. One that
// has ended by itself, or does so in a moment, is left its own.
func (p *peer) kill() int { return p.end(200 * time.Millisecond) }

func (p *peer) end(patience time.Duration) int {
	cmd := p.cmd
	if cmd == nil {
		return -1
	}
	p.cmd = nil
	late := time.AfterFunc(patience, func() { killGroup(cmd) })
	p.in.Close()
	for range p.replies { // until its output is closed
	}
	cmd.Wait()
	late.Stop()
	return cmd.ProcessState.ExitCode()
}

// rest ends a peer that is there, to give its memory back; it starts again when it is
// next asked, which does not count as a restart.
func (p *peer) rest() {
	if p.cmd != nil {
		p.quit()
		p.started--
	}
}

// quit ends a peer that is there in its own way.
func (p *peer) quit() {
	if p.cmd == nil {
		return
	}
	p.in.Write([]byte(`{"op":"quit"}` + "\n"))
	p.end(3 * time.Second)
}
