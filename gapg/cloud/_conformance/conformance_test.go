package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
)

// server answers every request alike and keeps what was sent.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
}

type request struct {
	Method, Path, Key, ContentType, Team string
	Body                                 map[string]any
}

func serve(t *testing.T, status int, header http.Header, body string) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := request{Method: r.Method, Path: r.URL.Path, Key: r.Header.Get("Authorization"), ContentType: r.Header.Get("Content-Type"), Team: r.Header.Get("X-Team")}
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(data, &q.Body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, q)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

// ours is package cloud's client.
func (s *server) ours(t *testing.T, change func(*cloud.OpenAIConfig)) *cloud.OpenAI {
	c := cloud.OpenAIConfig{BaseURL: s.URL + "/v1", Model: "gpt-test", APIKey: "sk-test", MaxTokensField: "max_completion_tokens"}
	if change != nil {
		change(&c)
	}
	o, err := cloud.NewOpenAI(c)
	require.NoError(t, err)
	return o
}

// theirs is openai-go's, which is told not to repeat a request: in Updraft the
// ledger repeats, because it counts.
func (s *server) theirs(o ...option.RequestOption) openai.Client {
	return openai.NewClient(append(o, option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey("sk-test"), option.WithMaxRetries(0))...)
}

const question = "What is 17·3? Ünïcode, \"quotes\", <tags> & a\nnewline."

func params(messages ...openai.ChatCompletionMessageParamUnion) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "gpt-test", Messages: append(messages, openai.UserMessage(question))}
}

// completion is a response with one choice, as the protocol's reference shows it.
func completion(message, finish string) string {
	return fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion","created":1741569952,"model":"gpt-test-2025",
		"choices":[{"index":0,"message":%s,"logprobs":null,"finish_reason":%q}],
		"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},
		"completion_tokens_details":{"reasoning_tokens":4}},"service_tier":"default"}`, message, finish)
}

// For equal settings both clients send the same request, field by field.
func TestSameRequests(t *testing.T) {
	zero, half := 0.0, 0.5
	for name, c := range map[string]struct {
		ours   func(*cloud.OpenAIConfig)
		theirs func(*openai.ChatCompletionNewParams) []option.RequestOption
	}{
		"plain": {nil, func(*openai.ChatCompletionNewParams) []option.RequestOption { return nil }},
		"temperature 0 and a limit": {func(c *cloud.OpenAIConfig) { c.Temperature, c.MaxTokens = &zero, 256 },
			func(p *openai.ChatCompletionNewParams) []option.RequestOption {
				p.Temperature, p.MaxCompletionTokens = openai.Float(0), openai.Int(256)
				return nil
			}},
		"the older limit": {func(c *cloud.OpenAIConfig) { c.Temperature, c.MaxTokens, c.MaxTokensField = &half, 9, "" },
			func(p *openai.ChatCompletionNewParams) []option.RequestOption {
				p.Temperature, p.MaxTokens = openai.Float(0.5), openai.Int(9)
				return nil
			}},
		"system, effort, seed, header": {func(c *cloud.OpenAIConfig) {
			c.System, c.Headers = "Be brief.", map[string]string{"X-Team": "blue"}
			c.Extra = map[string]any{"reasoning_effort": "low", "seed": 7}
		}, func(p *openai.ChatCompletionNewParams) []option.RequestOption {
			*p = params(openai.SystemMessage("Be brief."))
			p.ReasoningEffort, p.Seed = shared.ReasoningEffortLow, openai.Int(7)
			return []option.RequestOption{option.WithHeader("X-Team", "blue")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, http.StatusOK, nil, completion(`{"role":"assistant","content":"51"}`, "stop"))
			_, err := s.ours(t, c.ours).Answer(t.Context(), cloud.Question{Text: question})
			require.NoError(t, err)
			p := params()
			options := c.theirs(&p)
			client := s.theirs(options...)
			_, err = client.Chat.Completions.New(t.Context(), p)
			require.NoError(t, err)
			require.Len(t, s.requests, 2)
			require.Equal(t, s.requests[1], s.requests[0])
			require.Equal(t, "Bearer sk-test", s.requests[0].Key)
		})
	}
}

// Both read the same text and the same counts out of a response.
func TestSameAnswers(t *testing.T) {
	for name, c := range map[string]struct{ message, finish, want string }{
		"text":              {`{"role":"assistant","content":"17·3 = 51","refusal":null,"annotations":[]}`, "stop", "17·3 = 51"},
		"escapes":           {`{"role":"assistant","content":"\u0035\u0031 \ud83d\ude80 \"x\" \\frac{1}{2}\n#### 51"}`, "stop", "51 🚀 \"x\" \\frac{1}{2}\n#### 51"},
		"cut off":           {`{"role":"assistant","content":"17·3 ="}`, "length", "17·3 ="},
		"no content":        {`{"role":"assistant","content":null}`, "length", ""},
		"unknown fields":    {`{"role":"assistant","content":"51","reasoning_content":"hm","audio":null,"tool_calls":null,"new":{"a":[1]}}`, "stop", "51"},
		"an unknown finish": {`{"role":"assistant","content":"51"}`, "new_reason", "51"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, http.StatusOK, nil, completion(c.message, c.finish))
			got, err := s.ours(t, nil).Answer(t.Context(), cloud.Question{Text: question})
			require.NoError(t, err)
			client := s.theirs()
			want, err := client.Chat.Completions.New(t.Context(), params())
			require.NoError(t, err)
			require.Equal(t, c.want, want.Choices[0].Message.Content)
			require.Equal(t, want.Choices[0].Message.Content, got.Text)
			require.EqualValues(t, want.Usage.PromptTokens, got.Usage.PromptTokens)
			require.EqualValues(t, want.Usage.CompletionTokens, got.Usage.CompletionTokens)
		})
	}
}

// What is ours alone: a refusal is the text that is graded, and reasoning is not.
func TestOursAlone(t *testing.T) {
	for message, want := range map[string]string{
		`{"role":"assistant","content":null,"refusal":"I cannot help with that."}`: "I cannot help with that.",
		`{"role":"assistant","content":"<think>17·3 is 51</think>\n\n51"}`:         "51",
	} {
		s := serve(t, http.StatusOK, nil, completion(message, "stop"))
		got, err := s.ours(t, nil).Answer(t.Context(), cloud.Question{Text: question})
		require.NoError(t, err)
		require.Equal(t, want, got.Text)
		client := s.theirs()
		theirs, err := client.Chat.Completions.New(t.Context(), params())
		require.NoError(t, err)
		if m := theirs.Choices[0].Message; m.Refusal != "" {
			require.Equal(t, want, m.Refusal)
		} else {
			require.Contains(t, m.Content, want)
		}
	}
}

// Both fail on the same responses, with the server's message; what openai-go would
// repeat of itself is what the ledger repeats.
func TestSameFailures(t *testing.T) {
	const says = "this is the server's reason"
	for _, status := range []int{400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := serve(t, status, nil, fmt.Sprintf(`{"error":{"message":%q,"type":"some_error","param":null,"code":null}}`, says))
			_, err := s.ours(t, nil).Answer(t.Context(), cloud.Question{Text: question})
			require.ErrorContains(t, err, says)
			require.ErrorContains(t, err, fmt.Sprint(status))
			require.NotContains(t, err.Error(), "sk-test")
			client := s.theirs()
			_, theirs := client.Chat.Completions.New(t.Context(), params())
			var e *openai.Error
			require.True(t, errors.As(theirs, &e))
			require.Equal(t, status, e.StatusCode)
			require.Equal(t, says, e.Message)

			before := len(s.requests)
			client = s.theirs(option.WithHeader("X-Team", "again"))
			_, _ = client.Chat.Completions.New(t.Context(), params(), option.WithMaxRetries(1))
			require.Equal(t, cloud.IsTransient(err), len(s.requests)-before == 2, "does openai-go repeat it?")
		})
	}
}

// Responses that no client can read are failures of both.
func TestSameUnreadable(t *testing.T) {
	for name, body := range map[string]string{
		"half":      completion(`{"role":"assistant","content":"51"}`, "stop")[:100],
		"a page":    "<html><body>Bad gateway</body></html>",
		"nothing":   "",
		"no object": `"51"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, http.StatusOK, nil, body)
			_, err := s.ours(t, nil).Answer(t.Context(), cloud.Question{Text: question})
			require.Error(t, err)
			require.True(t, cloud.IsTransient(err), "the next try may fare better")
			client := s.theirs()
			got, err := client.Chat.Completions.New(t.Context(), params())
			require.True(t, err != nil || len(got.Choices) == 0)
		})
	}
}

// Both wait as long as the server asks, to the accuracy of what openai-go does: it
// sleeps, and ours tells the ledger.
func TestSameWait(t *testing.T) {
	for name, header := range map[string]http.Header{
		"seconds":      {"Retry-After": {"0.3"}},
		"milliseconds": {"Retry-After-Ms": {"300"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, http.StatusTooManyRequests, header, `{"error":{"message":"slow down"}}`)
			_, err := s.ours(t, nil).Answer(t.Context(), cloud.Question{Text: question})
			wait, ok := cloud.RetryAfter(err)
			require.True(t, ok)
			require.Equal(t, 300*time.Millisecond, wait)
			client := s.theirs()
			from := time.Now()
			_, err = client.Chat.Completions.New(t.Context(), params(), option.WithMaxRetries(1))
			require.Error(t, err)
			require.GreaterOrEqual(t, time.Since(from), wait)
			require.Len(t, s.requests, 3)
		})
	}
}
