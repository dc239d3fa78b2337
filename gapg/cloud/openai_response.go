package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// completion is the part of a chat-completions response that is read.
type completion struct {
	Choices []struct {
		Message struct {
			Content json.RawMessage `json:"content"`
			Refusal string          `json:"refusal"`
		} `json:"message"`
	} `json:"choices"`
	Usage Usage           `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// parseCompletion reads a response's first choice, without its reasoning.
func parseCompletion(body []byte) (Answer, error) {
	var c completion
	if err := json.Unmarshal(body, &c); err != nil {
		return Answer{}, fmt.Errorf("the response is not JSON of a chat completion (%w): %s", err, excerpt(body))
	}
	if len(c.Error) > 0 && string(c.Error) != "null" {
		return Answer{}, fmt.Errorf("the server reports an error: %s", excerpt(c.Error))
	}
	if len(c.Choices) == 0 {
		return Answer{}, fmt.Errorf("the response has no choices: %s", excerpt(body))
	}
	if c.Usage.PromptTokens < 0 || c.Usage.CompletionTokens < 0 {
		return Answer{}, errors.New("the response counts negative tokens")
	}
	m := c.Choices[0].Message
	text, err := content(m.Content)
	if err != nil {
		return Answer{}, err
	}
	if text == "" {
		text = m.Refusal
	}
	return Answer{Text: stripReasoning(text), Usage: c.Usage}, nil
}

// content reads a message's content: a string, null, or a list of parts.
func content(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return "", fmt.Errorf("the message's content is neither text nor a list of parts: %s", excerpt(raw))
	}
	var b strings.Builder
	for _, p := range parts {
		if p.Type == "text" {
			b.WriteString(p.Text)
		}
	}
	return b.String(), nil
}

// stripReasoning removes blocks of thought, which reasoning models put before
// an answer and which would otherwise be graded with it. A block whose opening
// tag the template wrote begins with the text; one that is never closed leaves
// no answer.
func stripReasoning(s string) string {
	for _, tag := range []string{"think", "thinking", "reasoning"} {
		open, end := "<"+tag+">", "</"+tag+">"
		if i := strings.Index(s, end); i >= 0 && !strings.Contains(s[:i], open) {
			s = s[i+len(end):]
		}
		for {
			i := strings.Index(s, open)
			if i < 0 {
				break
			}
			n := strings.Index(s[i:], end)
			if n < 0 {
				s = s[:i]
				break
			}
			s = s[:i] + s[i+n+len(end):]
		}
	}
	return strings.TrimSpace(s)
}

// refusal turns a response other than 200 into an error of the right kind.
func (o *OpenAI) refusal(resp *http.Response, body []byte) error {
	err := fmt.Errorf("cloud: %s: %s: %s", o.host(), resp.Status, excerpt(serverMessage(body)))
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests && strings.Contains(string(body), "insufficient_quota"),
		code == http.StatusPaymentRequired:
		return &RejectedError{Msg: err.Error() + "; the account has no credit left"}
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return &RejectedError{Msg: err.Error() + "; check the key and what it may use"}
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed, code >= 300 && code < 400:
		return &RejectedError{Msg: err.Error() + "; check the base URL and the model's name"}
	case code == http.StatusRequestTimeout, code == http.StatusConflict, code == http.StatusTooManyRequests, code >= 500:
		if d := retryAfter(resp.Header, time.Now()); d > 0 {
			return After(d, err)
		}
		return Transient(err)
	}
	return err
}

// serverMessage is the error.message of a body that has one, else the body.
func serverMessage(body []byte) []byte {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		return []byte(e.Error.Message)
	}
	return body
}

// retryAfter reads the time to wait from the headers: milliseconds, seconds or
// a date. 0 where there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms >= 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(v, 64); err == nil && s >= 0 && s < 1e6 {
		return time.Duration(s * float64(time.Second))
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// excerpt is a body on one line, cut.
func excerpt(b []byte) string {
	const most = 300
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(b[:min(len(b), 4*most)]), "\ufffd")), " ")
	if s == "" {
		return "(empty)"
	}
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
