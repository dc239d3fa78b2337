package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
)

// Options add to what the command line offers. Names must differ from the
// built-in ones.
type Options struct {
	Algorithms []Algorithm
	Rewards    []Reward
	Tasks      []Task
}

// Algorithm is a choice of --algorithm.
type Algorithm struct {
	Name string
	Help string // half a line
	New  func(AlgorithmSettings) (gapg.Algorithm, error)
}

// AlgorithmSettings are the flags that only some algorithms heed.
type AlgorithmSettings struct {
	NoFilter  bool // --no-filter
	Std       bool // --scale-rewards
	PerBatch  bool // --normalize-before-filter
	Lambda    float64
	LambdaEta float64
}

// Reward is a choice of --reward.
type Reward struct {
	Name string
	Help string
	// New makes the reward from --alpha-a, --alpha-c and --alpha-f.
	New func(weights gapg.Hierarchical) (gapg.Reward, error)
}

func builtinAlgorithms() []Algorithm {
	plain := func(a gapg.Algorithm) func(AlgorithmSettings) (gapg.Algorithm, error) {
		return func(AlgorithmSettings) (gapg.Algorithm, error) { return a, nil }
	}
	return []Algorithm{
		{"gapg", "group-level policy gradient with adaptive prompt filtering", func(s AlgorithmSettings) (gapg.Algorithm, error) {
			return gapg.GAPG{NoFilter: s.NoFilter, Std: s.Std, PerBatch: s.PerBatch}, nil
		}},
		{"da-grpo", "dual ascent on the call ratio", func(s AlgorithmSettings) (gapg.Algorithm, error) {
			return &gapg.DAGRPO{Lambda: s.Lambda, Eta: s.LambdaEta}, nil
		}},
		{"grpo", "std-normalised advantages, clipped", plain(gapg.GRPO{})},
		{"dr-grpo", "GRPO without std and length normalisation; collaboration-aware tuning", plain(gapg.DrGRPO{})},
		{"rloo", "leave-one-out baseline", plain(gapg.RLOO{})},
		{"dapo", "asymmetric clip, token mean, dynamic sampling", plain(gapg.DAPO{})},
	}
}

func builtinRewards() []Reward {
	return []Reward{
		{"hierarchical", "solving pays most, asking less, format least", func(w gapg.Hierarchical) (gapg.Reward, error) { return w, nil }},
		{"accuracy-only", "asking pays nothing: task tuning", func(w gapg.Hierarchical) (gapg.Reward, error) {
			return gapg.AccuracyOnly{Accuracy: w.Accuracy, Format: w.Format}, nil
		}},
	}
}

// app is what the commands share.
type app struct {
	algorithms []Algorithm
	rewards    []Reward
	tasks      []Task

	json     bool
	logLevel string
	log      *slog.Logger
	screen   *screen
}

// New returns the root command. Run it with ExecuteContext; Main does that and
// handles signals and exit codes.
func New(o Options) *cobra.Command {
	a := &app{
		algorithms: slices.Concat(builtinAlgorithms(), o.Algorithms),
		rewards:    slices.Concat(builtinRewards(), o.Rewards),
		tasks:      slices.Concat(builtinTasks(), o.Tasks),
	}
	root := &cobra.Command{
		Use:   "updraft",
		Short: "Teach a small language model when to answer and when to ask the cloud",
		Long: `Updraft post-trains a small language model so that, at the end of its own
reasoning, it decides whether to answer or to ask a cloud model; then it measures
that model under a cloud budget beside every other method.

Start with "updraft demo": it needs nothing, takes under three minutes on two
cores and ends in a report.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
	}
	root.SetGlobalNormalizationFunc(normalize)
	root.SetFlagErrorFunc(flagError)
	p := root.PersistentFlags()
	p.BoolVar(&a.json, "json", false, "print one JSON object on standard output; logs go to standard error")
	p.Var(newChoice(&a.logLevel, "info", "debug", "info", "warn", "error"), "log-level", "least level of the log on standard error")
	root.AddCommand(a.demo(), a.sft(), a.train(), a.eval(), a.generate(), a.export(), a.bench(), a.info(), a.report())
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, cmd := range root.Commands() {
		cmd.Flags().SortFlags = false
	}
	return root
}

// prepare runs before every command.
func (a *app) prepare(cmd *cobra.Command) error {
	a.screen = newScreen(cmd.ErrOrStderr())
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return input(err)
	}
	a.log = slog.New(slog.NewTextHandler(a.screen, &slog.HandlerOptions{Level: level}))
	return readConfig(cmd)
}

// Main runs a command line and returns the exit code. It reports errors on
// stderr in one line each and reacts to interrupts and terminations: the first
// ends the work at the next safe place, a second one the process.
func Main(ctx context.Context, o Options, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	root := New(o)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, in := watchSignals(ctx)
	defer in.close()
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "updraft: internal error: %v; please report it with the command line\n", p)
			if level, _ := root.PersistentFlags().GetString("log-level"); level == "debug" {
				stderr.Write(debug.Stack())
			}
			code = exitFailure
		}
	}()
	err := root.ExecuteContext(ctx)
	if c := in.exitCode(); c != 0 && err != nil && (errors.Is(err, gapg.ErrStopped) || errors.Is(err, context.Canceled)) {
		fmt.Fprintln(stderr, "updraft: stopped by "+in.name())
		return c
	}
	if err != nil {
		fmt.Fprintln(stderr, "updraft: "+oneLine(err))
	}
	return exitCode(err)
}

// flagError turns pflag's errors into ours.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
		return inputf("unknown flag --%s of %s%s", name, cmd.CommandPath(), hint(name, flagNames(cmd)))
	}
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		return inputf("--%s %q: %s", bad.GetFlag().Name, bad.GetValue(), valueProblem(bad.GetFlag(), bad.Unwrap()))
	}
	return input(err)
}

// valueProblem says what a flag's value should have been.
func valueProblem(f *pflag.Flag, err error) string {
	switch f.Value.Type() {
	case "int", "int64", "uint64", "uint":
		return "not a whole number in range"
	case "float64", "float32":
		return "not a number"
	case "bool":
		return "not true or false"
	}
	return err.Error()
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// noArgs refuses arguments with a hint.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		var names []string
		for _, c := range cmd.Commands() {
			names = append(names, c.Name())
		}
		return inputf("unknown command %q%s; run updraft --help for the list", args[0], hint(args[0], names))
	}
	return inputf("%s takes no arguments, but was given %q; flags begin with --", cmd.CommandPath(), strings.Join(args, " "))
}
