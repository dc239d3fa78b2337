package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testServer answers chat completions; behave may do something else first and
// returns whether it did.
type testServer struct {
	*httptest.Server
	requests atomic.Int64
	behave   func(n int64, w http.ResponseWriter, r *http.Request) bool

	mu   sync.Mutex
	last map[string]any // the latest request's body
	head http.Header
}

func newTestServer(t *testing.T, behave func(n int64, w http.ResponseWriter, r *http.Request) bool) *testServer {
	s := &testServer{behave: behave}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *testServer) serve(w http.ResponseWriter, r *http.Request) {
	n := s.requests.Add(1)
	data, _ := io.ReadAll(r.Body)
	var body map[string]any
	if err := json.Unmarshal(data, &body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.last, s.head = body, r.Header.Clone()
	s.mu.Unlock()
	if s.behave != nil && s.behave(n, w, r) {
		return
	}
	messages := body["messages"].([]any)
	text := messages[len(messages)-1].(map[string]any)["content"].(string)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}`,
		"<think>hm</think>\nthe answer to "+text)
}

func (s *testServer) client(t *testing.T, change func(*OpenAIConfig)) *OpenAI {
	zero := 0.0
	c := OpenAIConfig{BaseURL: s.URL + "/v1/", Model: "m", APIKey: "sk-secret", Temperature: &zero, MaxTokens: 100,
		Price: &Price{Prompt: 1, Completion: 10}, BreakAfter: 1000}
	if change != nil {
		change(&c)
	}
	o, err := NewOpenAI(c)
	require.NoError(t, err)
	return o
}

func TestOpenAIRequestAndAnswer(t *testing.T) {
	s := newTestServer(t, nil)
	o := s.client(t, func(c *OpenAIConfig) {
		c.System, c.Headers = "be brief", map[string]string{"X-Team": "blue"}
		c.MaxTokensField, c.Extra = "max_completion_tokens", map[string]any{"reasoning_effort": "low"}
	})
	a, err := o.Answer(context.Background(), Question{ID: "1", Text: "2+2"})
	require.NoError(t, err)
	require.Equal(t, "the answer to 2+2", a.Text)
	require.Equal(t, Usage{7, 5}, a.Usage)
	require.InDelta(t, (7*1+5*10)/1e6, a.CostUSD, 1e-15)
	require.False(t, a.CostUnknown)
	require.Positive(t, a.Latency)
	require.Equal(t, map[string]any{
		"model": "m", "temperature": 0.0, "max_completion_tokens": 100.0, "reasoning_effort": "low",
		"messages": []any{map[string]any{"role": "system", "content": "be brief"}, map[string]any{"role": "user", "content": "2+2"}},
	}, s.last)
	require.Equal(t, "Bearer sk-secret", s.head.Get("Authorization"))
	require.Equal(t, "blue", s.head.Get("X-Team"))

	o = s.client(t, func(c *OpenAIConfig) { c.Temperature, c.MaxTokens, c.APIKey, c.Price = nil, 0, "", nil })
	a, err = o.Answer(context.Background(), Question{ID: "1", Text: "2+2"})
	require.NoError(t, err)
	require.True(t, a.CostUnknown)
	require.Zero(t, a.CostUSD)
	require.NotContains(t, s.last, "temperature")
	require.NotContains(t, s.last, "max_tokens")
	require.Empty(t, s.head.Get("Authorization"))
}

// Equal requests have equal names, and the key is no part of one.
func TestOpenAIName(t *testing.T) {
	s := newTestServer(t, nil)
	plain := s.client(t, nil)
	require.Contains(t, plain.Name(), "m at 127.0.0.1")
	require.Equal(t, plain.Name(), s.client(t, func(c *OpenAIConfig) { c.APIKey = "another" }).Name())
	one := 1.0
	for _, change := range []func(*OpenAIConfig){
		func(c *OpenAIConfig) { c.System = "x" }, func(c *OpenAIConfig) { c.Temperature = &one },
		func(c *OpenAIConfig) { c.MaxTokens = 9 }, func(c *OpenAIConfig) { c.Extra = map[string]any{"seed": 1} },
		func(c *OpenAIConfig) { c.BaseURL += "v2" }, func(c *OpenAIConfig) { c.Model = "n" },
	} {
		require.NotEqual(t, plain.Name(), s.client(t, change).Name())
	}
}

func TestOpenAIConfigIsChecked(t *testing.T) {
	ok := OpenAIConfig{BaseURL: "https://api.example.com/v1", Model: "m"}
	_, err := NewOpenAI(ok)
	require.NoError(t, err)
	for says, change := range map[string]func(*OpenAIConfig){
		"http or https":    func(c *OpenAIConfig) { c.BaseURL = "api.example.com" },
		"user or a passwo": func(c *OpenAIConfig) { c.BaseURL = "https://a:b@example.com" },
		"no model":         func(c *OpenAIConfig) { c.Model = "" },
		"tokens at most":   func(c *OpenAIConfig) { c.MaxTokens = -1 },
		"prices":           func(c *OpenAIConfig) { c.Price = &Price{-1, 0} },
		"time limits":      func(c *OpenAIConfig) { c.Total = -1 },
		"further fields":   func(c *OpenAIConfig) { c.Extra = map[string]any{"f": func() {}} },
	} {
		c := ok
		change(&c)
		_, err := NewOpenAI(c)
		require.ErrorContains(t, err, says)
	}
}

func TestStripReasoning(t *testing.T) {
	for in, want := range map[string]string{
		"4": "4", " <think>2+2</think> 4": "4", "so it is 4</think>4": "4", "<think>never closed": "",
		"<think>a</think>4<think>b</think>2": "42", "<reasoning>x</reasoning>\n\\boxed{4}": "\\boxed{4}", "a < b": "a < b", "": "",
	} {
		require.Equal(t, want, stripReasoning(in), "%q", in)
	}
}

func TestOpenAIResponses(t *testing.T) {
	for _, c := range []struct {
		status      int
		body        string
		header      map[string]string
		says        string
		transient   bool
		rejected    bool
		retryAfter  time.Duration
		contentType string
	}{
		{status: 200, body: `{"choices":[{"message":{"content":null,"refusal":"no"}}]}`},
		{status: 200, body: `{"choices":[{"message":{"content":[{"type":"text","text":"4"}]}}]}`},
		{status: 200, body: `{"choices":[]}`, says: "no choices", transient: true},
		{status: 200, body: `{"choices":[{"mess`, says: "not JSON", transient: true},
		{status: 200, body: `<html>gateway</html>`, says: "not JSON", transient: true, contentType: "text/html"},
		{status: 200, body: `{"error":{"message":"overloaded"}}`, says: "overloaded", transient: true},
		{status: 200, body: `{"choices":[{"message":{"content":7}}]}`, says: "neither text nor", transient: true},
		{status: 400, body: `{"error":{"message":"bad field"}}`, says: "bad field"},
		{status: 401, body: `{"error":{"message":"Incorrect API key provided: sk-secret"}}`, says: "Incorrect API key provided: [key]", rejected: true},
		{status: 402, says: "no credit", rejected: true},
		{status: 404, says: "model's name", rejected: true},
		{status: 307, header: map[string]string{"Location": "http://127.0.0.1:1/"}, says: "base URL", rejected: true},
		{status: 408, transient: true, says: "408"},
		{status: 429, header: map[string]string{"Retry-After": "3"}, transient: true, retryAfter: 3 * time.Second, says: "429"},
		{status: 429, header: map[string]string{"Retry-After-Ms": "250"}, transient: true, retryAfter: 250 * time.Millisecond, says: "429"},
		{status: 429, body: `{"error":{"code":"insufficient_quota","message":"quota"}}`, rejected: true, says: "quota"},
		{status: 500, body: strings.Repeat("x", 5000), transient: true, says: "…"},
		{status: 503, transient: true, says: "503"},
	} {
		s := newTestServer(t, func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			if c.contentType != "" {
				w.Header().Set("Content-Type", c.contentType)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
			return true
		})
		_, err := s.client(t, nil).Answer(context.Background(), Question{Text: "q"})
		name := fmt.Sprintf("%d %.40s", c.status, c.body)
		if c.says == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.says, name)
		require.NotContains(t, err.Error(), "sk-secret", name)
		require.NotContains(t, err.Error(), "\n", name)
		require.Equal(t, c.transient, IsTransient(err), name)
		var r *RejectedError
		require.Equal(t, c.rejected, errorsAs(err, &r), name)
		wait, ok := RetryAfter(err)
		require.Equal(t, c.retryAfter > 0, ok, name)
		require.Equal(t, c.retryAfter, wait, name)
		require.True(t, WasSent(err), name)
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := http.Header{"Retry-After": {now.Add(20 * time.Second).Format(http.TimeFormat)}}
	require.Equal(t, 20*time.Second, retryAfter(h, now))
	require.Zero(t, retryAfter(http.Header{"Retry-After": {"soon"}}, now))
	require.Zero(t, retryAfter(http.Header{"Retry-After": {now.Add(-time.Hour).Format(http.TimeFormat)}}, now))
}

func TestOpenAITimeLimits(t *testing.T) {
	hang := make(chan struct{})
	s := newTestServer(t, func(n int64, w http.ResponseWriter, r *http.Request) bool {
		if n == 2 { // the head arrives, the body never
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return true
	})
	defer close(hang)
	_, err := s.client(t, func(c *OpenAIConfig) { c.FirstByte = 50 * time.Millisecond }).Answer(context.Background(), Question{Text: "q"})
	require.ErrorContains(t, err, "timeout awaiting response headers")
	require.True(t, IsTransient(err))
	_, err = s.client(t, func(c *OpenAIConfig) { c.Total = 100 * time.Millisecond }).Answer(context.Background(), Question{Text: "q"})
	require.ErrorContains(t, err, "broke off")
	require.True(t, IsTransient(err))
}

// A server that keeps failing is left alone for a while.
func TestOpenAIBreaker(t *testing.T) {
	s := newTestServer(t, func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(500)
		return true
	})
	o := s.client(t, func(c *OpenAIConfig) { c.BreakAfter, c.CoolDown = 3, time.Hour })
	for range 5 {
		_, err := o.Answer(context.Background(), Question{Text: "q"})
		require.True(t, IsTransient(err))
	}
	require.EqualValues(t, 3, s.requests.Load())
	_, err := o.Answer(context.Background(), Question{Text: "q"})
	require.ErrorContains(t, err, "held back")
	require.False(t, WasSent(err))
	wait, ok := RetryAfter(err)
	require.True(t, ok)
	require.Equal(t, time.Hour, wait)
}

// Through every kind of fault a ledger resolves what it can, asks for nothing
// twice that was answered, and counts no less than the server did.
func TestLedgerOverFaultyServer(t *testing.T) {
	var answered sync.Map // question → times answered whole
	s := newTestServer(t, nil)
	s.behave = func(n int64, w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		messages := s.last["messages"].([]any)
		s.mu.Unlock()
		text := messages[0].(map[string]any)["content"].(string)
		switch rng.IntN(12) {
		case 0:
			w.WriteHeader(500)
		case 1:
			w.Header().Set("Retry-After-Ms", "5")
			w.WriteHeader(429)
		case 2: // reset
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		case 3: // half a body
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"choices":[{"message":{"con`)
		case 4:
			io.WriteString(w, "{]")
		case 5:
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		case 6:
			time.Sleep(80 * time.Millisecond) // beyond the first byte's limit
		default:
			// The server may answer what never arrives whole; only its own count is sure.
			times, _ := answered.LoadOrStore(text, new(atomic.Int64))
			times.(*atomic.Int64).Add(1)
			fmt.Fprintf(w, `{"choices":[{"message":{"content":"to %s"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, text)
		}
		return true
	}
	o := s.client(t, func(c *OpenAIConfig) { c.FirstByte = 40 * time.Millisecond })
	store := NewMemory()
	l, err := NewLedger(o, store, LedgerConfig{Run: "train", Concurrency: 8, Attempts: 3, Backoff: time.Millisecond})
	require.NoError(t, err)
	const questions = 120
	unresolved := 0
	for step := range 3 {
		var qs []Question
		for i := range questions {
			qs = append(qs, Question{ID: fmt.Sprint(i), Text: fmt.Sprint("q", i)})
		}
		results, err := l.AnswerAll(context.Background(), step, qs)
		require.NoError(t, err)
		unresolved = 0
		for i, r := range results {
			if r.Err != nil {
				require.True(t, IsTransient(r.Err))
				unresolved++
				continue
			}
			require.Equal(t, fmt.Sprint("to q", i), r.Answer.Text)
		}
	}
	require.Less(t, unresolved, 10)
	answered.Range(func(k, times any) bool {
		// A slow answer can be both: given up by the client, and counted by the server.
		require.LessOrEqual(t, times.(*atomic.Int64).Load(), int64(3), k)
		return true
	})
	totals := l.Totals(100)
	retries, err := store.Unanswered()
	require.NoError(t, err)
	got := int(s.requests.Load())
	billedAtMost := totals.Calls + len(retries)
	require.Equal(t, questions-unresolved, totals.Calls-totals.Unresolved, "answered once each")
	require.LessOrEqual(t, totals.Calls-totals.Unresolved, got)
	require.GreaterOrEqual(t, billedAtMost, got)
	require.Equal(t, billedAtMost, store.Used().Calls)
}

func TestLedgerRetriesAndBacksOff(t *testing.T) {
	s := newTestServer(t, func(n int64, w http.ResponseWriter, _ *http.Request) bool {
		if n <= 2 {
			w.Header().Set("Retry-After-Ms", "30")
			w.WriteHeader(429)
			return true
		}
		return false
	})
	store := NewMemory()
	l, err := NewLedger(s.client(t, nil), store, LedgerConfig{Run: "r", Attempts: 3, Backoff: time.Nanosecond})
	require.NoError(t, err)
	start := time.Now()
	r, err := l.AnswerAll(context.Background(), 0, []Question{{ID: "1", Text: "q"}})
	require.NoError(t, err)
	require.NoError(t, r[0].Err)
	require.GreaterOrEqual(t, time.Since(start), 60*time.Millisecond, "Retry-After is heeded")
	left, err := store.Unanswered()
	require.NoError(t, err)
	require.Len(t, left, 2, "attempts without an answer stay on record")

	// A wrong key ends the step at once and records nothing.
	s.behave = func(_ int64, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(401); return true }
	before := s.requests.Load()
	_, err = l.AnswerAll(context.Background(), 1, []Question{{ID: "2", Text: "p"}})
	var rejected *RejectedError
	require.True(t, errorsAs(err, &rejected), "%v", err)
	require.EqualValues(t, before+1, s.requests.Load())
	require.Equal(t, 1, l.Totals(100).Questions)

	// A wait that is too long leaves the question unresolved.
	s.behave = func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "100000")
		w.WriteHeader(503)
		return true
	}
	r, err = l.AnswerAll(context.Background(), 2, []Question{{ID: "2", Text: "p"}})
	require.NoError(t, err)
	require.True(t, IsTransient(r[0].Err))
}
