package task

import (
	"fmt"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// DemoCharacters and DemoTokens are the vocabulary of the built-in character
// model: NewDemoTokenizer puts them together.
const DemoCharacters = "0123456789+-*/()=,; !?"

// DemoTokens returns the added tokens: padding, begin and end, the tags and the
// whole marker, one token each.
func DemoTokens() []string {
	return []string{"<pad>", "<bos>", "<eos>", ThinkOpen, ThinkClose, AnswerOpen, AnswerClose, Marker}
}

// NewDemoTokenizer returns the tokenizer of the built-in character model.
func NewDemoTokenizer() (*tokenizer.Tokenizer, error) {
	t, err := tokenizer.NewCharacter(DemoCharacters, DemoTokens())
	if err != nil {
		return nil, err
	}
	return t, t.SetSpecial("<bos>", "<eos>", "<pad>")
}

// Examples are a universe's demonstrations as training examples: number i is
// Demonstration i of the warm-start split under Seed.
type Examples struct {
	Universe  *Universe
	Demo      DemoConfig
	Seed      uint64
	Tokenizer *tokenizer.Tokenizer
}

var _ gapg.Examples = (*Examples)(nil)

// Example implements gapg.Examples. The end token is trained on.
func (e *Examples) Example(i int) (gapg.Example, error) {
	d, err := e.Universe.Demonstration(SplitSFT, e.Demo, e.Seed, uint64(i))
	if err != nil {
		return gapg.Example{}, err
	}
	var ex gapg.Example
	if ex.Prompt, err = gapg.EncodePrompt(e.Tokenizer, d.Problem.Compact()); err != nil {
		return gapg.Example{}, fmt.Errorf("demonstration %d: prompt: %w", i, err)
	}
	// A span never cuts a tag, and the character vocabulary has no merges, so
	// that spans are encoded one by one.
	for _, s := range d.Spans {
		ids, err := e.Tokenizer.Encode(s.Text)
		if err != nil {
			return gapg.Example{}, fmt.Errorf("demonstration %d: %w", i, err)
		}
		w := float32(0)
		if s.Train {
			w = 1
		}
		for _, id := range ids {
			ex.Response, ex.Weights = append(ex.Response, id), append(ex.Weights, w)
		}
	}
	ex.Response, ex.Weights = append(ex.Response, e.Tokenizer.Special().EOS), append(ex.Weights, 1)
	return ex, nil
}
