package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// DataSettings are the flags that say how a data set of the user's own is read
// and judged.
type DataSettings struct {
	PromptColumn, AnswerColumn, Template, Verifier string
	Instruction, Help                              string // as given; see usual
}

// dataFlags are those flags.
type dataFlags struct{ DataSettings }

// usual is the value of --instruction and --help-instruction that stands for the
// verifier's and the program's own text; none is no text.
const usual = "default"

var dataFlagNames = []string{"prompt-column", "answer-column", "prompt-template", "verifier", "instruction", "help-instruction"}

func (f *dataFlags) registerData(fs *pflag.FlagSet) {
	var names []string
	for _, v := range task.Verifiers() {
		names = append(names, string(v))
	}
	fs.StringVar(&f.PromptColumn, "prompt-column", "", "questions: column of the data set that holds the question, as text or as messages; default: prompt, question, problem, input or messages, whichever is there")
	fs.StringVar(&f.AnswerColumn, "answer-column", "", "questions: column that holds the answer, alone or in a solution (behind ####, in \\boxed{}); default: answer, target, gold or solution, whichever is there")
	fs.StringVar(&f.Template, "prompt-template", "", `questions: the question made of several columns, such as "{Body} {Question}"; a list of texts becomes lettered choices`)
	fs.Var(newChoice(&f.Verifier, names[0], names...), "verifier", "questions: when an answer is right: numeric (the same number), math (the same mathematics), exact (the same words) or choice (the same letter)")
	fs.StringVar(&f.Instruction, "instruction", usual, "questions: added to each question for the model; default: where the verifier looks for the answer; none: nothing")
	fs.StringVar(&f.Help, "help-instruction", usual, "questions: tells the model that it may ask for help, in the system message; the cloud never sees it; none: nothing")
}

// chooseTask takes the task questions where flags of it are given and --task is
// not, and refuses them for a task that does not heed them.
func (f *dataFlags) chooseTask(a *app, cmd *cobra.Command, name *string) error {
	given := ""
	for _, n := range dataFlagNames {
		if fl := cmd.Flags().Lookup(n); given == "" && fl.Value.String() != fl.DefValue {
			given = n
		}
	}
	if given == "" {
		return nil
	}
	if !cmd.Flags().Changed("task") {
		return cmd.Flags().Set("task", "questions")
	}
	if t, err := a.task(*name); err == nil && t.Configure == nil {
		return inputf("--%s: the task %s has a format and a verifier of its own; set --task questions", given, *name)
	}
	return nil
}

// questions is the task of a data set of the user's own.
func questions() Task {
	return Task{
		Name: "questions",
		Help: "questions with answers from a JSONL file, any of --verifier",
		New: func(*tokenizer.Tokenizer) (gapg.Task, error) {
			return task.Questions{Verifier: task.VerifyNumeric}, nil
		},
		Configure: func(_ gapg.Task, s DataSettings) (gapg.Task, error) {
			t := task.Questions{Verifier: task.Verifier(s.Verifier), PromptColumn: s.PromptColumn, AnswerColumn: s.AnswerColumn, Template: s.Template}
			if s.Template != "" && s.PromptColumn != "" {
				return nil, inputf("--prompt-template and --prompt-column: give one of the two")
			}
			if strings.Count(s.Template, "{") == 0 && s.Template != "" {
				return nil, inputf("--prompt-template %q: names no column; write one as {column}", s.Template)
			}
			t.Instruction = textOr(s.Instruction, t.Verifier.Instruction())
			t.Help = textOr(s.Help, task.HelpInstruction)
			return t, nil
		},
		Turns:    func(t gapg.Task, p gapg.Prompt) []task.Turn { return t.(task.Questions).Turns(p) },
		Read:     func(t gapg.Task, path string) ([]gapg.Prompt, error) { return t.(task.Questions).ReadFile(path) },
		Solution: func(p gapg.Prompt) string { return p.Gold.(task.Question).Solution },
		Parse: func(t gapg.Task, text string) (gapg.Prompt, error) {
			return t.(task.Questions).Prompt(task.Question{Turns: []task.Turn{{Role: "user", Content: text}}}), nil
		},
		Cloud: func(c cloud.SimulatedConfig) (cloud.Cloud, error) { return task.SimulatedAnswers(c) },
		MarkerAfter: func(gapg.Task) []string {
			// Ends of a sentence or a line, as byte-level vocabularies spell them.
			return []string{".", ".\u010a", ".\u010a\u010a", "\u010a", "\u010a\u010a", "?", "\n", ".\n", "\n\n", task.ThinkOpen, task.ThinkClose}
		},
	}
}

// textOr is the text of a flag, other where it is not given.
func textOr(s, other string) string {
	switch s {
	case usual:
		return other
	case "none":
		return ""
	}
	return s
}
