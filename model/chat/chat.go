package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"
)

// Message is one turn of a conversation. One that was read from JSON keeps all
// its fields (tool_calls, reasoning_content, content in parts) for templates.
type Message struct {
	Role    string
	Content string

	fields json.RawMessage
}

// UnmarshalJSON reads a message as chat APIs have it: an object with a role.
func (m *Message) UnmarshalJSON(b []byte) error {
	var f struct {
		Role    *string         `json:"role"`
		Content json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(b, &f); err != nil || f.Role == nil {
		return errors.New("chat: a message must be an object with a role")
	}
	*m = Message{Role: *f.Role, fields: json.RawMessage(strings.Clone(string(b)))}
	json.Unmarshal(f.Content, &m.Content) // other than a string: for the template alone
	return nil
}

// value is the message as templates see it.
func (m *Message) value() (jinja.Value, error) {
	if m.fields != nil {
		return jsonValue(m.fields)
	}
	v := jinja.NewDict()
	v.AsDict().Set("role", jinja.NewString(m.Role))
	v.AsDict().Set("content", jinja.NewString(m.Content))
	return v, nil
}

// Conversation is what a template writes.
type Conversation struct {
	Messages            []Message
	AddGenerationPrompt bool            // end in what begins the assistant's turn
	Tools               json.RawMessage // a list of tools; nil for none
	Now                 time.Time       // for templates that write the date; zero: the present
	Extra               map[string]any  // further variables, such as enable_thinking: plain JSON types
}

// Template is a chat template, safe for concurrent use.
type Template struct {
	source      string
	chat, tools *jinja.Template // tools where the checkpoint has another template for them
	special     map[string]jinja.Value
}

// Source returns the template's text.
func (t *Template) Source() string { return t.source }

// Parse reads a template. special are the variables bos_token, eos_token and
// so on, by name.
func Parse(source string, special map[string]string) (*Template, error) {
	t, err := compile(source)
	if err != nil {
		return nil, err
	}
	out := &Template{source: source, chat: t, tools: t, special: map[string]jinja.Value{}}
	for name, token := range special {
		out.special[name] = jinja.NewString(token)
	}
	return out, nil
}

func compile(source string) (t *jinja.Template, err error) {
	defer func() {
		if r := recover(); r != nil { // the engine's own
			err = fmt.Errorf("chat: the template cannot be read: %v", r)
		}
	}()
	text, err := rewrite(source)
	if err != nil {
		return nil, err
	}
	if t, err = jinja.Compile(text); err != nil {
		return nil, fmt.Errorf("chat: %s", oneLine(err.Error()))
	}
	return t, nil
}

// Names of files that hold templates, in the order in which they are asked for.
const (
	File       = "chat_template.jinja"
	configFile = "tokenizer_config.json"
)

// Load reads the chat template of a checkpoint directory, from
// chat_template.jinja or from tokenizer_config.json, and the special tokens
// from the latter. Where there is no template the error is an fs.ErrNotExist.
func Load(dir string) (*Template, error) {
	path := filepath.Join(dir, configFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("chat: %w", err)
	}
	fields := map[string]json.RawMessage{}
	if err == nil {
		if err := json.Unmarshal(b, &fields); err != nil {
			return nil, fmt.Errorf("chat: %s: not valid JSON: %w", path, err)
		}
	}
	source, tools, err := templates(fields["chat_template"])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch b, err := os.ReadFile(filepath.Join(dir, File)); {
	case err == nil:
		path, source, tools = filepath.Join(dir, File), string(b), ""
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("chat: %w", err)
	}
	if source == "" {
		return nil, fmt.Errorf("chat: %s: no chat template, neither %s nor in %s: %w", dir, File, configFile, fs.ErrNotExist)
	}
	special := map[string]string{}
	for name, raw := range fields {
		if s := tokenText(raw); s != "" && strings.HasSuffix(name, "_token") {
			special[name] = s
		}
	}
	t, err := Parse(source, special)
	if err == nil && tools != "" {
		t.tools, err = compile(tools)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// templates reads chat_template: a template, or a list of them with names, of
// which default and tool_use are meant.
func templates(raw json.RawMessage) (chat, tools string, err error) {
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &chat) == nil {
		return chat, "", nil
	}
	var list []struct{ Name, Template string }
	if json.Unmarshal(raw, &list) != nil {
		return "", "", errors.New("chat: chat_template: neither a text nor a list of templates with names")
	}
	for _, t := range list {
		switch t.Name {
		case "default":
			chat = t.Template
		case "tool_use":
			tools = t.Template
		}
	}
	if chat == "" && len(list) > 0 {
		return "", "", errors.New(`chat: chat_template: the list has no template named "default"`)
	}
	return chat, tools, nil
}

// tokenText reads a token given as a string or as an object with content.
func tokenText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var o struct{ Content string }
	if json.Unmarshal(raw, &o) == nil {
		return o.Content
	}
	return ""
}

// RefusedError is a template's own refusal of a conversation: what it gave to
// raise_exception.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string {
	return "chat: the chat template refuses the conversation: " + oneLine(e.Reason)
}

// Render writes a conversation. The text holds the special tokens, the begin
// token too where the template writes one: encode it with Tokenizer.Encode,
// which puts nothing around it.
func (t *Template) Render(c Conversation) (text string, err error) {
	defer func() {
		if r := recover(); r != nil { // the engine's own
			text, err = "", fmt.Errorf("chat: the template fails: %s", oneLine(fmt.Sprint(r)))
		}
	}()
	messages := make([]jinja.Value, len(c.Messages))
	for i := range c.Messages {
		if messages[i], err = c.Messages[i].value(); err != nil {
			return "", fmt.Errorf("chat: message %d: %w", i+1, err)
		}
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	r := &run{now: c.Now}
	vars := r.functions()
	for name, v := range t.special {
		vars[name] = v
	}
	template := t.chat
	vars["tools"], vars["documents"] = jinja.None(), jinja.None()
	if c.Tools != nil {
		if vars["tools"], err = jsonValue(c.Tools); err != nil {
			return "", fmt.Errorf("chat: tools: %w", err)
		}
		template = t.tools
	}
	for name, v := range c.Extra {
		vars[name] = jinja.FromGoValue(v)
	}
	vars["messages"] = jinja.NewList(messages)
	vars["add_generation_prompt"] = jinja.NewBool(c.AddGenerationPrompt)
	text, err = template.RenderValues(vars)
	var refused *RefusedError
	if errors.As(err, &refused) {
		return "", refused
	}
	if err != nil {
		return "", fmt.Errorf("chat: the template fails: %s", oneLine(err.Error()))
	}
	return text, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
