package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// generateFlags are the settings of generation.
type generateFlags struct {
	model, task, prompt     string
	cloud                   cloudFlags
	raw                     bool
	n, maxLength, topK      int
	temperature, topP, minP float64
	helpBias                float64
	seed                    uint64
	dataFlags
	deviceFlags
	precisionFlags
}

func (f *generateFlags) register(a *app, fs *pflag.FlagSet) {
	fs.StringVar(&f.model, "model", "", modelHelp+" (alias --model-name-or-path)")
	fs.StringVar(&f.prompt, "prompt", "", `the question, such as "17 16 5=69"; - reads standard input`)
	fs.Var(newChoice(&f.task, a.tasks[0].Name, taskNames(a.tasks)...), "task", "how to read the prompt and judge the answer: "+orList(taskNames(a.tasks)))
	f.registerData(fs)
	fs.BoolVar(&f.raw, "raw", false, "give the prompt to the model as it is, without a task, a chat template or a cloud")
	fs.IntVar(&f.n, "n", 1, "responses")
	fs.IntVar(&f.maxLength, "max-completion-length", 0, "tokens of a response at most; 0: what the context leaves")
	fs.Float64Var(&f.temperature, "temperature", 0, "sampling temperature; 0: the likeliest token")
	fs.Float64Var(&f.topP, "top-p", 1, "nucleus sampling; 1: off")
	fs.IntVar(&f.topK, "top-k", 0, "sample among the k likeliest tokens; 0: off")
	fs.Float64Var(&f.minP, "min-p", 0, "drop tokens below this share of the likeliest's probability; 0: off")
	fs.Float64Var(&f.helpBias, "help-bias", 0, "added to the log-odds of asking for help, in nats; -inf: never ask")
	fs.Uint64Var(&f.seed, "seed", 42, "seed of sampling")
	f.cloud.register(fs)
	f.deviceFlags.register(fs, deviceAuto)
	f.registerType(fs)
}

func (a *app) generate() *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Answer a prompt and show who answered: the device or the cloud",
		Long: `Generate lets a model answer a prompt. Its text is shown as it appears; a line
then says whether the device answered or asked the cloud, and what the cloud said.
Where the task can judge, right or wrong is shown too.

A checkpoint with a chat template is asked through it, here as in sft, train and
eval.`,
		Example: `  updraft generate --model runs/gapg --prompt "17 16 5=69"
  updraft generate --model runs/gapg --prompt "17 16 5=69" --n 4 --temperature 1 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runGenerate(cmd, &f) },
	}
	f.register(a, cmd.Flags())
	return cmd
}

// reply is one response of updraft generate --json.
type reply struct {
	Text         string   `json:"text"`
	Source       string   `json:"source"`
	Answer       string   `json:"answer"`
	Correct      *bool    `json:"correct,omitempty"`
	Tokens       int      `json:"tokens"`
	Finish       string   `json:"finish"`
	Cloud        string   `json:"cloud,omitempty"` // whom it asked
	CloudText    string   `json:"cloud_text,omitempty"`
	CloudCostUSD *float64 `json:"cloud_cost_usd,omitempty"` // absent: not known
}

func (f *generateFlags) check(in io.Reader) error {
	switch {
	case f.prompt == "":
		return inputf(`--prompt is not set; give the question, such as --prompt "17 16 5=69"`)
	case f.n < 1:
		return inputf("--n %d: must be at least 1", f.n)
	case !(f.temperature >= 0):
		return inputf("--temperature %g: must not be negative", f.temperature)
	case !(f.topP > 0 && f.topP <= 1):
		return inputf("--top-p %g: must be above 0 and at most 1", f.topP)
	case f.topK < 0:
		return inputf("--top-k %d: must not be negative", f.topK)
	case !(f.minP >= 0 && f.minP < 1):
		return inputf("--min-p %g: must be in [0, 1)", f.minP)
	case f.maxLength < 0:
		return inputf("--max-completion-length %d: must not be negative", f.maxLength)
	case f.helpBias != f.helpBias:
		return inputf("--help-bias: not a number")
	}
	if f.prompt == "-" {
		text, err := io.ReadAll(in)
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		f.prompt = strings.TrimRight(string(text), "\r\n")
	}
	return nil
}

func (a *app) runGenerate(cmd *cobra.Command, f *generateFlags) error {
	ctx := cmd.Context()
	if err := f.check(cmd.InOrStdin()); err != nil {
		return err
	}
	src, err := a.openSource(ctx, "model", f.model)
	if err != nil {
		return err
	}
	if err := f.chooseTask(a, cmd, &f.task); err != nil {
		return err
	}
	b, err := a.bind(f.task, src, &f.dataFlags)
	if err != nil {
		return err
	}
	p := gapg.Prompt{ID: f.prompt, Text: f.prompt}
	var answers cloud.Cloud
	if !f.raw {
		if p, err = b.prompt(ctx, f.prompt); err != nil {
			return inputf("--prompt: %w; --raw gives it to the model as it is", err)
		}
		if f.cloud.maxCalls == 0 {
			f.cloud.maxCalls = f.n // no response asks more than once
		}
		if answers, err = f.cloud.open(b); err != nil {
			return err
		}
	}
	context := src.cfg.MaxPositionEmbeddings
	ids, err := gapg.EncodePrompts(src.tok, []gapg.Prompt{p}, context, max(1, f.maxLength))
	if err != nil {
		return inputf("--prompt: %w", err)
	}
	be, err := f.open(a)
	if err != nil {
		return err
	}
	defer be.Close()
	so := model.SchedulerOptions{MaxBatch: f.n, MaxTokens: context, Marker: b.marker, MarkerAfter: b.after}
	o, err := f.choose(be, model.Options{})
	if err != nil {
		return err
	}
	if err := f.fits(be, src.cfg, o, &so, planOn(be, src.cfg, o, &so)); err != nil {
		return err
	}
	m, err := src.load(ctx, be, o)
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := model.NewScheduler(m, so)
	if err != nil {
		return err
	}
	defer s.Close()
	e := b.evaluator(f.maxLength)
	r := e.Request(ids[0], f.helpBias)
	r.N, r.Seed = f.n, f.seed
	r.Sampling.Temperature, r.Sampling.TopK, r.Sampling.TopP, r.Sampling.MinP = float32(f.temperature), f.topK, float32(f.topP), float32(f.minP)
	out := cmd.OutOrStdout()
	stream := !a.json && f.n == 1
	text := src.tok.Stream()
	var failed error
	if goOn := r.OnToken; stream {
		r.OnToken = func(t model.Token) bool {
			if t.ID != b.end && failed == nil {
				_, failed = io.WriteString(out, text.Push(t.ID))
			}
			return goOn(t) && failed == nil
		}
	}
	h, err := s.Submit(r)
	if err != nil {
		return input(err)
	}
	if err := s.Run(ctx); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	var replies []reply
	for i, c := range h.Completions() {
		re, err := b.reply(ctx, p, c, answers, f.raw)
		if err != nil {
			return err
		}
		replies = append(replies, re)
		if a.json {
			continue
		}
		if stream {
			fmt.Fprint(out, text.Flush())
		} else {
			fmt.Fprintf(out, "[%d] %s", i+1, re.Text)
		}
		fmt.Fprintf(out, "\n%s\n", re.verdict())
	}
	if a.json {
		return printJSON(out, map[string]any{"prompt": p.Text, "replies": replies})
	}
	return nil
}

// reply reads one completion and asks the cloud where it asks.
func (b *bound) reply(ctx context.Context, p gapg.Prompt, c model.Completion, answers cloud.Cloud, raw bool) (reply, error) {
	ids := c.Tokens
	if n := len(ids); n > 0 && ids[n-1] == b.end {
		ids = ids[:n-1]
	}
	r := reply{Text: b.tok.Decode(ids), Source: string(gapg.FromDevice), Tokens: len(c.Tokens), Finish: c.Finish.String()}
	if raw {
		return r, nil
	}
	v, err := b.judge.Judge(ctx, p, r.Text)
	if err != nil {
		return r, err
	}
	r.Answer = v.Answer
	q, ok := p.Gold.(task.Question)
	known := !ok || q.Answer != "" // of a typed question no answer is known
	if !v.Help {
		if known {
			r.Correct = &v.Correct
		}
		return r, nil
	}
	r.Source = string(gapg.FromCloud)
	if answers == nil {
		return r, nil
	}
	a, err := answers.Answer(ctx, gapg.Question(p))
	if err != nil {
		return r, fmt.Errorf("cloud %s: %w", answers.Name(), err)
	}
	r.Cloud, r.CloudText, r.Answer = answers.Name(), a.Text, a.Text
	if known {
		right, err := b.judge.JudgeCloud(ctx, p, a.Text)
		if err != nil {
			return r, err
		}
		r.Correct = &right
	}
	if !a.CostUnknown {
		r.CloudCostUSD = &a.CostUSD
	}
	if ok {
		r.Answer, _ = q.Verifier.Answer(a.Text)
	} else if inside, ok := task.LastAnswer(a.Text); ok {
		r.Answer = inside
	}
	return r, nil
}

// verdict is the line under a response.
func (r reply) verdict() string {
	right := ""
	if r.Correct != nil {
		right = ": wrong"
		if *r.Correct {
			right = ": right"
		}
	}
	switch {
	case r.Source == string(gapg.FromDevice) && r.Answer == "":
		return fmt.Sprintf("-- device, %d tokens, no answer", r.Tokens)
	case r.Source == string(gapg.FromDevice):
		return fmt.Sprintf("-- device, %d tokens, answers %s%s", r.Tokens, r.Answer, right)
	case r.CloudText == "":
		return fmt.Sprintf("-- asks the cloud after %d tokens; there is none", r.Tokens)
	}
	cost := "unknown cost"
	if r.CloudCostUSD != nil {
		cost = fmt.Sprintf("$%.5f", *r.CloudCostUSD)
	}
	return fmt.Sprintf("-- asks the cloud after %d tokens; %s answers %s%s (%s)", r.Tokens, r.Cloud, r.Answer, right, cost)
}
