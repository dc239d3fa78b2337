package kernels

import "fmt"

// Of sample.cu: the block, the logits that it gathers, the sums of a reduction's
// steps, and the logits of a segment.
const sampleThreads, sampleList, sampleWays, sampleSegment = 256, 4096, 8, 64

// Sample draws a token for each row, a block for each.
// Parameters: logits, params, keys, marker, marker after, forced, tokens,
// positions, LogProb, SamplingLogProb, Entropy, vocab, length of the marker, logits
// stride, params stride, keys stride.
//
// The error says that the vocabulary is too large: its segments' maxima and sums
// are kept in shared memory, of which a block has 99 KB on every GPU.
func Sample(vocab int) (Spec, error) {
	chunks := tiles(vocab, VocabChunk)
	const most = 99 << 10
	s := Spec{Entry: "sample_f32", Module: "sample", PTX: ptx("sample"), Arch: Arch{8, 0}, Params: "pppppppppppiiiii", Block: sampleThreads,
		Shared: sampleWays*sampleThreads/32*4 + sampleList*4 + chunks*VocabChunk/sampleSegment*(4+4+16/8)}
	if vocab < 1 || s.Shared > most {
		return s, fmt.Errorf("kernels: sample: a vocabulary of %d tokens: must be between 1 and %d", vocab,
			(most-sampleWays*sampleThreads/32*4-sampleList*4)/(VocabChunk/sampleSegment*10)*VocabChunk)
	}
	return s, nil
}
