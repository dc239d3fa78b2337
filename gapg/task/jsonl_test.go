package task

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestReadCountdown(t *testing.T) {
	in := "\ufeff" + `{"target": 24, "nums": [1, 2, 3, 4], "id": {"a": [1]}}` + "\r\n\n  \n" +
		`{"nums":[4,3,2,1],"target":24}` + "\n" + `{"nums":[7],"target":7}`
	ps, rep, err := ReadCountdown(strings.NewReader(in), "f", ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, []Countdown{{[]int{1, 2, 3, 4}, 24}, {[]int{4, 3, 2, 1}, 24}, {[]int{7}, 7}}, ps)
	require.Equal(t, ReadReport{Lines: 5, Duplicates: []int{4}}, rep)
}

func TestReadCountdownErrors(t *testing.T) {
	good := `{"nums":[1,2],"target":3}` + "\n"
	for _, c := range []struct {
		name, in, field, want string
		line                  int
	}{
		{"malformed", good + `{"nums":[1,2],"target":`, "", "malformed JSON", 2},
		{"two objects", `{"nums":[1,2],"target":3}{"nums":[1,2],"target":3}`, "", "malformed JSON", 1},
		{"an array", good + good + "[1, 2]", "", "not a JSON object", 3},
		{"text", "nums,target\n1 2,3", "", "not a JSON object", 1},
		{"a broken byte", "{\"nums\xff\":1}", "nums", "missing", 1},
		{"no nums", `{"target":3}`, "nums", "missing", 1},
		{"no target", `{"nums":[3]}`, "target", "missing", 1},
		{"nums a string", `{"nums":"1 2","target":3}`, "nums", `is "1 2"`, 1},
		{"nums null", `{"nums":null,"target":3}`, "nums", "is null", 1},
		{"nums hold a string", `{"nums":[1,"2"],"target":3}`, "nums", `holds "2"`, 1},
		{"nums hold a fraction", `{"nums":[1,2.5],"target":3}`, "nums", "holds 2.5", 1},
		{"nums hold null", `{"nums":[1,null],"target":3}`, "nums", "holds null", 1},
		{"target a string", `{"nums":[1,2],"target":"3"}`, "target", `is "3"`, 1},
		{"target a fraction", `{"nums":[1,2],"target":3.0}`, "target", "is 3.0", 1},
		{"target beyond 64 bits", `{"nums":[1,2],"target":99999999999999999999}`, "target", "whole number", 1},
		{"empty nums", `{"nums":[],"target":3}`, "", "nums is empty", 1},
		{"a negative number", `{"nums":[-1,2],"target":3}`, "", "negative", 1},
		{"too many", `{"nums":[1,1,1,1,1,1,1,1,1],"target":3}`, "", "at most 8", 1},
		{"unsolvable", good + `{"nums":[1,1],"target":3}`, "", "has no solution", 2},
		{"a long line", `{"nums":[1,2],"target":3,"x":"` + strings.Repeat("x", 2000) + `"}`, "", "longer than 1000 bytes", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := ReadCountdown(strings.NewReader(c.in), "dir/file.jsonl", ReadOptions{MaxLine: 1000})
			var le *LineError
			require.ErrorAs(t, err, &le)
			require.Equal(t, "dir/file.jsonl", le.File)
			require.Equal(t, c.line, le.Line)
			require.Equal(t, c.field, le.Field)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	for _, in := range []string{"", "\n\n", "\ufeff"} {
		_, _, err := ReadCountdown(strings.NewReader(in), "empty.jsonl", ReadOptions{})
		require.ErrorContains(t, err, "empty.jsonl: the file holds no problem")
	}
	boom := errors.New("boom")
	_, _, err := ReadCountdown(iotest.ErrReader(boom), "f", ReadOptions{})
	require.ErrorIs(t, err, boom)
}

func TestReadCountdownUnsolvable(t *testing.T) {
	in := `{"nums":[1,1],"target":3}` + "\n" + `{"nums":[1,2],"target":3}` + "\n"
	ps, rep, err := ReadCountdown(strings.NewReader(in), "f", ReadOptions{SkipUnsolvable: true})
	require.NoError(t, err)
	require.Len(t, ps, 1)
	require.Equal(t, []int{1}, rep.Unsolvable)
	ps, rep, err = ReadCountdown(strings.NewReader(in), "f", ReadOptions{AllowUnsolvable: true})
	require.NoError(t, err)
	require.Len(t, ps, 2)
	require.Empty(t, rep.Unsolvable)
	_, _, err = ReadCountdown(strings.NewReader(in[:26]), "f", ReadOptions{SkipUnsolvable: true})
	require.ErrorContains(t, err, "none of its 1 problems has a solution")
}

func TestReadCountdownFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.jsonl")
	// A line far beyond any scanner's default.
	require.NoError(t, os.WriteFile(path, []byte(`{"nums":[1,2],"target":3,"x":"`+strings.Repeat("x", 1<<20)+"\"}\n"), 0o644))
	ps, _, err := ReadCountdownFile(path, ReadOptions{})
	require.NoError(t, err)
	require.Len(t, ps, 1)
	_, _, err = ReadCountdownFile(filepath.Join(dir, "none"), ReadOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, _, err = ReadCountdownFile(dir, ReadOptions{})
	require.ErrorContains(t, err, "is a directory")
}

func FuzzReadCountdown(f *testing.F) {
	for _, s := range []string{"", "{}", `{"nums":[1,2],"target":3}`, "[", `{"nums":[1e9],"target":-0}`, "\xff", `{"nums":[[]],"target":{}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ps, _, err := ReadCountdown(strings.NewReader(s), "f", ReadOptions{AllowUnsolvable: true})
		if (err == nil) != (len(ps) > 0) {
			t.Fatalf("%d problems and the error %v", len(ps), err)
		}
		for _, p := range ps {
			if err := p.Validate(); err != nil {
				t.Fatalf("%v: %v", p, err)
			}
		}
	})
}
