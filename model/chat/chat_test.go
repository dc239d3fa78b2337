package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// rendered is what testdata of model/tokenizer's fetch.py and golden.py write:
// conversations with the texts that transformers makes of them.
type rendered struct {
	Template string
	Special  map[string]string
	Now      time.Time
	Cases    []struct {
		Messages            []Message
		AddGenerationPrompt bool `json:"add_generation_prompt"`
		Tools               json.RawMessage
		Extra               map[string]any
		Text                *string
		Error               string
	}
}

func (r *rendered) check(t *testing.T) {
	template, err := Parse(r.Template, r.Special)
	require.NoError(t, err)
	refused := 0
	for i, c := range r.Cases {
		if string(c.Tools) == "null" {
			c.Tools = nil
		}
		got, err := template.Render(Conversation{c.Messages, c.AddGenerationPrompt, c.Tools, r.Now, c.Extra})
		if c.Text == nil {
			refused++
			require.Error(t, err, "case %d: transformers says %s", i, c.Error)
			continue
		}
		require.NoError(t, err, "case %d", i)
		require.Equal(t, *c.Text, got, "case %d", i)
	}
	t.Logf("%d conversations, %d of them refused", len(r.Cases), refused)
}

func readRendered(t testing.TB, path string) *rendered {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var r rendered
	require.NoError(t, json.Unmarshal(b, &r))
	require.NotEmpty(t, r.Cases)
	return &r
}

// The texts equal those of transformers' apply_chat_template, under the
// templates of real checkpoints.
func TestRealTemplates(t *testing.T) {
	dir := os.Getenv("UPDRAFT_TOKENIZERS")
	testx.Have(t, "tokenizers", dir != "")
	files, err := filepath.Glob(filepath.Join(dir, "chat", "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			r := readRendered(t, f)
			require.GreaterOrEqual(t, len(r.Cases), 50)
			r.check(t)
		})
	}
}

// Small templates, each for something in which engines differ, and those of two
// families.
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	require.NoError(t, err)
	var all []struct {
		Name string
		rendered
	}
	require.NoError(t, json.Unmarshal(b, &all))
	for _, r := range all {
		t.Run(r.Name, r.check)
	}
}

func user(text string) []Message { return []Message{{Role: "user", Content: text}} }

func TestRenderErrors(t *testing.T) {
	for name, c := range map[string]struct{ template, want string }{
		"raised":       {"{{ raise_exception('no\nway') }}", "refuses the conversation: no way"},
		"endless loop": {"{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}", "does not end"},
		"recursion":    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "200 deep"},
		"wide":         {"{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}", "does not end"},
		"long range":   {"{{ range(1000000000000) }}", "more than 10000"},
		"doubling":     {"{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "more than"},
		"own self":     {"{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}", "namespace within"},
		"nesting":      {"{% set ns = namespace(l=[]) %}{% for i in range(9000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", "nested more than 500 deep"},
		"much":         {"{% for i in range(10000) %}{{ range(10000) | tojson }}{% endfor %}", "writes more than"},
		"large values": {"{% set r = range(10000) %}{% for i in r %}{% set x = r %}{% endfor %}", "too many large values"},
		"append":       {"{% set l = [] %}{{ l.append(l) }}{{ l }}", "may not"},
		"indent":       {"{{ 'a' | indent(1000000000000) }}", "indent: width"},
		"json":         {"{{ nothing | tojson }}", "tojson"},
		"filter":       {"{{ 'a' | nothing }}", `unknown filter "nothing"`},
		"test":         {"{{ 'a' is nothing }}", `unknown test "nothing"`},
		"map":          {"{{ messages | map('nothing') }}", `map: the filter "nothing"`},
		"select":       {"{{ messages | select('nothing') }}", `the test "nothing"`},
		"directive":    {"{{ strftime_now('%q') }}", "%q"},
		"no function":  {"{{ messages() }}", "not callable"},
		"step":         {"{{ range(1, 2, 0) }}", "step"},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := Parse(c.template, nil)
			require.NoError(t, err)
			_, err = template.Render(Conversation{Messages: user("x")})
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			var refused *RefusedError
			require.Equal(t, name == "raised", errors.As(err, &refused))
		})
	}
}

func TestParseErrors(t *testing.T) {
	for name, c := range map[string]struct{ template, want string }{
		"open tag":   {"a\n{{ x", "line 2: a tag without }}"},
		"open block": {"{% if x %}", "unclosed if"},
		"comment":    {"{# x", "line 1: a comment without #}"},
		"raw":        {"{% raw %} x", "raw without endraw"},
		"string":     {"{{ 'x }}", "a string without its end"},
		"bracket":    {"{{ x) }}", "closes nothing"},
		"deep":       {"{{ " + strings.Repeat("(", 200) + " }}", "nested more than 100 deep"},
		"empty":      {"{{ }}", "an empty tag"},
		"operator":   {"{{ 'a' * 3 }}", "operator *"},
		"character":  {"{{ a ? b }}", `unexpected character '?'`},
		"statement":  {"{% include 'x' %}", `unknown statement "include"`},
		"reserved":   {"{{ updraft_turn() }}", "updraft_turn"},
		"escape":     {`{{ '\ud800\n' }}`, "is not a character"},
		"UTF-8":      {"\xff", "not valid UTF-8"},
		"size":       {strings.Repeat("x", maxTemplate+1), "bytes; at most"},
		"number":     {"{{ 1e999 }}", "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.template, nil)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	_, err := Load(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	write(configFile, `{"bos_token":"<s>"}`)
	_, err = Load(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)

	render := func(tools string) string {
		template, err := Load(dir)
		require.NoError(t, err)
		c := Conversation{Messages: user("hi"), Extra: map[string]any{"n": 3}}
		if tools != "" {
			c.Tools = json.RawMessage(tools)
		}
		text, err := template.Render(c)
		require.NoError(t, err)
		return text
	}
	write(configFile, `{"bos_token":{"content":"<s>"},"eos_token":"</s>","chat_template":"{{ bos_token }}{{ messages[0].content }}{{ n }}{{ eos_token }}"}`)
	require.Equal(t, "<s>hi3</s>", render(""))
	write(configFile, `{"chat_template":[{"name":"tool_use","template":"T{{ tools[0].a }}"},{"name":"default","template":"D"}]}`)
	require.Equal(t, "D", render(""))
	require.Equal(t, "T1", render(`[{"a":1}]`))
	write(File, "file {{ messages[0].role }}\n")
	require.Equal(t, "file user", render(`[]`))

	for text, want := range map[string]string{
		`{`: "not valid JSON", `{"chat_template":7}`: "neither", `{"chat_template":[{"name":"rag","template":"x"}]}`: `named "default"`,
	} {
		write(configFile, text)
		_, err = Load(dir)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, configFile)
	}
	write(configFile, `{}`)
	write(File, "{{")
	_, err = Load(dir)
	require.ErrorContains(t, err, File)
}

func TestMessageJSON(t *testing.T) {
	var m []Message
	require.NoError(t, json.Unmarshal([]byte(`[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":1}]},{"role":"user","content":[{"type":"text","text":"b"}]}]`), &m))
	require.Equal(t, []string{"a", "", ""}, []string{m[0].Content, m[1].Content, m[2].Content})
	template, err := Parse("{% for m in messages %}{{ m.content[0].text if m.content is not string and m.content else m.content }}{{ m.tool_calls | tojson if m.tool_calls }};{% endfor %}", nil)
	require.NoError(t, err)
	text, err := template.Render(Conversation{Messages: m})
	require.NoError(t, err)
	require.Equal(t, `a;None[{"id": 1}];b;`, text)
	require.Error(t, json.Unmarshal([]byte(`[{"content":"a"}]`), &m))
	require.Error(t, json.Unmarshal([]byte(`["a"]`), &m))

	_, err = template.Render(Conversation{Messages: user("x"), Tools: json.RawMessage(`[1`)})
	require.ErrorContains(t, err, "chat: tools")
	_, err = template.Render(Conversation{Messages: user("x"), Tools: json.RawMessage(`[1] 2`)})
	require.ErrorContains(t, err, "chat: tools")
}

// A template may be used by many at once.
func TestConcurrentUse(t *testing.T) {
	template, err := Parse("{% set ns = namespace(n=0) %}{% for i in range(n) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", nil)
	require.NoError(t, err)
	var wait sync.WaitGroup
	for n := range 50 {
		wait.Go(func() {
			text, err := template.Render(Conversation{Extra: map[string]any{"n": n}})
			if want := fmt.Sprint(n * (n - 1) / 2); err != nil || text != want {
				t.Errorf("%q, %v in place of %s", text, err, want)
			}
		})
	}
	wait.Wait()
}

func FuzzTemplate(f *testing.F) {
	b, err := os.ReadFile("testdata/golden.json")
	require.NoError(f, err)
	var all []rendered
	require.NoError(f, json.Unmarshal(b, &all))
	for _, r := range all {
		f.Add(r.Template, "x")
	}
	f.Fuzz(func(t *testing.T, source, content string) {
		template, err := Parse(source, map[string]string{"bos_token": "<s>"})
		if err == nil {
			_, err = template.Render(Conversation{Messages: user(content), AddGenerationPrompt: true})
		}
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
		}
	})
}
