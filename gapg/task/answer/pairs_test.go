package answer

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pair is a line of testdata/pairs.txt.
type pair struct {
	line         int
	kind         string
	given, wants string
	same         bool
}

func readPairs(t testing.TB) []pair {
	b, err := os.ReadFile("testdata/pairs.txt")
	require.NoError(t, err)
	var out []pair
	kind := ""
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case strings.HasPrefix(line, "#") || line == "":
			continue
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") && !strings.ContainsAny(line, "≡≢"):
			kind = line[1 : len(line)-1]
			continue
		}
		p := pair{line: i + 1, kind: kind}
		var ok bool
		if p.given, p.wants, p.same = strings.Cut(line, " ≡ "); !p.same {
			p.given, p.wants, ok = strings.Cut(line, " ≢ ")
			require.True(t, ok, "pairs.txt:%d: neither ≡ nor ≢ stands between two answers", i+1)
		}
		out = append(out, p)
	}
	return out
}

// Each pair is judged in both orders: which of the two is the gold answer does
// not matter.
func TestPairs(t *testing.T) {
	same, differ := 0, 0
	for _, p := range readPairs(t) {
		if p.same {
			same++
		} else {
			differ++
		}
		for _, o := range [][2]string{{p.given, p.wants}, {p.wants, p.given}} {
			if got := Math(o[0], o[1]); got != p.same {
				t.Errorf("pairs.txt:%d (%s): Math(%q, %q) = %v", p.line, p.kind, o[0], o[1], got)
			}
		}
	}
	require.GreaterOrEqual(t, same, 300)
	require.GreaterOrEqual(t, differ, 300)
}
