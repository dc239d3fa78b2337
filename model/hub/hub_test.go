package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	commit = "0123456789abcdef0123456789abcdef01234567"
	secret = "hf_not_to_be_seen"
)

// standIn answers as the Hub does: a listing, checksums by HEAD, small files
// itself and large ones by a redirect to a storage server, with ranges.
type standIn struct {
	t     *testing.T
	files map[string]string
	large map[string]bool
	fault func(w http.ResponseWriter, r *http.Request) bool // answers in its place

	mu     sync.Mutex
	seen   []string // "METHOD path range"
	server *httptest.Server
	store  *httptest.Server
}

func newStandIn(t *testing.T, files map[string]string, large ...string) *standIn {
	s := &standIn{t: t, files: files, large: map[string]bool{}}
	for _, name := range large {
		s.large[name] = true
	}
	s.server, s.store = httptest.NewServer(http.HandlerFunc(s.hub)), httptest.NewServer(http.HandlerFunc(s.storage))
	t.Cleanup(s.server.Close)
	t.Cleanup(s.store.Close)
	return s
}

func (s *standIn) client(t *testing.T) *Client {
	return &Client{Endpoint: s.server.URL, Cache: t.TempDir(), Token: secret, Pause: time.Millisecond}
}

func (s *standIn) note(w http.ResponseWriter, r *http.Request) (answered bool) {
	s.mu.Lock()
	s.seen = append(s.seen, strings.TrimSpace(r.Method+" "+r.URL.EscapedPath()+" "+r.Header.Get("Range")))
	s.mu.Unlock()
	return s.fault != nil && s.fault(w, r)
}

func (s *standIn) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

func (s *standIn) hub(w http.ResponseWriter, r *http.Request) {
	if s.note(w, r) {
		return
	}
	if r.URL.Path == "/api/models/org/name/revision/main" || r.URL.Path == "/api/models/org/name/revision/refs/pr/3" {
		l := listing{Commit: commit}
		for name := range s.files {
			l.Files = append(l.Files, struct {
				Name string `json:"rfilename"`
			}{name})
		}
		json.NewEncoder(w).Encode(l)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/api/models/org/name/") {
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+commit+"/")
	body, has := s.files[name]
	if !ok || !has {
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if s.large[name] {
		w.Header().Set("X-Linked-Etag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256([]byte(body)))))
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(body)))
		w.Header().Set("Location", s.store.URL+"/"+name)
		w.WriteHeader(http.StatusFound)
		return
	}
	w.Header().Set("Etag", fmt.Sprintf(`W/"%x"`, sha1.Sum([]byte(fmt.Sprintf("blob %d\x00%s", len(body), body)))))
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
}

func (s *standIn) storage(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		s.t.Errorf("the storage server saw the token")
	}
	if s.note(w, r) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(s.files[r.URL.Path[1:]]))
}

func model() map[string]string {
	return map[string]string{
		"config.json": `{"model_type":"llama"}`, "generation_config.json": "{}", "tokenizer.json": "{}", "tokenizer_config.json": `{"x":1}`,
		"model.safetensors": strings.Repeat("weights ", 300_000), "pytorch_model.bin": "never", "README.md": "never", ".gitattributes": "",
	}
}

var org = Name{"org/name", "main"}

// The layout is the one that the Hub's own library documents and keeps.
func TestFetch(t *testing.T) {
	s := newStandIn(t, model(), "model.safetensors")
	c := s.client(t)
	var done, total int64
	c.Progress = func(d, n int64) { require.GreaterOrEqual(t, n, d); done, total = d, n }
	dir, err := c.Fetch(t.Context(), org)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(c.Cache, "models--org--name", "snapshots", commit), dir)
	require.Equal(t, total, done)
	for _, name := range []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, s.files[name], string(b))
		target, err := os.Readlink(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(target, filepath.Join("..", "..", "blobs")+string(filepath.Separator)), target)
	}
	for _, name := range []string{"pytorch_model.bin", "README.md", ".gitattributes"} {
		require.NoFileExists(t, filepath.Join(dir, name))
	}
	require.FileExists(t, filepath.Join(c.Cache, "models--org--name", "blobs", fmt.Sprintf("%x", sha256.Sum256([]byte(s.files["model.safetensors"])))))
	b, err := os.ReadFile(filepath.Join(c.Cache, "models--org--name", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, commit, string(b), "no line end: transformers reads it as it is")
	incomplete, _ := filepath.Glob(filepath.Join(c.Cache, "models--org--name", "blobs", "*.incomplete"))
	require.Empty(t, incomplete)

	// From then on the server is not asked, by branch or by commit, offline or not.
	s.requests()
	for _, n := range []Name{org, {"org/name", commit}} {
		c.Offline = !c.Offline
		again, err := c.Fetch(t.Context(), n)
		require.NoError(t, err)
		require.Equal(t, dir, again)
	}
	require.Empty(t, s.requests())

	// A file that was deleted is fetched alone; a pull request is the same commit.
	require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
	c.Offline = false
	_, err = c.Fetch(t.Context(), Name{"org/name", "refs/pr/3"})
	require.NoError(t, err)
	require.Equal(t, []string{"GET /api/models/org/name/revision/refs%2Fpr%2F3", "HEAD /org/name/resolve/" + commit + "/model.safetensors"}, s.requests(), "its blob is there")
}

func TestFetchShards(t *testing.T) {
	files := model()
	delete(files, "model.safetensors")
	files["model-00001-of-00002.safetensors"], files["model-00002-of-00002.safetensors"] = "one", "two"
	files["model.safetensors.index.json"] = `{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}}`
	s := newStandIn(t, files, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
	c := s.client(t)
	dir, err := c.Fetch(t.Context(), org)
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "model-00002-of-00002.safetensors"))
	require.NoError(t, err)
	require.Equal(t, "two", string(b))
	_, ok := c.Cached(org)
	require.True(t, ok)
	require.NoError(t, os.Remove(filepath.Join(dir, "model-00002-of-00002.safetensors")))
	_, ok = c.Cached(org)
	require.False(t, ok, "a shard is missing")
	delete(files, "model-00002-of-00002.safetensors")
	_, err = c.Fetch(t.Context(), org)
	require.ErrorContains(t, err, "names model-00002-of-00002.safetensors, which the model does not have")
}

// Whatever breaks on the way, the file arrives whole, and what had arrived is not
// asked for twice.
func TestResume(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(s *standIn, n int, w http.ResponseWriter, r *http.Request) bool
		want  string // the last request's range
	}{
		"half a body": {func(s *standIn, n int, w http.ResponseWriter, r *http.Request) bool {
			switch n {
			case 1:
				w.Header().Set("Content-Length", fmt.Sprint(len(s.files["model.safetensors"])))
				w.Write([]byte(s.files["model.safetensors"][:1000*1000]))
				panic(http.ErrAbortHandler)
			case 2: // goes on in the middle, and breaks again
				http.ServeContent(&cutWriter{ResponseWriter: w, left: 1000}, r, "", time.Time{}, strings.NewReader(s.files["model.safetensors"]))
				panic(http.ErrAbortHandler)
			}
			return false
		}, "bytes="},
		"busy": {func(s *standIn, n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= 3 {
				w.WriteHeader([]int{0, 429, 500, 503}[n])
			}
			return n <= 3
		}, ""},
		"no ranges": {func(s *standIn, n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(s.files["model.safetensors"])))
				w.Write([]byte("weights weights "))
				panic(http.ErrAbortHandler)
			}
			r.Header.Del("Range")
			return false
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t, model(), "model.safetensors")
			n := 0
			s.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/model.safetensors" {
					return false
				}
				n++
				return c.fault(s, n, w, r)
			}
			cl := s.client(t)
			dir, err := cl.Fetch(t.Context(), org)
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
			require.NoError(t, err)
			require.Equal(t, s.files["model.safetensors"], string(b))
			seen := s.requests()
			require.Contains(t, seen[len(seen)-1], c.want)
		})
	}
}

// cutWriter ends a body early.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(b []byte) (int, error) {
	n := min(w.left, len(b))
	w.left -= n
	w.ResponseWriter.Write(b[:n])
	if n < len(b) {
		return n, http.ErrAbortHandler
	}
	return n, nil
}

// A run that was stopped is gone on with by the next; what is not the file's
// beginning is thrown away, and a wrong file is never given its name.
func TestInterrupted(t *testing.T) {
	s := newStandIn(t, model(), "model.safetensors")
	c := s.client(t)
	weights := s.files["model.safetensors"]
	blobs := filepath.Join(c.Cache, "models--org--name", "blobs")
	blob := filepath.Join(blobs, fmt.Sprintf("%x", sha256.Sum256([]byte(weights))))
	last := func() string {
		seen := s.requests()
		return seen[len(seen)-1]
	}

	ctx, cancel := context.WithCancel(t.Context())
	c.Progress = func(done, _ int64) {
		if done > 1<<20 {
			cancel()
		}
	}
	_, err := c.Fetch(ctx, org)
	require.ErrorIs(t, err, context.Canceled)
	st, err := os.Stat(blob + ".incomplete")
	require.NoError(t, err)
	require.Positive(t, st.Size())
	_, ok := c.Cached(org)
	require.False(t, ok)
	c.Progress = nil
	s.requests()
	dir, err := c.Fetch(t.Context(), org)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("GET /model.safetensors bytes=%d-", st.Size()), last())

	for _, left := range []string{"another file's beginning", strings.Repeat("x", len(weights)), weights + "more"} {
		require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
		require.NoError(t, os.Remove(blob))
		require.NoError(t, os.WriteFile(blob+".incomplete", []byte(left), 0o644))
		_, err = c.Fetch(t.Context(), org)
		require.NoError(t, err)
		require.Equal(t, "GET /model.safetensors", last())
	}

	require.NoError(t, os.Remove(filepath.Join(dir, "model.safetensors")))
	require.NoError(t, os.Remove(blob))
	s.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/model.safetensors" {
			w.Write([]byte(strings.Replace(weights, "w", "W", 1)))
			return true
		}
		return false
	}
	_, err = c.Fetch(t.Context(), org)
	require.ErrorIs(t, err, ErrChecksum)
	require.NoFileExists(t, blob)
	require.NoFileExists(t, blob+".incomplete")
}

// Each reason has one line with its remedy, and none shows the token.
func TestErrors(t *testing.T) {
	answer := func(code int, reason string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if reason != "" {
				w.Header().Set("X-Error-Code", reason)
			}
			w.WriteHeader(code)
			return true
		}
	}
	without := func(name string, more ...string) map[string]string {
		m := model()
		delete(m, name)
		delete(m, "pytorch_model.bin")
		for _, f := range more {
			m[f] = ""
		}
		return m
	}
	for name, c := range map[string]struct {
		files map[string]string
		fault func(http.ResponseWriter, *http.Request) bool
		n     Name
		is    error
		want  string
	}{
		"gated 403":   {model(), answer(403, "GatedRepo"), org, ErrGated, "accept its terms at"},
		"gated 401":   {model(), answer(401, "GatedRepo"), org, ErrGated, "HF_TOKEN"},
		"missing 401": {model(), answer(401, "RepoNotFound"), org, ErrNotFound, "check the name's spelling and HF_TOKEN"},
		"missing 404": {model(), answer(404, "RepoNotFound"), org, ErrNotFound, "org/name: not found on the Hub; check the spelling"},
		"revision":    {model(), nil, Name{"org/name", "v9"}, ErrNotFound, `revision "v9" not found on the Hub; see`},
		"broken":      {model(), answer(500, ""), org, ErrReach, "HTTP 500"},
		"no hub":      {model(), func(w http.ResponseWriter, r *http.Request) bool { w.Write([]byte("<html>")); return true }, org, nil, "does not answer as the Hub does"},
		"pickle":      {without("model.safetensors", "pytorch_model.bin"), nil, org, ErrFormat, "only pytorch_model.bin, in PyTorch's pickle format"},
		"gguf":        {without("model.safetensors", "m-Q8_0.gguf"), nil, org, ErrFormat, "only GGUF files such as m-Q8_0.gguf"},
		"odd name":    {without("model.safetensors", "diffusion.safetensors"), nil, org, ErrFormat, "under a name of its own"},
		"nothing":     {without("model.safetensors"), nil, org, ErrFormat, "no weights at all"},
		"no config":   {without("config.json"), nil, org, ErrFormat, "no config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t, c.files)
			s.fault = c.fault
			_, err := s.client(t).Fetch(t.Context(), c.n)
			require.ErrorContains(t, err, c.want)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			require.Contains(t, err.Error(), "org/name")
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), secret)
		})
	}
	s := newStandIn(t, model())
	c := s.client(t)
	c.Offline = true
	_, err := c.Fetch(t.Context(), org)
	require.ErrorIs(t, err, ErrOffline)
	require.Empty(t, s.requests())
	c.Offline = false
	s.server.Close()
	began := time.Now()
	c.Pause = time.Minute
	_, err = c.Fetch(t.Context(), org)
	require.ErrorIs(t, err, ErrReach)
	require.Less(t, time.Since(began), 30*time.Second, "no retries without a network")
}

func TestParseName(t *testing.T) {
	for s, want := range map[string]Name{
		"HuggingFaceTB/SmolLM2-135M-Instruct": {"HuggingFaceTB/SmolLM2-135M-Instruct", "main"},
		"Qwen/Qwen2.5-1.5B@v1.0":              {"Qwen/Qwen2.5-1.5B", "v1.0"},
		"a/b@refs/pr/3":                       {"a/b", "refs/pr/3"},
	} {
		n, ok := ParseName(s)
		require.True(t, ok, s)
		require.Equal(t, want, n)
		require.Equal(t, s, n.String())
	}
	for _, s := range []string{"", "a", "a/b/c", "/a/b", "./a/b", "../a", "a/..", "a/b@", "a/b@../x", "a/b@-x", "a b/c", "a--b/c", "a/b@x@y", "~/m", `C:\m`} {
		_, ok := ParseName(s)
		require.False(t, ok, s)
	}
}

func TestFromEnv(t *testing.T) {
	env := func(kv ...string) *Client {
		c, err := FromEnv(func(k string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		})
		require.NoError(t, err)
		return c
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	c := env()
	require.Equal(t, &Client{Endpoint: DefaultEndpoint, Cache: filepath.Join(home, ".cache", "huggingface", "hub")}, c)
	require.Equal(t, filepath.Join("x", "huggingface", "hub"), env("XDG_CACHE_HOME", "x").Cache)
	require.Equal(t, "y", env("HF_HUB_CACHE", "y", "HF_HOME", "x").Cache)
	hf := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(hf, "token"), []byte("from-login\n"), 0o600))
	c = env("HF_HOME", hf, "HF_ENDPOINT", "http://mirror/", "HF_HUB_OFFLINE", "1")
	require.Equal(t, &Client{Endpoint: "http://mirror", Cache: filepath.Join(hf, "hub"), Token: "from-login", Offline: true}, c)
	require.Equal(t, "t", env("HF_HOME", hf, "HF_TOKEN", "t").Token)
}
