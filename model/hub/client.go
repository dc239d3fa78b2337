package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client fetches models. Its zero value lacks an Endpoint and a Cache; FromEnv
// fills them in.
type Client struct {
	Endpoint string // such as DefaultEndpoint, without a slash at its end
	Token    string // "" for none
	Cache    string // directory, made where it is missing
	Offline  bool   // use the cache alone

	HTTP *http.Client // nil: one with time limits of its own
	// Progress, unless nil, is told now and then how many bytes of all that is
	// fetched are there.
	Progress func(done, total int64)
	// Pause is the wait before the first retry, doubled at each further one; 0: one
	// second.
	Pause time.Duration
}

// Reasons for which a model cannot be had; errors of Fetch wrap them.
var (
	ErrNotFound = errors.New("not found on the Hub")
	ErrGated    = errors.New("access is restricted")
	ErrFormat   = errors.New("no safetensors weights")
	ErrOffline  = errors.New("not in the cache, and the network is not to be used")
	ErrReach    = errors.New("the Hub cannot be reached")
	ErrChecksum = errors.New("wrong checksum")
)

const attempts = 5

// statusError is an answer other than what was asked for.
type statusError struct {
	code   int
	reason string // the Hub's own code, such as GatedRepo
	after  time.Duration
}

func (e *statusError) Error() string {
	if e.reason != "" {
		return fmt.Sprintf("HTTP %d (%s)", e.code, e.reason)
	}
	return fmt.Sprintf("HTTP %d", e.code)
}

// temporary reports whether another try may help.
func temporary(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout || status.code >= 500
	}
	var netErr net.Error
	var urlErr *url.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &netErr) || errors.As(err, &urlErr)
}

// unreachable reports whether there was no connection at all.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// retry runs try until it succeeds, fails in a way that again does not deem
// temporary, or has failed often enough without any progress in between.
func (c *Client) retry(ctx context.Context, again func(error) bool, try func() (progress bool, err error)) error {
	pause := c.Pause
	if pause == 0 {
		pause = time.Second
	}
	wait := pause
	for left := attempts; ; {
		progress, err := try()
		if err == nil || ctx.Err() != nil || !again(err) {
			return err
		}
		if progress {
			left, wait = attempts, pause
		}
		if left--; left == 0 {
			return err
		}
		var status *statusError
		if errors.As(err, &status) {
			wait = max(wait, min(status.after, time.Minute))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

func (c *Client) client() *http.Client {
	base := c.HTTP
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = 30 * time.Second
		base = &http.Client{Transport: t}
	}
	h := *base
	host := ""
	if u, err := url.Parse(c.Endpoint); err == nil {
		host = u.Host
	}
	h.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("ten redirects")
		}
		// A file's bytes come from a storage service, which must not see the token.
		if req.URL.Host != host {
			req.Header.Del("Authorization")
		}
		// The Hub's own answer has the checksum; what it sends on to has not. A model
		// that was renamed is sent on within the Hub, by a relative address.
		if req.Method == http.MethodHead && strings.Contains(req.Response.Header.Get("Location"), "://") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return &h
}

// do sends a request for a path of the endpoint and checks the answer's status.
func (c *Client) do(ctx context.Context, method, path string, header http.Header, good ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.Endpoint+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "updraft")
	req.Header.Set("Accept-Encoding", "identity") // sizes and ranges are of the file's bytes
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return nil, err
	}
	for _, code := range good {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	resp.Body.Close()
	e := &statusError{code: resp.StatusCode, reason: resp.Header.Get("X-Error-Code")}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.after = time.Duration(s) * time.Second
	}
	return nil, e
}

// listing is what the Hub tells of a revision.
type listing struct {
	Commit string `json:"sha"`
	Files  []struct {
		Name string `json:"rfilename"`
	} `json:"siblings"`
}

const maxListing = 64 << 20

func (c *Client) list(ctx context.Context, n Name) (listing, error) {
	var l listing
	// Without a network the answer should come at once.
	err := c.retry(ctx, func(err error) bool { return temporary(err) && !unreachable(err) }, func() (bool, error) {
		resp, err := c.do(ctx, http.MethodGet, "/api/models/"+n.Repo+"/revision/"+url.PathEscape(n.Revision), nil, http.StatusOK)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxListing))
		if err != nil {
			return false, err
		}
		l = listing{}
		if err := json.Unmarshal(b, &l); err != nil || !commitPattern.MatchString(l.Commit) {
			return false, fmt.Errorf("%s does not answer as the Hub does: its answer names no commit; check HF_ENDPOINT", c.Endpoint)
		}
		return false, nil
	})
	if err != nil {
		return l, c.explain(n, err)
	}
	return l, nil
}

// explain says what an error means for the user.
func (c *Client) explain(n Name, err error) error {
	var status *statusError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case !errors.As(err, &status):
		if temporary(err) {
			return fmt.Errorf("%s: %w: %s; check the network or HF_ENDPOINT, or set HF_HUB_OFFLINE=1 and use what is in the cache", n, ErrReach, oneLine(err))
		}
		return fmt.Errorf("%s: %w", n, err)
	}
	switch {
	case status.reason == "GatedRepo", status.code == http.StatusForbidden:
		return fmt.Errorf("%s: %w: accept its terms at %s/%s, and set HF_TOKEN to a token of that account with the right to read it", n, ErrGated, c.Endpoint, n.Repo)
	case status.reason == "RevisionNotFound":
		return fmt.Errorf("%s: revision %q %w; see %s/%s/tree/main for its branches and tags", n.Repo, n.Revision, ErrNotFound, c.Endpoint, n.Repo)
	case status.code == http.StatusUnauthorized && c.Token != "":
		return fmt.Errorf("%s: %w, or the token is not valid; check the name's spelling and HF_TOKEN", n, ErrNotFound)
	case status.code == http.StatusUnauthorized: // how the Hub answers for what does not exist or is private
		return fmt.Errorf("%s: %w, or private; check the spelling, and set HF_TOKEN if it is private", n, ErrNotFound)
	case status.code == http.StatusNotFound:
		return fmt.Errorf("%s: %w; check the spelling", n, ErrNotFound)
	}
	return fmt.Errorf("%s: %w: %s answers %s; try again later", n, ErrReach, c.Endpoint, status)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
