package answer

import (
	"bufio"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// problem is a line of MATH's files.
type problem struct{ Solution, Answer string }

// readMATH reads a file of UPDRAFT_DATA: see CONTRIBUTING.md.
func readMATH(t *testing.T, name string) []problem {
	dir := os.Getenv("UPDRAFT_DATA")
	testx.Have(t, "data", dir != "")
	f, err := os.Open(filepath.Join(dir, name))
	require.NoError(t, err)
	defer f.Close()
	var out []problem
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var p problem
		require.NoError(t, json.Unmarshal(lines.Bytes(), &p))
		out = append(out, p)
	}
	require.NoError(t, lines.Err())
	return out
}

// Every gold solution of MATH's test set gives an answer that is its own equal,
// and where the set names the answer apart, that one's; in the median within a
// millisecond.
func TestMATHGold(t *testing.T) {
	all := readMATH(t, "math_test.jsonl")
	require.Len(t, all, 5000)
	var took []time.Duration
	for i, p := range all {
		gold, ok := Boxed(p.Solution)
		require.True(t, ok, "problem %d", i)
		start := time.Now()
		require.True(t, Math(gold, gold), "problem %d: %q", i, gold)
		// The same again with nothing equal in the text, so that it is parsed.
		spaced := `\left(` + strings.TrimRight(gold, ". ") + `\right)`
		if n, ok := parse(clean(gold)); ok && n.scalar() && !hasWord(gold) && !strings.Contains(gold, ",") && n.kind != percent && n.kind != based {
			require.True(t, Math(spaced, gold), "problem %d: %q", i, spaced)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("median %v, 99 %% within %v, most %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	require.LessOrEqual(t, took[len(took)/2], time.Millisecond)

	short := readMATH(t, "math500.jsonl")
	require.Len(t, short, 500)
	for i, p := range short {
		gold, ok := Boxed(p.Solution)
		require.True(t, ok, "problem %d", i)
		require.True(t, Math(gold, p.Answer), "problem %d: %q and %q", i, gold, p.Answer)
		require.True(t, Math(p.Answer, gold), "problem %d: %q and %q", i, p.Answer, gold)
	}
}

// coincide reports whether two gold answers are one by rule: without what an
// answer may leave out (units, a percent sign, the name before =, the base,
// framing) they have the same text, or the same rational value; a percentage may
// be a hundred times the other.
func coincide(a, b string) bool {
	x, y := bare(a), bare(b)
	if x == y {
		return true
	}
	n, ok := parse(x)
	m, okM := parse(y)
	if !ok || !okM {
		return false
	}
	p, q := n.rational(), m.rational()
	if p == nil || q == nil {
		return false
	}
	hundred := big.NewRat(100, 1)
	return p.Cmp(q) == 0 || strings.Contains(a+b, "%") && (new(big.Rat).Mul(p, hundred).Cmp(q) == 0 || new(big.Rat).Mul(q, hundred).Cmp(p) == 0)
}

// bare is a gold answer without what may be left out.
func bare(s string) string {
	s = clean(s)
	if i := strings.LastIndex(s, "="); i >= 0 && i < 4 {
		s = s[i+1:]
	}
	for _, rest := range []string{`\text`, `\mbox`, "_"} {
		if i := strings.Index(s, rest); i > 0 {
			s = s[:i]
		}
	}
	return squeeze(strings.NewReplacer(`\%`, "", "%", "", `^\circ`, "", `^{\circ}`, "", `\$`, "").Replace(s))
}

// The answer of one problem is no other's, unless the two coincide. The pairs are fixed: strides through the set.
func TestNoFalseAccepts(t *testing.T) {
	all := readMATH(t, "math_test.jsonl")
	golds := make([]string, len(all))
	for i, p := range all {
		golds[i], _ = Boxed(p.Solution)
	}
	pairs, accepted := 0, 0
	for _, stride := range []int{977, 1009, 1999, 2503} {
		for i := range golds {
			a, b := golds[i], golds[(i+stride)%len(golds)]
			pairs++
			if !Math(a, b) {
				continue
			}
			accepted++
			if !coincide(a, b) {
				t.Errorf("%q is taken for %q", a, b)
			}
		}
	}
	require.GreaterOrEqual(t, pairs, 10000)
	t.Logf("%d of %d shuffled pairs are the same answer", accepted, pairs)
}
