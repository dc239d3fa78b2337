package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/model/checkpoint"
)

// optional are the files of a checkpoint that may be missing.
var optional = []string{
	"generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
	"vocab.json", "merges.txt", "updraft.json",
}

const configFile = "config.json"

// Fetch returns the directory of a model's snapshot in the cache. Where it is not
// there or not complete, what is missing is fetched.
func (c *Client) Fetch(ctx context.Context, n Name) (dir string, err error) {
	if dir, ok := c.Cached(n); ok {
		return dir, nil
	}
	if c.Offline {
		return "", fmt.Errorf("%s: %w (HF_HUB_OFFLINE): unset it to fetch the model, or name a directory", n, ErrOffline)
	}
	l, err := c.list(ctx, n)
	if err != nil {
		return "", err
	}
	has := make(map[string]bool)
	var names []string
	for _, f := range l.Files {
		has[f.Name] = true
		names = append(names, f.Name)
	}
	switch {
	case !has[checkpoint.WeightsFile] && !has[checkpoint.IndexFile]:
		return "", fmt.Errorf("%s: %w", n, unreadable(names))
	case !has[configFile]:
		return "", fmt.Errorf("%s: %w: it has no %s, so it is no checkpoint of transformers'", n, ErrFormat, configFile)
	}
	s := &snapshot{c: c, name: n, commit: l.Commit, root: filepath.Join(c.Cache, n.folder())}
	want := []string{configFile}
	for _, name := range optional {
		if has[name] {
			want = append(want, name)
		}
	}
	if has[checkpoint.WeightsFile] {
		want = append(want, checkpoint.WeightsFile)
	} else {
		// The index says which shards there are.
		if err := s.fetch(ctx, []string{checkpoint.IndexFile}); err != nil {
			return "", c.explain(n, err)
		}
		shards, err := shardsOf(s.dir())
		if err != nil {
			return "", err
		}
		for _, shard := range shards {
			if !has[shard] {
				return "", fmt.Errorf("%s: %w: %s names %s, which the model does not have", n, ErrFormat, checkpoint.IndexFile, shard)
			}
		}
		want = append(want, shards...)
	}
	if err := s.fetch(ctx, want); err != nil {
		return "", c.explain(n, err)
	}
	if n.Revision != l.Commit {
		if err := s.writeRef(); err != nil {
			return "", err
		}
	}
	return s.dir(), nil
}

// Cached returns the directory of a model's snapshot if the cache has all of it.
func (c *Client) Cached(n Name) (dir string, ok bool) {
	root := filepath.Join(c.Cache, n.folder())
	commit := n.Revision
	if b, err := os.ReadFile(filepath.Join(root, "refs", filepath.FromSlash(n.Revision))); err == nil {
		commit = strings.TrimSpace(string(b))
	}
	if !commitPattern.MatchString(commit) {
		return "", false
	}
	dir = filepath.Join(root, "snapshots", commit)
	return dir, complete(dir)
}

// complete reports whether a directory has what a model needs. The small files
// come before the weights, so that where these are, those are.
func complete(dir string) bool {
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name)) // through the link
		return err == nil
	}
	if !there(configFile) || !there("tokenizer.json") {
		return false
	}
	if there(checkpoint.WeightsFile) {
		return true
	}
	shards, err := shardsOf(dir)
	return err == nil && !slices.ContainsFunc(shards, func(s string) bool { return !there(s) })
}

// shardsOf lists the files that the index of a directory names, in order.
func shardsOf(dir string) ([]string, error) {
	where, err := checkpoint.Shards(filepath.Join(dir, checkpoint.IndexFile))
	if err != nil {
		return nil, err
	}
	return slices.Compact(slices.Sorted(maps.Values(where))), nil
}

// unreadable says what a model without safetensors weights has instead, and what
// to do.
func unreadable(names []string) error {
	for _, kind := range []struct {
		is     func(string) bool
		remedy string
	}{
		{checkpoint.IsPickle, "only %s, in PyTorch's pickle format, which can run any program and is not read; look for a safetensors revision (often @refs/convert/safetensors or an open pull request, @refs/pr/N), or convert it with transformers: from_pretrained, then save_pretrained"},
		{func(s string) bool { return strings.HasSuffix(strings.ToLower(s), ".gguf") }, "only GGUF files such as %s; fetch that file and give its path as the model"},
		{func(s string) bool { return strings.HasSuffix(s, ".safetensors") }, "only %s under a name of its own; fetch it, rename it to model.safetensors and give the directory as the model"},
	} {
		if i := slices.IndexFunc(names, kind.is); i >= 0 {
			return fmt.Errorf("%w: "+kind.remedy, ErrFormat, names[i])
		}
	}
	return fmt.Errorf("%w: it has no weights at all", ErrFormat)
}

// snapshot is one commit of a model in the cache.
type snapshot struct {
	c      *Client
	name   Name
	commit string
	root   string

	done, total int64 // bytes, for Progress
}

func (s *snapshot) dir() string { return filepath.Join(s.root, "snapshots", s.commit) }

// fetch brings files into the snapshot.
func (s *snapshot) fetch(ctx context.Context, names []string) error {
	var files []remote
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(s.dir(), name)); err == nil {
			continue
		}
		f, err := s.c.head(ctx, s.name.Repo, s.commit, name)
		if err != nil {
			return err
		}
		files = append(files, f)
		s.total += f.size
	}
	for _, f := range files {
		if err := s.one(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// one fetches a file's blob, unless it is there, and links it.
func (s *snapshot) one(ctx context.Context, f remote) error {
	blob := filepath.Join(s.root, "blobs", f.etag)
	if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	unlock, err := lock(filepath.Join(s.c.Cache, ".locks", filepath.Base(s.root), f.etag+".lock"))
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	defer unlock()
	if st, err := os.Stat(blob); err == nil {
		s.report(st.Size())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hub: %w", err)
	} else if err := s.c.download(ctx, s.name.Repo, s.commit, f, blob, s.report); err != nil {
		return err
	}
	return link(blob, filepath.Join(s.dir(), f.name))
}

func (s *snapshot) report(n int64) {
	s.done += n
	if s.c.Progress != nil {
		s.c.Progress(s.done, s.total)
	}
}

// link makes the file of a snapshot point at its blob, as the Hub's library does.
// Where there are no symbolic links, the blob moves there itself.
func link(blob, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	target, err := filepath.Rel(filepath.Dir(path), blob)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // a link to a blob that is gone
		return fmt.Errorf("hub: %w", err)
	}
	if os.Symlink(target, path) == nil {
		return nil
	}
	if err := os.Rename(blob, path); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return nil
}

// writeRef notes which commit the revision is.
func (s *snapshot) writeRef() error {
	path := filepath.Join(s.root, "refs", filepath.FromSlash(s.name.Revision))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if err := os.WriteFile(path, []byte(s.commit), 0o644); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return nil
}
