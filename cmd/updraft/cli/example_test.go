package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/updraft-ml/updraft/cmd/updraft/cli"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// yesOrNo is a task of one's own: is a number even?
type yesOrNo struct{}

func (yesOrNo) Name() string { return "even" }

func (yesOrNo) Judge(_ context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	r := task.Parse(response, task.ParseOptions{})
	return gapg.Verdict{Help: r.Help, Correct: r.HasAnswer && r.Answer == p.Gold, Format: r.FormatKept, Answer: r.Answer}, nil
}

func (yesOrNo) JudgeCloud(_ context.Context, p gapg.Prompt, answer string) (bool, error) {
	return answer == p.Gold, nil
}

// A program of one's own: Updraft with a further task, reward and algorithm. Its
// main function is
//
//	os.Exit(cli.Main(context.Background(), options, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
func ExampleMain() {
	options := cli.Options{
		Tasks: []cli.Task{{
			Name: "even",
			Help: "is a number even?",
			New:  func(*tokenizer.Tokenizer) (gapg.Task, error) { return yesOrNo{}, nil },
			Prompts: func(_ gapg.Task, part task.Split, seed uint64, n int) ([]gapg.Prompt, error) {
				prompts := make([]gapg.Prompt, n)
				for i := range prompts {
					gold := []string{"yes", "no"}[i%2]
					prompts[i] = gapg.Prompt{ID: fmt.Sprint(part, seed, i), Text: fmt.Sprintf("Is %d even?", i), Gold: gold}
				}
				return prompts, nil
			},
		}},
		Rewards: []cli.Reward{{
			Name: "thrifty",
			New: func(w gapg.Hierarchical) (gapg.Reward, error) {
				w.Coordination /= 2 // asking pays half
				return w, w.Check()
			},
		}},
		Algorithms: []cli.Algorithm{{
			Name: "unfiltered",
			New:  func(cli.AlgorithmSettings) (gapg.Algorithm, error) { return gapg.GAPG{NoFilter: true}, nil },
		}},
	}
	var out, errs bytes.Buffer
	code := cli.Main(context.Background(), options, []string{"train", "--task", "odd"}, strings.NewReader(""), &out, &errs)
	fmt.Println(code, errs.String())
	code = cli.Main(context.Background(), options, []string{"train", "--help"}, strings.NewReader(""), &out, &errs)
	fmt.Println(code, strings.Contains(out.String(), "thrifty"), strings.Contains(out.String(), "unfiltered"))
	// Output:
	// 2 updraft: --task "odd": must be countdown, questions or even
	//
	// 0 true true
}

// The root command can stand in another program's cobra tree.
func ExampleNew() {
	cmd := cli.New(cli.Options{})
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "completion" {
			fmt.Println(c.Name())
		}
	}
	// Output:
	// bench
	// demo
	// eval
	// export
	// generate
	// info
	// report
	// sft
	// train
}
