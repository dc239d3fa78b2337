package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A scorer's part is in the reward; one that is gone costs groups and no run; its
// key goes to it alone.
func TestRewardURL(t *testing.T) {
	t.Setenv("REWARD_API_KEY", "a-secret")
	var inputs, wrongKey atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer a-secret" {
			wrongKey.Add(1)
		}
		var in struct {
			Inputs []struct{ Prompt, Completion string }
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		inputs.Add(int64(len(in.Inputs)))
		scores := make([]float64, len(in.Inputs))
		for i := range scores {
			scores[i] = 10
		}
		json.NewEncoder(w).Encode(map[string]any{"scores": scores})
	}))
	defer server.Close()
	dir, out := tinyModel(t), filepath.Join(t.TempDir(), "run")
	ok(t, small(dir, out, "--max-steps", "2", "--reward-url", server.URL, "--reward-url-weight", "3", "--reward-batch", "5")...)
	require.Positive(t, inputs.Load())
	require.Zero(t, wrongKey.Load())
	for _, m := range untimed(t, out) {
		require.Greater(t, m["reward"], 25.0)
	}
	require.NotContains(t, read(t, out, configFile), "a-secret")

	server.Close()
	r := ok(t, small(dir, filepath.Join(t.TempDir(), "run"), "--max-steps", "2", "--reward-url", server.URL, "--reward-attempts", "1")...)
	require.Contains(t, r.stderr, "reward: scorer at")
	require.NotContains(t, r.stderr, "a-secret")

	for want, more := range map[string][]string{
		"--reward-url: scorer: the URL must be an http or https address": {"--reward-url", "nowhere"},
		"--reward-batch 0: must be at least 1":                           {"--reward-url", server.URL, "--reward-batch", "0"},
		"--reward-url-weight 0:":                                         {"--reward-url", server.URL, "--reward-url-weight", "0"},
		"--reward-timeout 0s":                                            {"--reward-url", server.URL, "--reward-timeout", "0"},
	} {
		r := run(t, small(dir, filepath.Join(t.TempDir(), "run"), more...)...)
		require.Equal(t, exitInput, r.code, strings.Join(more, " "))
		require.Contains(t, r.stderr, want)
	}
}
