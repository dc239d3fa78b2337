package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// Task is a choice of --task: a gapg.Task and where its prompts come from. Nil
// functions are what the task does not offer.
type Task struct {
	Name string
	Help string // half a line
	// New returns the task as a model with this tokenizer meets it.
	New func(tok *tokenizer.Tokenizer) (gapg.Task, error)
	// Configure heeds the flags that say how a data set is read and judged; nil
	// where the task has a format and a verifier of its own.
	Configure func(t gapg.Task, s DataSettings) (gapg.Task, error)
	// Turns is the conversation that a model with a chat template reads; nil: the
	// prompt's text as a user's turn.
	Turns func(t gapg.Task, p gapg.Prompt) []task.Turn
	// Prompts returns n prompts of a part of the task's own problems, in an order
	// that the seed decides; all or a usual number where n is 0.
	Prompts func(t gapg.Task, part task.Split, seed uint64, n int) ([]gapg.Prompt, error)
	// Read reads prompts from a --dataset file.
	Read func(t gapg.Task, path string) ([]gapg.Prompt, error)
	// Solution is the worked solution that the data set has for a prompt; "" where
	// it has none.
	Solution func(p gapg.Prompt) string
	// Parse makes a prompt of what a user typed.
	Parse func(t gapg.Task, text string) (gapg.Prompt, error)
	// Cloud completes a simulated cloud with the task's solver.
	Cloud func(cloud.SimulatedConfig) (cloud.Cloud, error)
	// Tokenizer makes the vocabulary of a model trained from scratch, Examples
	// its demonstrations.
	Tokenizer func() (*tokenizer.Tokenizer, error)
	Examples  func(tok *tokenizer.Tokenizer, seed uint64) (gapg.Examples, error)
	// MarkerAfter names the tokens after which a response may ask for help; those
	// that the vocabulary does not have as single tokens are passed over.
	MarkerAfter func(t gapg.Task) []string
}

func builtinTasks() []Task { return []Task{countdown(), questions()} }

// countdown is the built-in task. A model whose vocabulary cannot spell English
// gets compact prompts ("17 16 5=69") over the demonstration's problems; others
// get instructions and problems like those of Countdown-Tasks-3to4.
func countdown() Task {
	const usualPrompts = 5000
	return Task{
		Name: "countdown",
		Help: "combine numbers into a target by + - * /; --dataset reads JSONL with nums and target",
		New: func(tok *tokenizer.Tokenizer) (gapg.Task, error) {
			_, err := tok.Encode(task.Countdown{Nums: []int{1, 2}, Target: 3}.Instruction())
			return task.CountdownTask{Compact: err != nil}, nil
		},
		Prompts: func(t gapg.Task, part task.Split, seed uint64, n int) ([]gapg.Prompt, error) {
			c := t.(task.CountdownTask)
			if !c.Compact {
				if n == 0 {
					n = usualPrompts
				}
				gen := task.DefaultGen()
				gen.Split = part
				problems, err := task.Generate(gen, seed, n)
				return c.Prompts(problems), err
			}
			u, err := task.NewUniverse(task.DemoUniverse())
			if err != nil {
				return nil, err
			}
			if n == 0 {
				return c.Prompts(u.Problems(part)), nil
			}
			problems, err := u.Distinct(part, seed, n)
			return c.Prompts(problems), err
		},
		Read: func(t gapg.Task, path string) ([]gapg.Prompt, error) {
			problems, _, err := task.ReadCountdownFile(path, task.ReadOptions{})
			return t.(task.CountdownTask).Prompts(problems), err
		},
		Parse: func(t gapg.Task, text string) (gapg.Prompt, error) {
			p, err := parseCountdown(text)
			if err != nil {
				return gapg.Prompt{}, err
			}
			return t.(task.CountdownTask).Prompt(p), nil
		},
		Cloud:     func(c cloud.SimulatedConfig) (cloud.Cloud, error) { return task.SimulatedCloud(c) },
		Tokenizer: task.NewDemoTokenizer,
		Examples: func(tok *tokenizer.Tokenizer, seed uint64) (gapg.Examples, error) {
			u, err := task.NewUniverse(task.DemoUniverse())
			if err != nil {
				return nil, err
			}
			return &task.Examples{Universe: u, Demo: task.DefaultDemo(), Seed: seed, Tokenizer: tok}, nil
		},
		MarkerAfter: func(t gapg.Task) []string {
			if t.(task.CountdownTask).Compact {
				return []string{task.ThinkOpen, task.MarkRetry, task.MarkGiveUp}
			}
			return []string{task.ThinkOpen, task.ThinkClose}
		},
	}
}

// parseCountdown reads "17 16 5=69".
func parseCountdown(text string) (task.Countdown, error) {
	bad := fmt.Errorf("%q is not a Countdown problem; write the numbers, = and the target, such as 17 16 5=69", text)
	left, right, ok := strings.Cut(text, "=")
	if !ok {
		return task.Countdown{}, bad
	}
	var p task.Countdown
	for _, f := range strings.FieldsFunc(left, func(r rune) bool { return r == ' ' || r == ',' }) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return p, bad
		}
		p.Nums = append(p.Nums, n)
	}
	target, err := strconv.Atoi(strings.TrimSpace(right))
	if err != nil {
		return p, bad
	}
	p.Target = target
	return p, p.Validate()
}

// task looks a task up by name.
func (a *app) task(name string) (*Task, error) {
	for i := range a.tasks {
		if a.tasks[i].Name == name {
			return &a.tasks[i], nil
		}
	}
	return nil, inputf("--task %q: must be %s", name, orList(taskNames(a.tasks)))
}

func taskNames(tasks []Task) []string {
	var names []string
	for _, t := range tasks {
		names = append(names, t.Name)
	}
	return names
}

// bound is a task together with a model's vocabulary.
type bound struct {
	*Task
	judge  gapg.Task
	tok    *tokenizer.Tokenizer
	end    int32
	marker []int32
	after  []int32
	chat   *chat.Template // writes the prompts; nil where the checkpoint has none
	log    *slog.Logger
}

// bind finds the tokens that matter in a vocabulary. data may be nil.
func (a *app) bind(name string, src *source, data *dataFlags) (*bound, error) {
	t, err := a.task(name)
	if err != nil {
		return nil, err
	}
	tok := src.tok
	b := &bound{Task: t, tok: tok, end: tok.Special().EOS, chat: src.chat, log: a.log}
	if b.end < 0 && len(src.cfg.EOSTokenID) > 0 {
		b.end = src.cfg.EOSTokenID[0]
	}
	if b.end < 0 {
		return nil, inputf("%s: no end token: set eos_token in tokenizer_config.json or eos_token_id in config.json", src.dir)
	}
	if b.judge, err = t.New(tok); err != nil {
		return nil, input(err)
	}
	if t.Configure != nil && data != nil {
		if b.judge, err = t.Configure(b.judge, data.DataSettings); err != nil {
			return nil, input(err)
		}
	}
	if b.marker, err = tok.Encode(gapg.Marker); err != nil {
		return nil, inputf("%s: the vocabulary cannot spell the marker that asks for help: %w", src.dir, err)
	}
	if t.MarkerAfter != nil {
		for _, s := range t.MarkerAfter(b.judge) {
			if id, ok := tok.ID(s); ok {
				b.after = append(b.after, id)
			}
		}
	}
	return b, nil
}

// prompts returns all prompts of a data set file, or n of the task's own part (all
// or a usual number where n is 0).
func (b *bound) prompts(flag, path string, part task.Split, seed uint64, n int) ([]gapg.Prompt, error) {
	var out []gapg.Prompt
	var err error
	switch {
	case path != "" && b.Read == nil:
		return nil, inputf("--%s %s: the task %s reads no files", flag, path, b.Name)
	case path != "":
		if out, err = b.Read(b.judge, path); err != nil {
			return nil, missing(flag, path, err)
		}
	case b.Prompts == nil:
		return nil, inputf("--%s: the task %s has no problems of its own; give a file", flag, b.Name)
	default:
		if out, err = b.Prompts(b.judge, part, seed, n); err != nil {
			return nil, input(err)
		}
	}
	if path != "" {
		b.reportDuplicates(flag, path, out)
	}
	if len(out) == 0 {
		return nil, inputf("--task %s: no prompts for %s; give a data set with at least one", b.Name, part)
	}
	for i := range out {
		if out[i], err = b.written(out[i]); err != nil {
			return nil, inputf("--%s: prompt %d (%s): %w", flag, i+1, out[i].ID, err)
		}
	}
	return out, nil
}

// render writes a conversation under the checkpoint's chat template, up to where
// the assistant's turn begins; it is nil where there is no template.
func (b *bound) render() func(turns []task.Turn) (string, error) {
	if b.chat == nil {
		return nil
	}
	return func(turns []task.Turn) (string, error) { return renderTurns(b.chat, turns) }
}

// written is a prompt as the model reads it. The cloud is asked the question
// itself.
func (b *bound) written(p gapg.Prompt) (gapg.Prompt, error) {
	if b.chat == nil {
		return p, nil
	}
	p.CloudText = cmp.Or(p.CloudText, p.Text)
	turns := []task.Turn{{Role: "user", Content: p.Text}}
	if b.Turns != nil {
		turns = b.Turns(b.judge, p)
	}
	var err error
	p.Text, err = renderTurns(b.chat, turns)
	return p, err
}

// renderTurns writes a conversation under a template, and what begins the
// assistant's turn. Where that knows no system
// message, the system's words open the first turn.
func renderTurns(t *chat.Template, turns []task.Turn) (string, error) {
	c := chat.Conversation{AddGenerationPrompt: true}
	for _, m := range turns {
		c.Messages = append(c.Messages, chat.Message{Role: m.Role, Content: m.Content})
	}
	text, err := t.Render(c)
	if err != nil && len(turns) > 1 && turns[0].Role == "system" {
		merged := slices.Clone(turns[1:])
		merged[0].Content = turns[0].Content + "\n\n" + merged[0].Content
		if again, e := renderTurns(t, merged); e == nil {
			return again, nil
		}
	}
	return text, err
}

// reportDuplicates says how many questions are in a file more than once.
func (b *bound) reportDuplicates(flag, path string, prompts []gapg.Prompt) {
	seen := map[string]bool{}
	for _, p := range prompts {
		seen[p.ID] = true
	}
	if n := len(prompts) - len(seen); n > 0 {
		b.log.Info("questions that are there more than once: they count as often, and stay on one side of a split", flag, path, "prompts", len(prompts), "repeated", n)
	}
}

// evaluator measures models on the task.
func (b *bound) evaluator(maxNew int) gapg.Evaluator {
	return gapg.Evaluator{Tokenizer: b.tok, Task: b.judge, EndToken: b.end, Marker: b.marker, MarkerAfter: b.after, MaxNewTokens: maxNew}
}

// prompt makes a prompt of typed text.
func (b *bound) prompt(_ context.Context, text string) (gapg.Prompt, error) {
	p := gapg.Prompt{ID: text, Text: text}
	if b.Parse != nil {
		var err error
		if p, err = b.Parse(b.judge, text); err != nil {
			return p, input(err)
		}
	}
	p, err := b.written(p)
	return p, input(err)
}
