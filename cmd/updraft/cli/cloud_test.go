package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// chatServer answers every question with "right" and counts requests; key is
// what it accepts.
func chatServer(t testing.TB, key string) (url string, requests *atomic.Int64) {
	requests = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("Authorization") != "Bearer "+key {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":{"message":"Incorrect API key: %s"}}`, r.Header.Get("Authorization"))
			return
		}
		var body struct {
			Model    string
			Messages []struct{ Role, Content string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Model != "big" || len(body.Messages) != 2 || body.Messages[0].Content != "be exact" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, `{"choices":[{"message":{"content":"<think>hm</think>right"}}],"usage":{"prompt_tokens":10,"completion_tokens":20}}`)
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

// A training over the wire: the estimate, the limit that ends it with code 3,
// the resumption under a raised one, and another run that replays it.
func TestTrainOverTheWire(t *testing.T) {
	url, requests := chatServer(t, "sk-one")
	t.Setenv("UPDRAFT_TEST_KEY", "sk-one")
	m, dir := tinyModel(t), filepath.Join(t.TempDir(), "run")
	wire := func(dir string, more ...string) []string {
		return small(m, dir, append([]string{"--query-cloud", "all-fail", "--cloud", url, "--cloud-model", "big", "--cloud-key-env", "UPDRAFT_TEST_KEY",
			"--cloud-system-prompt", "be exact", "--cloud-max-tokens", "100"}, more...)...)
	}
	price := []string{"--cloud-price", "small=1,1", "--cloud-price", "big=1,2", "--json"}

	r := ok(t, wire(dir, append(price, "--max-cloud-usd", "1", "--dry-run")...)...)
	var plan struct {
		Cloud estimate `json:"cloud"`
	}
	oneObject(t, r.out, &plan)
	require.Equal(t, 16, plan.Cloud.WorstCalls, "4 steps of 4 prompts")
	require.Equal(t, 5, plan.Cloud.ExpectedCalls, "the budget's share")
	require.InDelta(t, float64(plan.Cloud.WorstTokens-1600)/1e6+2*1600.0/1e6, *plan.Cloud.WorstCostUSD, 1e-9)
	require.Zero(t, requests.Load(), "a dry run calls nothing")

	r = run(t, wire(dir, "--max-cloud-calls", "2", "--save-steps", "0", "--json")...)
	require.Equal(t, exitLimit, r.code, r.stderr)
	require.Contains(t, r.stderr, "2 of 2 calls are used")
	require.Contains(t, r.stderr, "unknown cost")
	require.EqualValues(t, 2, requests.Load())

	r = ok(t, wire(dir, "--max-cloud-calls", "100", "--save-steps", "0", "--json", "--resume-from-checkpoint")...)
	var s trainSummary
	oneObject(t, r.out, &s)
	require.Nil(t, s.CloudCostUSD, "an unknown cost is no number")
	require.EqualValues(t, s.CloudCalls, requests.Load(), "nothing was asked for twice")
	require.Greater(t, s.CloudCalls, 2)
	require.NotContains(t, read(t, dir, "metrics.jsonl"), "cloud/cost_usd")

	// The same training from the recorded answers, with the server gone.
	before := requests.Load()
	again := filepath.Join(t.TempDir(), "again")
	r = ok(t, wire(again, "--cloud-cache", filepath.Join(dir, ledgerFile), "--cloud-replay", "--json")...)
	require.Equal(t, before, requests.Load())
	require.Equal(t, read(t, dir, "final", "model.safetensors"), read(t, again, "final", "model.safetensors"))
}

func TestCloudFlags(t *testing.T) {
	url, requests := chatServer(t, "sk-right")
	t.Setenv("UPDRAFT_TEST_KEY", "sk-wrong")
	m := tinyModel(t)
	base := []string{"--cloud", url, "--cloud-model", "big", "--cloud-key-env", "UPDRAFT_TEST_KEY", "--query-cloud", "all-fail"}
	for says, more := range map[string][]string{
		"set --max-cloud-calls or --max-cloud-usd": {},
		"the price of big is not known":            {"--max-cloud-usd", "1"},
		"must be MODEL=PROMPT,COMPLETION":          {"--max-cloud-calls", "1", "--cloud-price", "big=1"},
		"--cloud-temperature":                      {"--max-cloud-calls", "1", "--cloud-temperature", "warm"},
		"--cloud-extra":                            {"--max-cloud-calls", "1", "--cloud-extra", "{"},
		"--cloud-header":                           {"--max-cloud-calls", "1", "--cloud-header", "x"},
		"only be kept where answers are bounded":   {"--max-cloud-calls", "1", "--max-cloud-tokens", "5", "--cloud-max-tokens", "0"},
		"Incorrect API key: Bearer [key]":          {"--max-cloud-calls", "1"},
	} {
		r := run(t, small(m, filepath.Join(t.TempDir(), "run"), append(base, more...)...)...)
		require.Equal(t, exitInput, r.code, "%s: %s", says, r.stderr)
		require.Contains(t, r.stderr, says)
		require.NotContains(t, r.stderr, "sk-wrong")
		require.Equal(t, 1, strings.Count(r.stderr, "updraft: "))
	}
	require.EqualValues(t, 1, requests.Load(), "a rejected key is tried once")
	r := run(t, small(m, filepath.Join(t.TempDir(), "run"), "--cloud", url, "--max-cloud-calls", "1")...)
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "--cloud-model")
}
