package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// remote is a file on the server. Its etag is the SHA-256 of a large file, the
// SHA-1 of a small one's git blob.
type remote struct {
	name, etag string
	size       int64
}

var etagPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func resolvePath(repo, commit, name string) string {
	return "/" + repo + "/resolve/" + commit + "/" + name
}

// head asks for a file's checksum and size.
func (c *Client) head(ctx context.Context, repo, commit, name string) (remote, error) {
	f := remote{name: name}
	err := c.retry(ctx, temporary, func() (bool, error) {
		resp, err := c.do(ctx, http.MethodHead, resolvePath(repo, commit, name), nil,
			http.StatusOK, http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect)
		if err != nil {
			return false, err
		}
		resp.Body.Close()
		first := func(keys ...string) string {
			for _, k := range keys {
				if v := resp.Header.Get(k); v != "" {
					return v
				}
			}
			return ""
		}
		f.etag = strings.Trim(strings.TrimPrefix(first("X-Linked-Etag", "Etag"), "W/"), `"`)
		f.size, err = strconv.ParseInt(first("X-Linked-Size", "Content-Length"), 10, 64)
		if err != nil || f.size < 0 || !etagPattern.MatchString(f.etag) {
			return false, fmt.Errorf("%s does not answer as the Hub does: %s has no size and checksum in the headers; check HF_ENDPOINT", c.Endpoint, name)
		}
		return false, nil
	})
	return f, err
}

// download brings a file to path, going on where an earlier try ended. report is
// told of bytes as they come, negative where they prove worthless.
func (c *Client) download(ctx context.Context, repo, commit string, f remote, path string, report func(int64)) error {
	part, err := os.OpenFile(path+".incomplete", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	defer part.Close()
	st, err := part.Stat()
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	at := st.Size()
	if at > f.size {
		at = 0
	}
	report(at)
	for fresh := at == 0; ; fresh = true {
		err := c.retry(ctx, temporary, func() (bool, error) {
			from := at
			err := c.pull(ctx, resolvePath(repo, commit, f.name), f.size, part, &at, report)
			return at > from, err
		})
		if err != nil {
			return err
		}
		if err = verify(part, f); err == nil {
			break
		}
		if !errors.Is(err, ErrChecksum) || fresh {
			os.Remove(part.Name())
			return err
		}
		report(-at) // what an earlier run left was not this file's beginning: once more, from the start
		at = 0
	}
	if err := part.Sync(); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if err := part.Close(); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return nil
}

// pull reads the rest of a file of size bytes into part, from *at on, which it
// moves on.
func (c *Client) pull(ctx context.Context, path string, size int64, part *os.File, at *int64, report func(int64)) error {
	if err := part.Truncate(*at); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if *at == size {
		return nil
	}
	header := http.Header{}
	if *at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", *at))
	}
	resp, err := c.do(ctx, http.MethodGet, path, header, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if from := fmt.Sprintf("bytes %d-", *at); *at > 0 && (resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(resp.Header.Get("Content-Range"), from)) {
		report(-*at) // the server sends it all
		*at = 0
		if err := part.Truncate(0); err != nil {
			return fmt.Errorf("hub: %w", err)
		}
	}
	if _, err := part.Seek(*at, io.SeekStart); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := resp.Body.Read(buf)
		if int64(n) > size-*at {
			return fmt.Errorf("hub: %s: more than the %d bytes that were announced", path, size)
		}
		if n > 0 {
			if _, err := part.Write(buf[:n]); err != nil {
				return fmt.Errorf("hub: %w", err)
			}
			*at += int64(n)
			report(int64(n))
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // what was under way may still have come in
		case errors.Is(err, io.EOF) && *at < size:
			return io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// verify compares a file's bytes with its checksum.
func verify(part *os.File, f remote) error {
	var h hash.Hash
	if len(f.etag) == hex.EncodedLen(sha256.Size) {
		h = sha256.New()
	} else {
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", f.size)
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if _, err := io.Copy(h, part); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.etag {
		return fmt.Errorf("hub: %s: %w: %s in place of %s; try again, and look for a proxy that changes files", f.name, ErrChecksum, got, f.etag)
	}
	return nil
}
