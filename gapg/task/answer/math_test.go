package answer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBoxed(t *testing.T) {
	for in, want := range map[string]string{
		`so \boxed{5}.`: "5", `\boxed{1} then \fbox{\frac{1}{2}}`: `\frac{1}{2}`, `\boxed{\{1,2\}}`: `\{1,2\}`, `\boxed 7$`: "7",
		`\boxed{ {a}{b} }`: "{a}{b}", `\boxed{\text{a \} b}}`: `\text{a \} b}`,
	} {
		got, ok := Boxed(in)
		require.True(t, ok, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "5", `\boxed{5`, `\boxed`, `\boxed{}}`[:6]} {
		_, ok := Boxed(in)
		require.False(t, ok, in)
	}
}

func TestNumeric(t *testing.T) {
	for in, want := range map[string]string{
		"18": "18", "#### 1,250": "1250", "$1,250.50": "2501/2", "3/4": "3/4", "-7": "-7", "the total is 12 apples.": "12", "−3": "-3",
		"5-3": "3", "43.0": "43", ".5": "1/2", "-$5": "-5", "$-5": "-5", "2 and 4.": "4", "1{,}000": "1000",
	} {
		got, ok := Number(in)
		require.True(t, ok, in)
		require.Equal(t, want, got.RatString(), in)
	}
	for _, in := range []string{"", "none", "1/0", "1/2/2020", "1,2", "1.2.3"} {
		_, ok := Number(in)
		require.False(t, ok, in)
	}
	require.True(t, Numeric("it is 43 seashells", "43.0"))
	require.False(t, Numeric("it is 43 seashells", "44"))
	gold, ok := GSM8K("48/2 = <<48/2=24>>24\n#### 72")
	require.True(t, ok)
	require.Equal(t, "72", gold)
}

func TestChoiceAndExact(t *testing.T) {
	for _, s := range []string{"B", "(B)", "b.", "Answer: B", "B) seven", `\text{(B)}`, "**B**"} {
		require.True(t, Choice(s, "B"), s)
		require.False(t, Choice(s, "C"), s)
	}
	for _, s := range []string{"", "Because", "7", "?"} {
		require.False(t, Choice(s, s), s)
	}
	require.True(t, Exact(" New  York.", "new york"))
	require.False(t, Exact("", ""))
	require.False(t, Exact("York", "New York"))
}
