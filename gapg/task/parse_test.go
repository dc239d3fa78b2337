package task

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAsksForHelp(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string
		want bool
	}{
		{"marker alone", Marker, true},
		{"after a thought", "<think>1+2=3</think>" + Marker, true},
		{"inside an open thought", "<think>1+2=3;" + Marker, true},
		{"after an answer", "<answer>1+2</answer>" + Marker, true},
		{"white space after it", Marker + " \n\t\u00a0\u2003", true},
		{"white space within", "<unknown>I  need\nexternal\tassistance</unknown>", true},
		{"upper case", strings.ToUpper(Marker), true},
		{"mixed case", "<Unknown> i NEED External assistance </unKnown>", true},
		{"twice", Marker + Marker, true},
		{"an opened one before it", "<unknown>" + Marker, true},

		{"empty", "", false},
		{"white space", " \n", false},
		{"quoted earlier", "I could say " + Marker + " but I know it. <answer>1+2</answer>", false},
		{"one character after it", Marker + ".", false},
		{"in quotation marks", `"` + Marker + `"`, false},
		{"inside the answer", "<answer>" + Marker + "</answer>", false},
		{"unclosed", "<unknown> I need external assistance", false},
		{"cut", "<unknown> I need external assistance </unk", false},
		{"not opened", "I need external assistance </unknown>", false},
		{"other words", "<unknown> I need some help </unknown>", false},
		{"a word more", "<unknown> I really need external assistance </unknown>", false},
		{"a word less", "<unknown> need external assistance </unknown>", false},
		{"a full stop", "<unknown> I need external assistance. </unknown>", false},
		{"words run together", "<unknown> I needexternal assistance </unknown>", false},
		{"a longer first word", "<unknown> Ai need external assistance </unknown>", false},
		{"empty tags", "<unknown></unknown>", false},
		{"spaces in a tag", "< unknown > I need external assistance </ unknown >", false},
		{"a letter that folds to s", "<unknown> I need external as\u017fistance </unknown>", false},
		{"a letter that folds to k", "<un\u212anown> I need external assistance </un\u212anown>", false},
		{"zero-width joiner after it", Marker + "\u200d", false},
		{"a broken byte after it", Marker + "\xff", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, AsksForHelp(c.in), "%q", c.in)
			r := Parse(c.in, ParseOptions{})
			require.Equal(t, c.want, r.Help)
			if c.want {
				require.Equal(t, Response{Help: true}, r, "a call is never read as an answer")
			}
		})
	}
}

func TestLastAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string
		want string
		ok   bool
	}{
		{"plain", "<answer>1+2</answer>", "1+2", true},
		{"white space around", "<answer> \n1 + 2\t</answer>", "1 + 2", true},
		{"the last of two", "<answer>1</answer> no, <answer>2</answer>", "2", true},
		{"unclosed after a closed one", "<answer>1</answer><answer>2", "1", true},
		{"opened twice", "<answer>1<answer>2</answer>", "2", true},
		{"closed twice", "<answer>1</answer>2</answer>", "1", true},
		{"text after it", "<answer>1</answer> is my answer", "1", true},
		{"blank", "<answer> </answer>", "", true},
		{"inside the thought", "<think><answer>1</answer>", "1", true},

		{"none", "1+2", "", false},
		{"unclosed", "<answer>1+2", "", false},
		{"not opened", "1+2</answer>", "", false},
		{"the wrong way round", "</answer>1+2<answer>", "", false},
		{"upper-case tags", "<ANSWER>1+2</ANSWER>", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := LastAnswer(c.in)
			require.Equal(t, c.ok, ok)
			require.Equal(t, c.want, got)
			r := Parse(c.in, ParseOptions{})
			require.Equal(t, c.ok, r.HasAnswer)
			require.Equal(t, c.want, r.Answer)
		})
	}
}

func TestFormatKept(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     string
		want   bool // <think> is the model's
		opened bool // <think> is the prompt's
	}{
		{"plain", "<think>a</think><answer>1</answer>", true, false},
		{"white space between", " <think> a </think>\n<answer> 1 </answer>\n", true, false},
		{"empty thought", "<think></think><answer>1</answer>", true, false},
		{"the marker quoted in the thought", "<think>" + Marker + "</think><answer>1</answer>", true, false},
		{"thought begun in the prompt", "a</think><answer>1</answer>", false, true},

		{"no thought", "<answer>1</answer>", false, false},
		{"no answer", "<think>a</think>", false, false},
		{"blank answer", "<think>a</think><answer> </answer>", false, false},
		{"text before", "So: <think>a</think><answer>1</answer>", false, false},
		{"text between", "<think>a</think> so <answer>1</answer>", false, false},
		{"text after", "<think>a</think><answer>1</answer>.", false, false},
		{"two thoughts", "<think>a</think><think>b</think><answer>1</answer>", false, false},
		{"two answers", "<think>a</think><answer>1</answer><answer>1</answer>", false, false},
		{"answer in the thought", "<think><answer>1</answer></think><answer>1</answer>", false, false},
		{"nested thought", "<think><think>a</think><answer>1</answer>", false, true},
		{"nested answer", "<think>a</think><answer><answer>1</answer>", false, false},
		{"thought in the answer", "<think>a</think><answer><think>1</answer>", false, false},
		{"unclosed thought", "<think>a<answer>1</answer>", false, false},
		{"unclosed answer", "<think>a</think><answer>1", false, false},
		{"answer first", "<answer>1</answer><think>a</think>", false, false},
		{"upper-case tags", "<THINK>a</THINK><ANSWER>1</ANSWER>", false, false},
		{"the marker at the end", "<think>a</think><answer>1</answer>" + Marker, false, false},
		{"empty", "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, Parse(c.in, ParseOptions{}).FormatKept)
			if c.name != "nested thought" {
				require.Equal(t, c.opened, Parse(c.in, ParseOptions{ThinkOpened: true}).FormatKept)
			}
		})
	}
	// With the thought opened by the prompt a second <think> breaks the format.
	require.False(t, Parse("<think>a</think><answer>1</answer>", ParseOptions{ThinkOpened: true}).FormatKept)
}

func TestLastBoxed(t *testing.T) {
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{`so \boxed{42}.`, "42", true},
		{`\boxed{1} then \boxed{\frac{1}{2}}`, `\frac{1}{2}`, true},
		{`\fbox{ x }`, "x", true},
		{`\boxed{1} and \fbox{2}`, "2", true},
		{`\boxed {7}`, "7", true},
		{`\boxed{\{1,2\}}`, `\{1,2\}`, true},
		{`\boxed{1} \boxed{2`, "1", true},
		{`\boxed{a\boxed{b}}`, "b", true},
		{`\boxed 5`, "", false},
		{`\boxed{1`, "", false},
		{`none`, "", false},
		{`\boxed`, "", false},
		{`\boxed{\`, "", false},
	} {
		got, ok := LastBoxed(c.in)
		require.Equal(t, c.ok, ok, c.in)
		require.Equal(t, c.want, got, c.in)
	}
}

// FuzzParse checks what must hold of any text: no panic, the marker's last word
// is decisive, and appending text decides calls one way only.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", Marker, "<think>a</think><answer>(1 + 2) / 3</answer>", Marker + "x", "<answer>", "</answer><answer>",
		"<think>" + Marker, "<answer>1</answer>" + Marker, "\xff\xfe", `\boxed{\frac12}`, `\boxed{{{`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := Parse(s, ParseOptions{})
		if r.Help && (r.HasAnswer || r.FormatKept || r.Answer != "") {
			t.Fatalf("a call was read as an answer too: %+v", r)
		}
		if r.FormatKept && (!r.HasAnswer || strings.Count(s, AnswerOpen) != 1 || strings.Count(s, ThinkOpen) != 1) {
			t.Fatalf("format kept by %q: %+v", s, r)
		}
		if strings.Contains(r.Answer, AnswerClose) || strings.Contains(r.Answer, AnswerOpen) {
			t.Fatalf("a tag inside the answer %q", r.Answer)
		}
		if !AsksForHelp(s + Marker) {
			t.Fatal("the marker at the end is not seen")
		}
		if AsksForHelp(s + Marker + "x") {
			t.Fatal("the marker before other text is seen")
		}
		if got, ok := LastAnswer(s + "<answer>7</answer>"); !ok || got != "7" {
			t.Fatalf("the last answer is read as %q", got)
		}
		LastBoxed(s)
		Parse(s, ParseOptions{ThinkOpened: true})
	})
}
