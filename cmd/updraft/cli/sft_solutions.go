package cli

import (
	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/gapg"
)

// worked are the worked solutions of a data set of questions, behind the prompts
// that training writes. Longer ones than a response may be are left out.
func (r *rolloutFlags) worked(cmd *cobra.Command, a *app, f *sftFlags, b *bound, prompts []gapg.Prompt) (gapg.Demonstrations, error) {
	if b.Solution == nil {
		return nil, inputf("--from-solutions: the task %s has no worked solutions", b.Name)
	}
	var demos gapg.Demonstrations
	none, long := 0, 0
	for _, p := range prompts {
		text := b.Solution(p)
		if text == "" {
			none++
			continue
		}
		d := gapg.Demonstration{ID: p.ID, Prompt: p.Text, Text: text}
		var err error
		if d.PromptTokens, err = gapg.EncodePrompt(b.tok, p.Text); err != nil {
			return nil, input(err)
		}
		if d.Tokens, err = b.tok.Encode(text); err != nil {
			return nil, inputf("--dataset %s: the solution of prompt %s: %w", f.dataset, p.ID, err)
		}
		if d.Tokens = append(d.Tokens, b.end); len(d.Tokens) > r.longest {
			long++
			continue
		}
		demos = append(demos, d)
	}
	a.log.Info("worked solutions", "prompts", len(prompts), "solutions", len(demos), "without", none, "too_long", long)
	switch {
	case len(demos) == 0 && long == 0:
		return nil, inputf("--from-solutions: no answer of --dataset %s is a worked solution, in which #### or \\boxed{} marks the result; name their column by --answer-column", f.dataset)
	case len(demos) == 0:
		return nil, inputf("--from-solutions: all %d solutions of --dataset %s are longer than %d tokens; raise --max-completion-length", long, f.dataset, r.longest)
	}
	return demos, f.passes(cmd, len(demos))
}
