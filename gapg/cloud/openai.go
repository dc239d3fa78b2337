package cloud

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// OpenAIConfig describes a cloud that speaks OpenAI's chat-completions
// protocol, as most providers and inference servers do.
type OpenAIConfig struct {
	// BaseURL is the address up to and without /chat/completions, such as
	// https://api.openai.com/v1.
	BaseURL string
	Model   string
	// APIKey is sent as a bearer token; "" sends none. It is never part of a
	// name, an error or a log line.
	APIKey  string
	Headers map[string]string // sent with every request

	System string // the system message; "" sends none
	// Temperature is sent as it is; nil leaves the field out, for models that
	// refuse it.
	Temperature *float64
	// MaxTokens bounds an answer, reasoning included, under the name
	// MaxTokensField: "max_tokens" (where ""), "max_completion_tokens" for
	// models that want that. 0 leaves the field out.
	MaxTokens      int
	MaxTokensField string
	// Extra holds further fields of the request, such as reasoning_effort. They
	// override the fields above.
	Extra map[string]any

	// Price is what tokens cost; nil where that is not known, and then no answer
	// has a known cost.
	Price *Price

	// Time limits of one request; 0 means 10 s to connect, 120 s to the first
	// byte of the answer, 300 s in all.
	Connect, FirstByte, Total time.Duration
	// RequestsPerSecond bounds how fast requests are sent; 0: not at all.
	RequestsPerSecond float64
	// BreakAfter is the number of passing failures in a row after which requests
	// are held back for CoolDown instead of being sent; 0 means 10 and 30 s.
	BreakAfter int
	CoolDown   time.Duration
}

// Price is US dollars per million tokens.
type Price struct {
	Prompt     float64 `json:"prompt" yaml:"prompt"`
	Completion float64 `json:"completion" yaml:"completion"`
}

// Cost returns what u costs in US dollars.
func (p Price) Cost(u Usage) float64 {
	return (float64(u.PromptTokens)*p.Prompt + float64(u.CompletionTokens)*p.Completion) / 1e6
}

// OpenAI is a Cloud behind HTTP. Answer sends exactly one request; a Ledger
// repeats what failed in passing, since it can count the repetitions.
type OpenAI struct {
	c       OpenAIConfig
	url     string
	name    string
	client  *http.Client
	limiter *rate.Limiter
	breaker *gobreaker.TwoStepCircuitBreaker[any]
}

// NewOpenAI checks c and returns the client. Nothing is sent.
func NewOpenAI(c OpenAIConfig) (*OpenAI, error) {
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("cloud: base URL %q: must be a http or https address such as https://api.openai.com/v1", c.BaseURL)
	case u.User != nil:
		return nil, errors.New("cloud: the base URL holds a user or a password: give the key by itself")
	case c.Model == "":
		return nil, errors.New("cloud: no model is named")
	case c.MaxTokens < 0:
		return nil, fmt.Errorf("cloud: %d tokens at most: must not be negative", c.MaxTokens)
	case c.Price != nil && !(c.Price.Prompt >= 0 && c.Price.Completion >= 0):
		return nil, errors.New("cloud: prices must not be negative")
	case c.RequestsPerSecond < 0 || c.Connect < 0 || c.FirstByte < 0 || c.Total < 0 || c.BreakAfter < 0 || c.CoolDown < 0:
		return nil, errors.New("cloud: time limits and rates must not be negative")
	}
	orDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	orDefault(&c.Connect, 10*time.Second)
	orDefault(&c.FirstByte, 120*time.Second)
	orDefault(&c.Total, 300*time.Second)
	orDefault(&c.CoolDown, 30*time.Second)
	if c.BreakAfter == 0 {
		c.BreakAfter = 10
	}
	if c.MaxTokensField == "" {
		c.MaxTokensField = "max_tokens"
	}
	o := &OpenAI{c: c, url: strings.TrimSuffix(c.BaseURL, "/") + "/chat/completions"}
	settings, err := json.Marshal(o.body(""))
	if err != nil {
		return nil, fmt.Errorf("cloud: further fields of the request: %w", err)
	}
	hash := sha256.Sum256(append([]byte(o.url+"\x00"), settings...))
	o.name = fmt.Sprintf("%s at %s (%s)", c.Model, u.Host, hex.EncodeToString(hash[:4]))
	o.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: c.Connect}).DialContext,
			TLSHandshakeTimeout:   c.Connect,
			ResponseHeaderTimeout: c.FirstByte,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       90 * time.Second,
			ForceAttemptHTTP2:     true,
		},
		// A redirect would carry the key to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.RequestsPerSecond > 0 {
		o.limiter = rate.NewLimiter(rate.Limit(c.RequestsPerSecond), max(1, int(c.RequestsPerSecond)))
	}
	o.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Timeout:     c.CoolDown,
		ReadyToTrip: func(n gobreaker.Counts) bool { return int(n.ConsecutiveFailures) >= c.BreakAfter },
		// What the server refuses for good says that it is alive.
		IsSuccessful: func(err error) bool { return !IsTransient(err) },
	})
	return o, nil
}

// Name names the model, its host, and by a short hash every setting that an
// answer depends on, so that answers are found again only for equal requests.
func (o *OpenAI) Name() string { return o.name }

// Price returns what tokens cost, nil where that is not known.
func (o *OpenAI) Price() *Price { return o.c.Price }

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// body is the request for a question's text. encoding/json sorts its keys.
func (o *OpenAI) body(text string) map[string]any {
	var messages []message
	if o.c.System != "" {
		messages = append(messages, message{"system", o.c.System})
	}
	b := map[string]any{"model": o.c.Model, "messages": append(messages, message{"user", text})}
	if o.c.Temperature != nil {
		b["temperature"] = *o.c.Temperature
	}
	if o.c.MaxTokens > 0 {
		b[o.c.MaxTokensField] = o.c.MaxTokens
	}
	maps.Copy(b, o.c.Extra)
	return b
}

// Bound implements Bounder. A token is at least one byte of text; templates add
// a few around each message.
func (o *OpenAI) Bound(q Question) Bound {
	u := Usage{PromptTokens: len(o.c.System) + len(q.Text) + 64, CompletionTokens: o.c.MaxTokens}
	b := Bound{Tokens: u.PromptTokens + u.CompletionTokens}
	if o.c.Price != nil {
		b.USD = o.c.Price.Cost(u)
	}
	return b
}

// Answer implements Cloud by one request.
func (o *OpenAI) Answer(ctx context.Context, q Question) (Answer, error) {
	payload, err := json.Marshal(o.body(q.Text))
	if err != nil {
		return Answer{}, NotSent(err)
	}
	if o.limiter != nil {
		if err := o.limiter.Wait(ctx); err != nil {
			return Answer{}, NotSent(err)
		}
	}
	done, err := o.breaker.Allow()
	if err != nil {
		return Answer{}, NotSent(After(o.c.CoolDown, fmt.Errorf("cloud: %s failed %d times in a row; requests are held back for %v", o.host(), o.c.BreakAfter, o.c.CoolDown)))
	}
	start := time.Now()
	a, err := o.send(ctx, payload)
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		done(nil) // our own doing says nothing of the server
	} else {
		done(err)
	}
	a.Latency = time.Since(start)
	return a, o.redact(err)
}

func (o *OpenAI) host() string {
	u, _ := url.Parse(o.url)
	return u.Host
}

// send makes the request and reads the response whole.
func (o *OpenAI) send(ctx context.Context, payload []byte) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, o.c.Total)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(payload))
	if err != nil {
		return Answer{}, NotSent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if o.c.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+o.c.APIKey)
	}
	for _, k := range slices.Sorted(maps.Keys(o.c.Headers)) {
		req.Header.Set(k, o.c.Headers[k])
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return Answer{}, Transient(fmt.Errorf("cloud: %w", err))
	}
	defer resp.Body.Close()
	const most = 32 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return Answer{}, Transient(fmt.Errorf("cloud: %s: the response broke off: %w", o.host(), err))
	case len(body) > most:
		return Answer{}, fmt.Errorf("cloud: %s: a response of more than %d bytes", o.host(), most)
	case resp.StatusCode != http.StatusOK:
		return Answer{}, o.refusal(resp, body)
	}
	a, err := parseCompletion(body)
	if err != nil {
		// Half a response or a proxy's page: the next try may fare better.
		return Answer{}, Transient(fmt.Errorf("cloud: %s: %w", o.host(), err))
	}
	if o.c.Price == nil {
		a.CostUnknown = true
	} else {
		a.CostUSD = o.c.Price.Cost(a.Usage)
	}
	return a, nil
}

// redact keeps the key out of an error: servers quote it.
func (o *OpenAI) redact(err error) error {
	if err == nil || o.c.APIKey == "" || !strings.Contains(err.Error(), o.c.APIKey) {
		return err
	}
	return &redacted{strings.ReplaceAll(err.Error(), o.c.APIKey, "[key]"), err}
}

// redacted says msg and is what err is.
type redacted struct {
	msg string
	err error
}

func (r *redacted) Error() string { return r.msg }

// As and Is look into the error without handing it out: its text holds the key.
func (r *redacted) As(target any) bool {
	switch t := target.(type) {
	case **transientError:
		if IsTransient(r.err) {
			*t = &transientError{errors.New(r.msg)}
			return true
		}
	case **RejectedError:
		var x *RejectedError
		if errors.As(r.err, &x) {
			*t = &RejectedError{Msg: r.msg}
			return true
		}
	case **afterError, **notSentError:
		return errors.As(r.err, target)
	}
	return false
}

func (r *redacted) Is(target error) bool { return errors.Is(r.err, target) }
