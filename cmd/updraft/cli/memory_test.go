package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/model"
)

func TestHostMemory(t *testing.T) {
	available, total, ok := parseMeminfo("MemTotal:       24689724 kB\nMemFree:  1 kB\nMemAvailable:   22020096 kB\nHugePages_Total:       0\n")
	require.True(t, ok)
	require.Equal(t, []uint64{22020096 << 10, 24689724 << 10}, []uint64{available, total})
	_, _, ok = parseMeminfo("MemTotal: 24689724 kB\nMemAvailable: x kB\n")
	require.False(t, ok)

	require.Equal(t, uint64(70), groupRoom(100, 50, "anon 9\ninactive_file 20\n"))
	require.Equal(t, uint64(50), groupRoom(100, 50, ""))
	require.Equal(t, uint64(0), groupRoom(100, 150, "inactive_file 20\n"))
	require.Equal(t, uint64(100), groupRoom(100, 5, "inactive_file 20\n"))
}

// smol has the shape of SmolLM2-135M, trained as updraft train does.
func smol() need {
	return need{
		cfg: model.Config{ModelType: "llama", HiddenSize: 576, IntermediateSize: 1536, NumHiddenLayers: 30, NumAttentionHeads: 9, NumKeyValueHeads: 3,
			HeadDim: 64, VocabSize: 49152, MaxPositionEmbeddings: 8192, TieWordEmbeddings: true},
		o:       model.Options{Trainable: true, MaxRows: 4096},
		so:      &model.SchedulerOptions{MaxBatch: 64, MaxTokens: 512},
		longest: 512,
	}
}

// Advice that is followed makes a run fit, and names first what saves most.
func TestAdvice(t *testing.T) {
	whole := smol()
	for _, share := range []float64{0.95, 0.7, 0.5, 0.3} {
		free := uint64(share * float64(whole.bytes()))
		n := whole
		text := n.advise(free)
		require.True(t, strings.HasPrefix(text, "with --micro-batch-tokens 512"), text)
		for _, flag := range strings.Split(strings.TrimPrefix(text[:strings.Index(text, " it takes")], "with "), ", ") {
			found := false
			how, last := n.levers()
			if last != nil {
				how = append(how, *last)
			}
			for _, l := range how {
				if l.flag == flag {
					before := n.bytes()
					l.apply(&n)
					require.Less(t, n.bytes(), before, flag)
					found = true
				}
			}
			require.True(t, found, "%q of %q", flag, text)
		}
		require.LessOrEqual(t, n.bytes(), free, text)
		require.Contains(t, text, "it takes "+bytesText(int64(n.bytes())))
	}
	all := smol()
	text := all.advise(1 << 20)
	require.Contains(t, text, "even with ")
	require.Equal(t, 1, strings.Count(text, "responses at once"), text)
	require.Contains(t, text, "--use-peft")
	require.Contains(t, text, "--gradient-checkpointing")
	require.NotContains(t, text, "--dtype", "the device cannot")
	fresh := smol()
	fresh.fresh, fresh.bf16 = true, true
	text = fresh.advise(1 << 20)
	require.NotContains(t, text, "--use-peft")
	require.Contains(t, text, "--optim adamw-8bit")
	alone := need{cfg: whole.cfg, o: model.Options{Weights: engine.BF16}, so: &model.SchedulerOptions{MaxBatch: 1}}
	require.Equal(t, "take a smaller model or shorter sequences", alone.advise(1))
	// A reference model is one more copy, which adapters do without.
	with := smol()
	with.others = 1 << 30
	require.Equal(t, whole.bytes()+1<<30, with.bytes())
	with.o.LoRA = &model.LoRA{}
	without := smol()
	without.o.LoRA = with.o.LoRA
	require.Equal(t, without.bytes(), with.bytes())
}

// A run that the machine has too little memory for is refused in one line before
// anything is made, and its plan is shown first where it is asked for.
func TestMemoryIsForeseen(t *testing.T) {
	_, _, known := hostMemory()
	testx.Have(t, "a system that says what memory is available", known)
	out := filepath.Join(t.TempDir(), "run")
	huge := []string{"sft", "--device", "cpu", "--hidden-size", "65536", "--intermediate-size", "262144", "--num-hidden-layers", "400", "--output-dir", out}
	r := run(t, huge...)
	require.Equal(t, exitInput, r.code)
	last := r.stderr[strings.LastIndex(strings.TrimSpace(r.stderr), "\n")+1:]
	require.Contains(t, last, "--device cpu: the run takes ")
	require.Contains(t, last, "most goes to optimizer")
	require.Contains(t, last, "take a smaller model")
	r = run(t, append(huge, "--dry-run")...)
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.out, "# memory plan")
	require.Contains(t, r.stderr, "the run takes ")

	var info infoJSON
	oneObject(t, ok(t, "info", "--model", tinyModel(t), "--device", "cpu", "--use-peft", "--json").out, &info)
	require.Equal(t, "fits", info.Advice)
	require.Positive(t, info.Room)
	require.Positive(t, info.Memory["adapters"])
	require.Less(t, info.Memory["gradients"], info.Memory["weights"])
}
