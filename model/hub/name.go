package hub

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Name is a model on the Hub: org/name, and the branch, tag or commit meant.
type Name struct {
	Repo, Revision string
}

var (
	repoPattern     = regexp.MustCompile(`^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}$`)
	revisionPattern = regexp.MustCompile(`^[A-Za-z0-9][\w./-]{0,199}$`)
	commitPattern   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// ParseName reads org/name or org/name@revision; without a revision, main is
// meant. It reports false for what cannot be the name of a model.
func ParseName(s string) (Name, bool) {
	repo, revision, at := strings.Cut(s, "@")
	if !at {
		revision = "main"
	}
	n := Name{repo, revision}
	ok := repoPattern.MatchString(repo) && revisionPattern.MatchString(revision) && !strings.Contains(s, "..") && !strings.Contains(s, "--")
	return n, ok
}

func (n Name) String() string {
	if n.Revision == "main" {
		return n.Repo
	}
	return n.Repo + "@" + n.Revision
}

// folder is the model's place in the cache.
func (n Name) folder() string { return "models--" + strings.ReplaceAll(n.Repo, "/", "--") }

// DefaultEndpoint is the Hub's address.
const DefaultEndpoint = "https://huggingface.co"

// FromEnv returns a client as the Hub's library would set itself up: HF_ENDPOINT,
// HF_TOKEN (or the file that its login writes), HF_HUB_OFFLINE, and the cache of
// HF_HUB_CACHE, HF_HOME or XDG_CACHE_HOME, by default ~/.cache/huggingface/hub.
func FromEnv(getenv func(string) string) (*Client, error) {
	home := getenv("HF_HOME")
	if home == "" {
		cache := getenv("XDG_CACHE_HOME")
		if cache == "" {
			user, err := os.UserHomeDir()
			if err != nil && getenv("HF_HUB_CACHE") == "" {
				return nil, errors.New("hub: no home directory to keep a cache in: set HF_HUB_CACHE")
			}
			cache = filepath.Join(user, ".cache")
		}
		home = filepath.Join(cache, "huggingface")
	}
	c := &Client{Endpoint: strings.TrimRight(getenv("HF_ENDPOINT"), "/"), Cache: getenv("HF_HUB_CACHE"), Token: strings.TrimSpace(getenv("HF_TOKEN"))}
	if c.Endpoint == "" {
		c.Endpoint = DefaultEndpoint
	}
	if c.Cache == "" {
		c.Cache = filepath.Join(home, "hub")
	}
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		switch strings.ToUpper(getenv(name)) {
		case "1", "ON", "YES", "TRUE":
			c.Offline = true
		}
	}
	if c.Token == "" {
		path := getenv("HF_TOKEN_PATH")
		if path == "" {
			path = filepath.Join(home, "token")
		}
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		c.Token = strings.TrimSpace(string(b))
	}
	return c, nil
}
