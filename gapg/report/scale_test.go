package report

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Property tests draw the same cases each time; -rapid.seed asks for others.
func TestMain(m *testing.M) {
	flag.Set("rapid.seed", "1")
	flag.Set("rapid.nofailfile", "true")
	flag.Parse()
	os.Exit(m.Run())
}

func TestScaleTicks(t *testing.T) {
	labels := func(lo, hi float64, unit Unit, n int) []string {
		s := newScale(span{lo, hi, true}, unit, n, 0, 100, true)
		var out []string
		for _, tick := range s.ticks {
			out = append(out, s.label(tick))
		}
		return out
	}
	require.Equal(t, []string{"55 %", "60 %", "65 %", "70 %"}, labels(0.561, 0.69, Percent, 4))
	require.Equal(t, []string{"0", "20", "40"}, labels(0, 31, Number, 3))
	require.Equal(t, []string{"−1.0", "−0.5", "0", "0.5", "1.0"}, labels(-1, 1, Number, 4))
	require.Equal(t, []string{"0", "5e−7", "1e−6"}, labels(0, 1e-6, Number, 3))
	require.Equal(t, []string{"0", "1,000", "2,000", "3,000"}, labels(0, 2600, Number, 3))
	require.Equal(t, []string{"0", "0.25", "0.50", "0.75"}, labels(0, 0.7, Number, 3))
	require.Equal(t, []string{"0 %", "0.5 %", "1.0 %"}, labels(0, 0.01, Percent, 2))
	require.Equal(t, []string{"0.1", "1", "10", "100"}, labels(-0.6, 1.4, Decades, 9))
}

func TestScaleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s span
		s.add(rapid.SliceOfN(rapid.Float64(), 0, 5).Draw(t, "values")...)
		n := rapid.IntRange(0, 12).Draw(t, "ticks")
		sc := newScale(s, Number, n, 300, 10, rapid.Bool().Draw(t, "nice"))
		if !(sc.hi > sc.lo) || notFinite(sc.hi) || notFinite(sc.lo) {
			t.Fatalf("scale from %v to %v", sc.lo, sc.hi)
		}
		if len(sc.ticks) > 40 {
			t.Fatalf("%d ticks", len(sc.ticks))
		}
		for i, tick := range sc.ticks {
			if notFinite(tick) || sc.label(tick) == "" || (i > 0 && !(tick > sc.ticks[i-1])) {
				t.Fatalf("ticks %v", sc.ticks)
			}
		}
		for _, v := range []float64{s.lo, s.hi, math.NaN(), math.Inf(1), math.Inf(-1), rapid.Float64().Draw(t, "v")} {
			if p := sc.px(v); notFinite(p) || math.Abs(p) > 1000 {
				t.Fatalf("px(%v) = %v", v, p)
			}
		}
		if s.any {
			for _, v := range []float64{s.lo, s.hi} {
				if p := sc.px(v); !(p >= 10-1e-6 && p <= 300+1e-6) {
					t.Fatalf("px(%v) = %v is outside the chart", v, p)
				}
			}
		}
	})
}

func TestThinKeepsSpikesAndGaps(t *testing.T) {
	const n = 5000
	x, y := make([]float64, n), make([]float64, n)
	for i := range x {
		x[i] = float64(i)
	}
	y[1234], y[4321], y[2500] = 9, -9, math.NaN()
	tx, ty := thin(x, y, 400)
	require.Len(t, ty, len(tx))
	require.Less(t, len(tx), 420)
	seen := map[float64]float64{}
	gap := false
	for i := range tx {
		if i > 0 {
			require.Greater(t, tx[i], tx[i-1])
		}
		seen[tx[i]] = ty[i]
		gap = gap || math.IsNaN(ty[i])
	}
	require.Equal(t, 9.0, seen[1234])
	require.Equal(t, -9.0, seen[4321])
	require.True(t, gap)
}

func TestMovingMean(t *testing.T) {
	got := movingMean([]float64{0, 3, 6, math.NaN(), 12, 15}, 3)
	require.InDeltaSlice(t, []float64{1.5, 3, 4.5, 0, 13.5, 13.5}, []float64{got[0], got[1], got[2], 0, got[4], got[5]}, 1e-12)
	require.True(t, math.IsNaN(got[3]))
}

func TestFigures(t *testing.T) {
	for want, got := range map[string]string{
		"91.2\u00a0%": percent(0.9123, 1), "0.0\u00a0%": percent(-0.00001, 1), "−3.1\u00a0%": percent(-0.031, 1), "–": percent(math.NaN(), 1),
		"+2.6": points(0.026, 1), "−18.2": points(-0.182, 1), "±0.0": points(-0.0001, 1),
		"0.429": number(0.3/0.7, 3), "1,234": number(1234.4, 4), "24": number(24, 3), "NaN": number(math.NaN(), 3), "−∞": number(math.Inf(-1), 3),
		"1.2e−07": number(1.2e-7, 3), "$0.88": dollars(0.88), "$0.0031": dollars(0.0031), "$0": dollars(0), "$1,240": dollars(1240.2),
		"1,234,567.5": groupDigits("1234567.5"), "-123": groupDigits("-123"), "-1,234": groupDigits("-1234"),
	} {
		require.Equal(t, want, got)
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	d := sampleData()
	require.NoError(t, WriteTable(&b, d.Methods[6:10], TableOptions{}))
	require.Equal(t, strings.TrimPrefix(`
method               overall  95 % interval         difference  device  solo  calls  natural   PGR  APGR  help prec.  recall  $/1,000
-------------------------------------------------------------------------------------------------------------------------------------
self-check              86.1   84.0 to 88.2  -5.1 (-6.9, -3.2)    83.0  66.7   29.1     29.1  72.0     -        88.0    77.0     0.87
collaboration-aware     85.8   83.6 to 88.0  -5.4 (-7.2, -3.5)    84.0  64.1   29.6     41.2  70.0  73.0        87.0    72.0     0.89
gapg *                  91.2   89.4 to 93.0                  -    89.3  68.3   29.4     31.8  90.4  88.0        96.4    89.1     0.88
da-grpo                 88.9   87.0 to 90.8  -2.3 (-4.1, -0.4)    86.8  67.2   30.0     30.4  82.0  81.0        92.0    84.0     0.90
`, "\n"), b.String())

	for _, width := range []int{1, 40, 80, 100, 200} {
		b.Reset()
		require.NoError(t, WriteTable(&b, d.Methods, TableOptions{Width: width}))
		for line := range strings.Lines(b.String()) {
			n := len([]rune(strings.TrimRight(line, "\n")))
			require.LessOrEqual(t, n, max(width, 35), line)
			require.Regexp(t, `^[ -~]*\n$`, line)
		}
		require.Contains(t, b.String(), "overall")
		require.Contains(t, b.String(), "calls")
	}
	b.Reset()
	require.NoError(t, WriteTable(&b, nil, TableOptions{}))
	require.Empty(t, b.String())
	require.NoError(t, WriteTable(&b, []Method{{Name: "two\nlines\x1b[2J", OverallAccuracy: math.NaN()}}, TableOptions{}))
	require.NotContains(t, b.String(), "\x1b")
	require.Equal(t, 3, strings.Count(b.String(), "\n"))
}

// The JSON names are what scripts read from the command line's output.
func TestMethodJSON(t *testing.T) {
	m := Method{Name: "gapg", OverallAccuracy: 0.9, DeviceAccuracy: new(0.8), CloudRatio: 0.3, CI95: [2]float64{0.88, 0.92}}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"gapg","overall_accuracy":0.9,"device_accuracy":0.8,"solo_accuracy":null,"cloud_ratio":0.3,
		"pgr":null,"apgr":null,"help_precision":null,"help_recall":null,"ci95":[0.88,0.92]}`, string(b))
	m.NaturalCloudRatio = new(0.31)
	b, err = json.Marshal(m)
	require.NoError(t, err)
	require.Contains(t, string(b), `"natural_cloud_ratio":0.31`)
}

func TestSplitResponse(t *testing.T) {
	require.Equal(t, []part{{"tag", "<think>"}, {"think", "1+2"}, {"tag", "</think>"}, {"tag", "<answer>"}, {"answer", "1 + 2"}, {"tag", "</answer>"}},
		split("<think>1+2</think><answer>1 + 2</answer>"))
	require.Equal(t, []part{{"think", "hm "}, {"help", "<unknown> I need external assistance </unknown>"}},
		split("hm <unknown> I need external assistance </unknown>"))
	require.Equal(t, []part{{"tag", "<unknown>"}, {"think", " never mind "}, {"tag", "</unknown>"}}, split("<unknown> never mind </unknown>"))
	require.Empty(t, split(""))
}
