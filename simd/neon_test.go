package simd

import (
	"encoding/binary"
	"fmt"
	"go/constant"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// wordMacro is a macro of neon_arm64.h that makes an instruction as a word, with
// the comment before it.
var wordMacro = regexp.MustCompile(`(?m)^(?:// (.+)\n)?#define (\w+)\(([\w, ]+)\) WORD \$(.+)$`)

// TestNEONEncodings compares each word of neon_arm64.h with what the GNU assembler
// makes of the instruction that its comment names.
func TestNEONEncodings(t *testing.T) {
	const as = "aarch64-linux-gnu-as"
	_, err := exec.LookPath(as)
	testx.Have(t, as, err == nil)
	header, err := os.ReadFile("neon_arm64.h")
	require.NoError(t, err)
	macros := wordMacro.FindAllStringSubmatch(string(header), -1)
	require.Equal(t, strings.Count(string(header), "WORD $"), len(macros), "macros that this test cannot read")

	var source strings.Builder
	var words []uint32
	var names []string
	for _, m := range macros {
		instruction, name, params, word := m[1], m[2], strings.Split(m[3], ", "), m[4]
		for _, values := range [][]int{{1, 2, 3}, {31, 15, 16}, {16, 31, 15}, {10, 21, 31}} {
			gnu, expr := instruction, word
			for i, p := range params {
				v := fmt.Sprint(values[i])
				gnu = regexp.MustCompile(`([VSD#])`+p+`\b`).ReplaceAllString(gnu, "${1}"+v)
				expr = strings.ReplaceAll(expr, "("+p+")", v)
			}
			value, err := types.Eval(token.NewFileSet(), nil, token.NoPos, expr)
			require.NoError(t, err, name)
			w, exact := constant.Uint64Val(constant.ToInt(value.Value))
			require.True(t, exact && w < 1<<32, name)
			fmt.Fprintln(&source, gnu)
			words = append(words, uint32(w))
			names = append(names, fmt.Sprintf("%s%v: %s", name, values[:len(params)], gnu))
		}
	}
	dir := t.TempDir()
	src, object, raw := filepath.Join(dir, "x.s"), filepath.Join(dir, "x.o"), filepath.Join(dir, "x.bin")
	require.NoError(t, os.WriteFile(src, []byte(source.String()), 0o600))
	for _, c := range [][]string{{as, "-o", object, src}, {"aarch64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", object, raw}} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	code, err := os.ReadFile(raw)
	require.NoError(t, err)
	require.Len(t, code, 4*len(words))
	for i, w := range words {
		require.Equal(t, fmt.Sprintf("%08x", binary.LittleEndian.Uint32(code[4*i:])), fmt.Sprintf("%08x", w), names[i])
	}
}
