package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/internal/testx"
)

// Where an answer is found, by hand.
func TestAnswerOfAResponse(t *testing.T) {
	for _, c := range []struct {
		verifier       Verifier
		response, want string
		marked         bool
	}{
		{VerifyMath, `so \boxed{1}, no: \boxed{\frac{1}{2}}.`, `\frac{1}{2}`, true},
		{VerifyMath, `<answer>5</answer> and \boxed{6}`, "6", true},
		{VerifyMath, `\boxed{6} and <answer> 5 </answer>`, "5", true},
		{VerifyMath, `<answer>\boxed{7}</answer>`, "7", true},
		{VerifyMath, "\\boxed{1}\n#### 2\nDone.", "2", true},
		{VerifyMath, `\boxed{1} then \boxed{2`, "1", true},
		{VerifyMath, "Because.\n\nx = 5\n", "x = 5", false},
		{VerifyNumeric, "16 - 7 = 9 eggs, 9 * 2 = 18 dollars.", "18", false},
		{VerifyNumeric, "#### 1,250", "1,250", true},
		{VerifyNumeric, "none", "", false},
		{VerifyChoice, "I think so.\nAnswer: (B)", "Answer: (B)", false},
		{VerifyExact, "<answer>New York</answer>", "New York", true},
		{VerifyExact, "", "", false},
	} {
		got, marked := c.verifier.Answer(c.response)
		require.Equal(t, c.want, got, c.response)
		require.Equal(t, c.marked, marked, c.response)
	}
}

// What an instruction asks for is what the verifier reads.
func TestInstructionsAreRead(t *testing.T) {
	for _, v := range Verifiers() {
		gold := map[Verifier]string{VerifyNumeric: "-1.5", VerifyMath: `\frac{3}{4}`, VerifyExact: "New York", VerifyChoice: "C"}[v]
		q := Question{Verifier: v, Answer: gold}
		open, _, _ := strings.Cut(q.mark("…"), "…")
		require.Contains(t, v.Instruction(), open)
		got, marked := v.Answer("Some thought, 17.\n" + q.mark(gold) + "\n")
		require.True(t, marked)
		require.True(t, v.Same(got, gold))
	}
}

func TestJudgeQuestions(t *testing.T) {
	ctx := context.Background()
	task := Questions{Verifier: VerifyNumeric}
	p := task.Prompt(Question{Turns: []Turn{{"user", "6 · 7?"}}, Answer: "42"})
	for response, want := range map[string]gapg.Verdict{
		`It is \boxed{42}`:                    {Correct: true, Format: true, Answer: "42"},
		`It is 42.`:                           {Correct: true, Answer: "42"},
		`It is \boxed{43}`:                    {Format: true, Answer: "43"},
		`\boxed{42} ` + Marker:                {Help: true},
		`\boxed{42} ` + Marker + "\n ":        {Help: true},
		Marker + ` or rather \boxed{42}`:      {Correct: true, Format: true, Answer: "42"},
		`<unknown>I do not know 42</unknown>`: {Answer: "42", Correct: true},
	} {
		got, err := task.Judge(ctx, p, response)
		require.NoError(t, err)
		require.Equal(t, want, got, response)
	}
	for reply, want := range map[string]bool{"42": true, `\boxed{42.0}`: true, "41": false, `\boxed{42} ` + Marker: false, "": false} {
		got, err := task.JudgeCloud(ctx, p, reply)
		require.NoError(t, err)
		require.Equal(t, want, got, reply)
	}
	_, err := task.Judge(ctx, gapg.Prompt{Gold: 1}, "1")
	require.Error(t, err)
}

// The model reads the help instruction in the system message, the cloud never;
// equal questions are one prompt whatever is around them.
func TestQuestionPrompts(t *testing.T) {
	task := Questions{Verifier: VerifyMath, Instruction: "Box it.", Help: HelpInstruction}
	asked := []Turn{{"system", "Be brief."}, {"user", "1+1?"}, {"assistant", "2"}, {"user", "And 2+2?"}}
	p := task.Prompt(Question{Turns: asked, Answer: "4"})
	require.Equal(t, []Turn{{"system", "Be brief.\n\n" + HelpInstruction}, asked[1], asked[2], {"user", "And 2+2?\n\nBox it."}}, task.Turns(p))
	require.Equal(t, "Be brief.", asked[0].Content, "the data set's own turns stay as they are")
	require.NotContains(t, p.CloudText, "unknown")
	require.Equal(t, "Be brief.\n\n1+1?\n\n2\n\nAnd 2+2?\n\n"+VerifyMath.Instruction(), p.CloudText)
	require.Contains(t, p.Text, HelpInstruction)

	alone := task.Prompt(Question{Turns: asked[3:], Answer: "4"})
	require.Equal(t, []Turn{{"system", HelpInstruction}, {"user", "And 2+2?\n\nBox it."}}, task.Turns(alone))
	require.NotEqual(t, p.ID, alone.ID)
	other := Questions{Verifier: VerifyNumeric}.Prompt(Question{Turns: asked[3:], Answer: "5"})
	require.Equal(t, alone.ID, other.ID)
	require.Equal(t, "And 2+2?\n", other.Text)
}

func TestReadQuestions(t *testing.T) {
	for _, c := range []struct {
		name, line string
		task       Questions
		asks, gold string
	}{
		{"GSM8K", `{"question": "How many?", "answer": "2+3=<<2+3=5>>5\n#### 1,005"}`, Questions{Verifier: VerifyNumeric}, "How many?", "1,005"},
		{"MATH", `{"problem": "Half?", "solution": "It is $\\boxed{\\frac12}$."}`, Questions{Verifier: VerifyMath}, "Half?", `\frac12`},
		{"MATH-500", `{"problem": "Half?", "solution": "no", "answer": "\\frac12"}`, Questions{Verifier: VerifyMath}, "Half?", `\frac12`},
		{"MAWPS", `{"input": "How many ?", "target": 43.0, "idx": 0}`, Questions{Verifier: VerifyNumeric}, "How many ?", "43.0"},
		{"SVAMP", `{"Body": "Two", "Question": "How many?", "Answer": 145.0}`, Questions{Verifier: VerifyNumeric, Template: "{Body}. {Question} {{x}}"}, "Two. How many? {x}", "145.0"},
		{"exponent", `{"prompt": "?", "answer": 1.5e3}`, Questions{Verifier: VerifyNumeric}, "?", "1500"},
		{"messages", `{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is \\boxed{4}"}]}`, Questions{Verifier: VerifyMath}, "2+2?", "4"},
		{"messages and answer", `{"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"}`, Questions{Verifier: VerifyExact}, "2+2?", "4"},
		{"choices", `{"q": "Which?", "choices": ["one", "two"], "answer": 1}`, Questions{Verifier: VerifyChoice, Template: "{q}\n{choices}"}, "Which?\nA. one\nB. two", "B"},
		{"named", `{"a": "?", "b": true, "answer": "no"}`, Questions{Verifier: VerifyExact, PromptColumn: "a", AnswerColumn: "b"}, "?", "true"},
		{"byte order mark", "\ufeff" + `{"question": "?", "answer": "7"}`, Questions{Verifier: VerifyNumeric}, "?", "7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.task.Read(strings.NewReader("\n"+c.line+"\n\n"+c.line), "f.jsonl")
			if strings.HasPrefix(c.line, "\ufeff") {
				got, err = c.task.Read(strings.NewReader(c.line+"\n"+c.line[3:]), "f.jsonl")
			}
			require.NoError(t, err)
			require.Len(t, got, 2)
			require.Equal(t, got[0], got[1])
			q := got[0].Gold.(Question)
			require.Equal(t, []Turn{{"user", c.asks}}, q.Turns)
			require.Equal(t, c.gold, q.Answer)
		})
	}
}

// A fault is named by its line, its column and its remedy.
// A worked solution is learnt without calculator notes; an answer alone is none.
func TestSolutions(t *testing.T) {
	for line, want := range map[string]string{
		`{"question": "?", "answer": "2+3=<<2+3=5>>5 and 5*2=<<5*2=10>>10\n#### 10"}`:                         "2+3=5 and 5*2=10\n#### 10",
		`{"question": "?", "answer": "So \\boxed{7}."}`:                                                       "So \\boxed{7}.",
		`{"question": "?", "answer": "7"}`:                                                                    "",
		`{"question": "?", "answer": 7}`:                                                                      "",
		`{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "1 < 3\n#### 3"}]}`: "1 < 3\n#### 3",
	} {
		prompts, err := Questions{Verifier: VerifyNumeric}.Read(strings.NewReader(line), "f")
		require.NoError(t, err)
		require.Equal(t, want, prompts[0].Gold.(Question).Solution)
	}
}

func TestReadQuestionsErrors(t *testing.T) {
	const good = `{"question": "?", "answer": "7"}` + "\n"
	numeric := Questions{Verifier: VerifyNumeric}
	for _, c := range []struct {
		text string
		task Questions
		want string
	}{
		{good + `{"body": "?", "answer": "7"}`, numeric, `f:2: no column "question"; the line has answer, body; set --prompt-column or --prompt-template`},
		{`{"body": "?", "answer": "7"}`, numeric, `f:1: no column "question"; the line has answer, body; set --prompt-column or --prompt-template`},
		{`{"question": "?"}`, numeric, `f:1: no column "answer"; the line has question; set --answer-column`},
		{good + `{"question": "?", "answer": "seven"}`, numeric, `f:2: column "answer": seven is no answer that --verifier numeric can judge; choose another --verifier or --answer-column`},
		{`{"question": "?", "answer": "seven"}`, Questions{Verifier: VerifyChoice}, `f:1: column "answer": seven is no answer that --verifier choice can judge; choose another --verifier or --answer-column`},
		{`{"question": "?", "answer": [1]}`, numeric, `f:1: column "answer": must be text, a number, true or false, is [1]`},
		{`{"question": "?", "answer": ""}`, numeric, `f:1: column "answer": empty`},
		{`{"question": 5, "answer": "7"}`, numeric, `f:1: column "question": must be text or a list of messages with role and content, is 5`},
		{`{"question": " ", "answer": "7"}`, numeric, `f:1: column "question": holds no question of a user`},
		{`{"messages": [{"role": "tool", "content": ""}], "answer": "7"}`, numeric, `f:1: column "messages": message 1: role "tool": must be system, user or assistant`},
		{`{"messages": [{"role": "user"}], "answer": "7"}`, numeric, `f:1: column "messages": message 1: must have a role and a text as content`},
		{good + "7", numeric, `f:2: not a JSON object: each line must be one, with the question and its answer`},
		{good + "{", numeric, `f:2: malformed JSON: unexpected end of JSON input`},
		{good, Questions{Verifier: VerifyNumeric, Template: "{Body} {question}"}, `f:1: no column "Body"; the line has answer, question; set --prompt-template`},
		{good, Questions{Verifier: VerifyNumeric, Template: "{question"}, `f:1: --prompt-template: a { is not closed; {{ stands for a brace`},
		{`{"question": "?", "answer": 1e999}`, numeric, `f:1: column "answer": 1e999 is out of range`},
		{"", numeric, `f: the file holds no question: each line must be an object like {"question": "…", "answer": "…"}`},
	} {
		_, err := c.task.Read(strings.NewReader(c.text), "f")
		require.EqualError(t, err, c.want, c.text)
	}
	_, err := numeric.ReadFile(t.TempDir())
	require.ErrorContains(t, err, "is a directory")
}

// The simulated cloud knows its share, and is wrong in earnest on the rest.
func TestSimulatedAnswers(t *testing.T) {
	ctx := context.Background()
	golds := map[Verifier][]string{
		VerifyNumeric: {"5", "-3", "0", "2.5", "1/3", "1,250"}, VerifyMath: {`\frac{1}{2}`, "5", `x^2+1`, `\text{even}`, "x", `(1,2)`, `\pi`},
		VerifyChoice: {"A", "B", "(C)", "d"}, VerifyExact: {"yes", "New York", "7 apples"},
	}
	for v, list := range golds {
		for share, most := range map[float64]int{-1: 0, 1: len(list) * 50} {
			c, err := SimulatedAnswers(cloud.SimulatedConfig{Accuracy: share})
			require.NoError(t, err)
			task, right := Questions{Verifier: v}, 0
			for i := range 50 {
				for _, gold := range list {
					p := task.Prompt(Question{Turns: []Turn{{"user", fmt.Sprint(i, gold)}}, Answer: gold})
					a, err := c.Answer(ctx, gapg.Question(p))
					require.NoError(t, err)
					again, err := c.Answer(ctx, gapg.Question(p))
					require.NoError(t, err)
					require.Equal(t, a, again)
					ok, err := task.JudgeCloud(ctx, p, a.Text)
					require.NoError(t, err)
					if ok {
						right++
					}
				}
			}
			require.Equal(t, most, right, "%s at %g", v, share)
		}
	}
	c, err := SimulatedAnswers(cloud.SimulatedConfig{})
	require.NoError(t, err)
	_, err = c.Answer(ctx, cloud.Question{ID: "typed", Gold: Question{}})
	require.Error(t, err)
	wrong := Question{Verifier: VerifyNumeric, Answer: "18"}.wrongAnswer("a question")
	require.Regexp(t, `^The answer is \\boxed\{\d+\}$`, wrong, "a plausible slip")
}

// The data sets that people bring are read with their usual columns.
func TestRealDataSets(t *testing.T) {
	dir := os.Getenv("UPDRAFT_DATA")
	testx.Have(t, "data", dir != "")
	for _, c := range []struct {
		file string
		task Questions
		n    int
	}{
		{"gsm8k_train.jsonl", Questions{Verifier: VerifyNumeric}, 7473},
		{"mawps_test.jsonl", Questions{Verifier: VerifyNumeric}, 2065},
		{"svamp_test.jsonl", Questions{Verifier: VerifyNumeric, Template: "{Body} {Question}"}, 1000},
		{"math_test.jsonl", Questions{Verifier: VerifyMath}, 5000},
		{"math500.jsonl", Questions{Verifier: VerifyMath}, 500},
	} {
		t.Run(c.file, func(t *testing.T) {
			prompts, err := c.task.ReadFile(filepath.Join(dir, c.file))
			require.NoError(t, err)
			require.Len(t, prompts, c.n)
			right, err := SimulatedAnswers(cloud.SimulatedConfig{Accuracy: 1})
			require.NoError(t, err)
			wrong, err := SimulatedAnswers(cloud.SimulatedConfig{Accuracy: -1})
			require.NoError(t, err)
			for _, p := range prompts {
				for i, cl := range []*cloud.Simulated{right, wrong} {
					a, err := cl.Answer(context.Background(), gapg.Question(p))
					require.NoError(t, err)
					ok, err := c.task.JudgeCloud(context.Background(), p, a.Text)
					require.NoError(t, err)
					require.Equal(t, i == 0, ok, "%s: %s", p.CloudText, a.Text)
				}
			}
		})
	}
}

// No file makes the reader panic, or takes more memory than it has bytes; what it
// returns can be judged.
func FuzzReadQuestions(f *testing.F) {
	for _, s := range []string{
		`{"question": "?", "answer": "7"}`, `{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "#### 3"}]}`,
		`{"Body": "b", "Question": "q", "Answer": 1e5}`, "{\"question\": \"\\ud800\", \"answer\": -0.0}\n[]", "\xef\xbb\xbf{}", `{"question": [], "answer": null}`,
		`{"problem": "p", "solution": "\\boxed{"}`, `{"question": "?", "answer": 1e-999999999}`,
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(6))
	}
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		task := Questions{Verifier: Verifiers()[kind%4], Help: HelpInstruction}
		if kind&4 != 0 {
			task.Template = "{Body} {Question}"
		}
		var prompts []gapg.Prompt
		var err error
		testx.AllocatesWithin(t, len(data), 1<<20, 256, func() { prompts, err = task.Read(strings.NewReader(string(data)), "f") })
		if err != nil {
			return
		}
		for _, p := range prompts {
			q := p.Gold.(Question)
			if ok, err := task.JudgeCloud(context.Background(), p, q.mark(q.Answer)); err != nil || !ok && !strings.ContainsAny(q.Answer, `{}\<#`) {
				t.Fatalf("the gold answer %q is not right: %v", q.Answer, err)
			}
			if p.ID == "" || len(task.Turns(p)) == 0 {
				t.Fatal("a prompt without ID or turns")
			}
		}
	})
}
