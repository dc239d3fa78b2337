package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// request describes a workload to the peer program; peer/peer.py says which keys
// each "kind" has.
type request map[string]any

// peer is a program that runs the same workloads with other software: it reads
// requests as lines of JSON and answers each with a line. "open" sets a workload
// up, "round" times one round of it, "close" forgets it. A peer that does not
// answer in time, or ends, is gone for the rest of the run, and everything that it
// was to do is reported as missing.
type peer struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan answer
	gone    string // why there is no peer any more
	opened  int
}

type answer struct {
	Name    string  `json:"name"`    // to open: what computes
	Missing string  `json:"missing"` // to open: why the peer cannot
	Seconds float64 `json:"seconds"` // to round: for one run
	Error   string  `json:"error"`
}

// Limits: to open is long, since kernels are compiled meanwhile; rounds of one
// workload end after enough of them took contestFor.
const openLimit, roundLimit, contestFor = 4 * time.Minute, 2 * time.Minute, 40 * time.Second

func startPeer(command, out string, device int) *peer {
	p := &peer{answers: make(chan answer)}
	words := strings.Fields(command)
	log, err := os.OpenFile(filepath.Join(out, "peer.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.gone = err.Error()
		return p
	}
	defer log.Close()
	p.cmd = exec.Command(words[0], append(words[1:], strconv.Itoa(device))...)
	p.cmd.Stderr = log
	var stdout io.ReadCloser
	if p.in, err = p.cmd.StdinPipe(); err == nil {
		stdout, err = p.cmd.StdoutPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.gone = err.Error()
		return p
	}
	go func() {
		defer close(p.answers)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			var a answer
			if json.Unmarshal(s.Bytes(), &a) == nil { // whatever else a library prints is skipped
				p.answers <- a
			}
		}
	}()
	return p
}

// ask sends a request and waits for the answer.
func (p *peer) ask(r request, limit time.Duration) (a answer, ok bool) {
	if p.gone != "" {
		return answer{}, false
	}
	line, err := json.Marshal(r)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	if err != nil {
		p.end(fmt.Sprintf("the peer program ended (%v); see peer.log", err))
		return answer{}, false
	}
	select {
	case a, ok = <-p.answers:
		if !ok {
			p.end("the peer program ended; see peer.log")
		}
		return a, ok
	case <-time.After(limit):
		p.end(fmt.Sprintf("the peer did not answer within %v", limit))
		return answer{}, false
	}
}

func (p *peer) end(why string) {
	p.gone = why
	if p.cmd != nil && p.cmd.Process != nil {
		p.cmd.Process.Kill()
	}
}

func (p *peer) close() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	p.in.Close()
	stop := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	for range p.answers { // until it has ended
	}
	p.cmd.Wait()
	stop.Stop()
}

// contest is one peer's rounds of one workload.
type contest struct {
	peer    *peer
	id      int
	name    string
	missing string
	times   []float64
	spent   time.Duration
}

// openPeers sets a workload's peers up. Without a peer program there are none.
func (r *rig) openPeers(x *workload) (all []*contest) {
	if r.peer == nil {
		return nil
	}
	for _, q := range x.peers {
		r.peer.opened++
		c := &contest{peer: r.peer, id: r.peer.opened, name: fmt.Sprint(q["kind"])}
		q = maps.Clone(q)
		q["do"], q["id"], q["quick"] = "open", c.id, r.quick
		a, ok := r.peer.ask(q, openLimit)
		switch {
		case !ok:
			c.missing = r.peer.gone
		case a.Missing != "" || a.Error != "":
			c.missing = a.Missing + a.Error
		}
		if a.Name != "" {
			c.name = a.Name
		}
		all = append(all, c)
	}
	return all
}

// round takes one round, unless the peer is missing or has had its time.
func (c *contest) round() {
	if c.missing != "" || c.spent > contestFor {
		return
	}
	begun := time.Now()
	a, ok := c.peer.ask(request{"do": "round", "id": c.id}, roundLimit)
	switch {
	case !ok:
		c.missing = c.peer.gone
	case a.Error != "":
		c.missing = a.Error
	case !(a.Seconds > 0):
		c.missing = "the peer gave no time"
	default:
		c.times = append(c.times, a.Seconds)
		c.spent += time.Since(begun)
	}
}

// result closes the contest.
func (c *contest) result(ours float64) peerResult {
	p := peerResult{Name: c.name, Missing: c.missing}
	if c.missing == "" {
		p.timing = timeOf(c.times)
		p.Ratio = p.Microseconds / ours
	}
	c.peer.ask(request{"do": "close", "id": c.id}, roundLimit)
	return p
}
