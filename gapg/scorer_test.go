package gapg

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scorerServer scores a completion by its length and does what fault says to its
// n-th request first: true means that the reply has been given.
type scorerServer struct {
	*httptest.Server
	requests, under, most atomic.Int64
	largest               atomic.Int64
	mu                    sync.Mutex
	inputs                []scorerInput
}

func newScorerServer(t *testing.T, fault func(n int64, w http.ResponseWriter, r *http.Request) bool) *scorerServer {
	s := &scorerServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := s.requests.Add(1)
		under := s.under.Add(1)
		defer s.under.Add(-1)
		for m := s.most.Load(); under > m && !s.most.CompareAndSwap(m, under); m = s.most.Load() {
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if fault != nil && fault(n, w, r) {
			return
		}
		var in struct{ Inputs []scorerInput }
		if json.Unmarshal(body, &in) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.inputs = append(s.inputs, in.Inputs...)
		s.mu.Unlock()
		for m := s.largest.Load(); int64(len(in.Inputs)) > m && !s.largest.CompareAndSwap(m, int64(len(in.Inputs))); m = s.largest.Load() {
		}
		scores := []float64{}
		for _, x := range in.Inputs {
			scores = append(scores, float64(len(x.Completion)))
		}
		json.NewEncoder(w).Encode(map[string]any{"scores": scores})
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *scorerServer) scorer(t *testing.T, change func(*ScorerConfig)) *Scorer {
	c := ScorerConfig{URL: s.URL, Batch: 3, Concurrency: 2, Backoff: time.Millisecond, Timeout: 200 * time.Millisecond, StepTimeout: 2 * time.Second}
	if change != nil {
		change(&c)
	}
	r, err := NewScorer(PaperWeights(), c)
	require.NoError(t, err)
	return r
}

type reference string

func (r reference) Reference() string { return string(r) }

// scoredGroups are n groups of two responses; the second of each third group asks.
func scoredGroups(n int) []*Group {
	var out []*Group
	for i := range n {
		g := &Group{Prompt: Prompt{ID: fmt.Sprint(i), Text: "<chat>q", CloudText: "q", Gold: reference("gold")},
			Rollouts: []Rollout{{Text: strings.Repeat("x", i), Verdict: Verdict{Correct: true, Answer: "a"}}, {Text: "yy", Verdict: Verdict{Help: i%3 == 0}}}}
		g.Cloud.Correct = true
		g.Cloud.Asked = true
		out = append(out, g)
	}
	return out
}

func TestScorer(t *testing.T) {
	server := newScorerServer(t, nil)
	s := server.scorer(t, func(c *ScorerConfig) { c.Weight = 0.5; c.Key = "secret" })
	groups := scoredGroups(10)
	scoreGroups(bg, s, groups)
	for i, g := range groups {
		require.Empty(t, g.Unresolved)
		require.Equal(t, RewardParts{Accuracy: 2, Other: 0.5 * float64(i)}, g.Rollouts[0].Parts)
		require.Equal(t, 2+0.5*float64(i), g.Rollouts[0].Reward)
		if i%3 == 0 {
			require.Equal(t, RewardParts{Coordination: 0.5}, g.Rollouts[1].Parts, "who asks is not scored")
		} else {
			require.Equal(t, RewardParts{Other: 1}, g.Rollouts[1].Parts)
		}
	}
	require.Len(t, server.inputs, 16)
	require.EqualValues(t, 6, server.requests.Load())
	require.EqualValues(t, 3, server.largest.Load())
	require.LessOrEqual(t, server.most.Load(), int64(2))
	for _, in := range server.inputs {
		require.Equal(t, "q", in.Prompt, "the question, without the chat template and the help instruction")
		require.Equal(t, "gold", in.Reference)
	}
	one, err := s.Reward(bg, groups[4], 0)
	require.NoError(t, err)
	require.Equal(t, RewardParts{Accuracy: 2, Other: 2}, one)

	for _, c := range []ScorerConfig{{}, {URL: "ftp://x"}, {URL: "http://"}, {URL: server.URL, Batch: -1}} {
		_, err := NewScorer(PaperWeights(), c)
		require.Error(t, err)
	}
	_, err = NewScorer(nil, ScorerConfig{URL: server.URL})
	require.Error(t, err)
	bad, err := NewScorer(Hierarchical{Accuracy: 1, Coordination: 2}, ScorerConfig{URL: server.URL})
	require.NoError(t, err)
	require.Error(t, bad.Check(), "what it adds to is still checked")
}

// Passing faults are tried again and leave no trace; lasting ones leave the
// groups of their batch, and no others, without a reward.
func TestScorerFaults(t *testing.T) {
	hang := func(r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second):
		}
	}
	once := map[string]func(w http.ResponseWriter, r *http.Request){
		"500":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"429":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "0"); w.WriteHeader(429) },
		"408":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(408) },
		"slow":  func(_ http.ResponseWriter, r *http.Request) { hang(r) },
		"reset": func(w http.ResponseWriter, _ *http.Request) { c, _, _ := w.(http.Hijacker).Hijack(); c.Close() },
		"half": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte(`{"scores": [1,`))
		},
		"malformed":  func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`<html>`)) },
		"endless":    func(w http.ResponseWriter, r *http.Request) { io.Copy(w, neverEnding{r.Context()}) },
		"first byte": func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("{")); w.(http.Flusher).Flush(); hang(r) },
	}
	for name, fault := range once {
		t.Run("once "+name, func(t *testing.T) {
			server := newScorerServer(t, func(n int64, w http.ResponseWriter, r *http.Request) bool {
				if n <= 2 {
					fault(w, r)
				}
				return n <= 2
			})
			groups := scoredGroups(6)
			scoreGroups(bg, server.scorer(t, nil), groups)
			for i, g := range groups {
				require.Empty(t, g.Unresolved)
				require.Equal(t, 2+float64(i), g.Rollouts[0].Reward)
			}
		})
	}
	t.Run("a batch that fails for good", func(t *testing.T) {
		server := newScorerServer(t, func(n int64, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				w.WriteHeader(400)
			}
			return n == 1
		})
		groups := scoredGroups(10)
		scoreGroups(bg, server.scorer(t, func(c *ScorerConfig) { c.Concurrency = 1 }), groups)
		for i, g := range groups {
			require.Equal(t, i < 2, g.Unresolved != "", "group %d: %s", i, g.Unresolved)
		}
		require.EqualValues(t, 6, server.requests.Load(), "what cannot help is not tried again")
	})
	for name, reply := range map[string]string{"too few": `{"scores": [1]}`, "none": `{}`, "null": `{"scores": [null, null, null]}`, "a list": `[1, 2, 3]`, "too large": `{"scores": [1e999, 1, 1]}`} {
		t.Run(name, func(t *testing.T) {
			server := newScorerServer(t, func(_ int64, w http.ResponseWriter, _ *http.Request) bool { w.Write([]byte(reply)); return true })
			groups := scoredGroups(2)
			scoreGroups(bg, server.scorer(t, nil), groups)
			require.Contains(t, groups[0].Unresolved, "reward: scorer")
			require.Contains(t, groups[1].Unresolved, "reward: scorer")
		})
	}
}

// neverEnding is a body without an end.
type neverEnding struct{ ctx context.Context }

func (n neverEnding) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), n.ctx.Err()
}

// A scorer that hangs or is gone costs a step its time limit, the next steps one
// request, and training goes on when it is back.
func TestDeadScorerDoesNotFreeze(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	server := newScorerServer(t, func(_ int64, _ http.ResponseWriter, r *http.Request) bool {
		if down.Load() {
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
		}
		return down.Load()
	})
	s := server.scorer(t, func(c *ScorerConfig) {
		c.Timeout, c.StepTimeout = 150*time.Millisecond, 300*time.Millisecond
		c.Key = "secret"
	})
	y := newToy(t, toyOptions{config: func(c *Config) { c.Reward = s }})
	defer y.close()
	for i := range 3 {
		before, start := server.requests.Load(), time.Now()
		st, err := y.tr.Step(bg)
		require.NoError(t, err)
		require.Equal(t, 4, st.Unresolved, "all groups leave the batch")
		require.Less(t, time.Since(start), 3*time.Second)
		if i > 0 {
			require.EqualValues(t, 1, server.requests.Load()-before)
		}
	}
	down.Store(false)
	st, err := y.tr.Step(bg)
	require.NoError(t, err)
	require.Zero(t, st.Unresolved)
	require.Equal(t, 4, y.tr.State().Step)

	// The end of the run is no fault of the scorer's, and is not waited for.
	down.Store(true)
	ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = y.tr.Step(ctx)
	require.Error(t, err)
	require.Less(t, time.Since(start), 2*time.Second)

	// A server that is gone; no error tells the key or the address's query.
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	dead, err := NewScorer(PaperWeights(), ScorerConfig{URL: gone.URL + "/?key=secret", Key: "secret", Backoff: time.Millisecond})
	require.NoError(t, err)
	groups := scoredGroups(2)
	scoreGroups(bg, dead, groups)
	require.Contains(t, groups[0].Unresolved, "refused")
	require.NotContains(t, groups[0].Unresolved, "secret")
}
