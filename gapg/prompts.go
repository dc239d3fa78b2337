package gapg

import (
	"fmt"

	"github.com/updraft-ml/updraft/model/tokenizer"
)

// EncodePrompt turns a prompt's text into tokens, with the special tokens
// around it that the tokenizer puts there. A text that begins with the begin
// token, as chat templates write it, stays as it is.
func EncodePrompt(tok *tokenizer.Tokenizer, text string) ([]int32, error) {
	ids, err := tok.Encode(text)
	if err == nil && len(ids) > 0 && ids[0] == tok.Special().BOS {
		return ids, nil
	}
	return tok.EncodeSpecial(text)
}

// EncodePrompts turns prompts into tokens and checks that each leaves room for
// a completion in the model's context.
func EncodePrompts(tok *tokenizer.Tokenizer, prompts []Prompt, context, completion int) ([][]int32, error) {
	out := make([][]int32, len(prompts))
	for i, p := range prompts {
		ids, err := EncodePrompt(tok, p.Text)
		if err != nil {
			return nil, fmt.Errorf("prompt %d (%s): %w", i+1, p.ID, err)
		}
		if len(ids) == 0 {
			return nil, fmt.Errorf("prompt %d (%s): empty", i+1, p.ID)
		}
		if len(ids)+completion > context {
			return nil, fmt.Errorf("prompt %d (%s): %d tokens and %d for the completion exceed the model's context of %d; lower max-completion-length or drop the prompt",
				i+1, p.ID, len(ids), completion, context)
		}
		out[i] = ids
	}
	return out, nil
}

// drawPrompt returns the prompt at a place of the endless sequence of seeded
// shuffles of the data: a pure function, so that a resumed run needs no
// iterator state.
func drawPrompt(seed uint64, cursor, n int) int {
	epoch, at := cursor/n, cursor%n
	return int(permute(uint64(at), uint64(n), seed, uint64(epoch)))
}

// permute maps i to its place in a pseudorandom permutation of [0, n) by a
// four-round Feistel network over the next power of four, walked until it
// falls inside (Black and Rogaway 2002).
func permute(i, n, seed, epoch uint64) uint64 {
	half := uint(1)
	for uint64(1)<<(2*half) < n {
		half++
	}
	mask := uint64(1)<<half - 1
	for {
		l, r := i>>half, i&mask
		for round := range uint64(4) {
			l, r = r, l^(mix(r^mix(seed^mix(epoch*4+round)))&mask)
		}
		if i = l<<half | r; i < n {
			return i
		}
	}
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// FirstPrompts are the first n prompts that a training with this seed draws.
func FirstPrompts(prompts []Prompt, seed uint64, n int) []Prompt {
	var out []Prompt
	for i := range min(n, len(prompts)) {
		out = append(out, prompts[drawPrompt(seed, i, len(prompts))])
	}
	return out
}
