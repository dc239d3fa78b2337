package cli

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A model of the Hub is fetched once, generates as its directory does, and is
// found in the cache from then on. What is not to be had is said in one line.
func TestHubModel(t *testing.T) {
	dir := tinyModel(t)
	const commit = "89abcdef0123456789abcdef0123456789abcdef"
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		switch {
		case r.URL.Path == "/api/models/org/tiny/revision/v1":
			var files []map[string]string
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				files = append(files, map[string]string{"rfilename": e.Name()})
			}
			json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": files})
		case strings.HasPrefix(r.URL.Path, "/org/tiny/resolve/"+commit):
			file := filepath.Join(dir, path.Base(r.URL.Path))
			b, _ := os.ReadFile(file)
			w.Header().Set("Etag", fmt.Sprintf(`"%x"`, sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))))
			http.ServeFile(w, r, file)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("HF_HUB_OFFLINE", "")
	t.Setenv("TRANSFORMERS_OFFLINE", "")
	args := func(from string) []string {
		return []string{"generate", "--model", from, "--task", "parity", "--prompt", "1+1=", "--cloud", "none", "--max-completion-length", "12", "--threads", "1", "--json"}
	}
	want := ok(t, args(dir)...).out
	r := ok(t, args("org/tiny@v1")...)
	require.Equal(t, want, r.out)
	require.Contains(t, r.stderr, "fetching from the Hub")
	t.Setenv("HF_HUB_OFFLINE", "1")
	before := requests
	require.Equal(t, want, ok(t, args("org/tiny@v1")...).out)
	require.Equal(t, before, requests)

	refused := func(from, want string) {
		r := run(t, args(from)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, lastLine(r.stderr), want)
	}
	refused("org/tiny", "the network is not to be used")
	t.Setenv("HF_HUB_OFFLINE", "0")
	refused("org/none", "no such file or directory, and as a model of the Hub: org/none: not found on the Hub")
	// A path with a mistake in it asks no server.
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("runs/base", 0o755))
	before = requests
	refused("runs/bsae", "no such file or directory; check the path")
	require.Equal(t, before, requests)
}
