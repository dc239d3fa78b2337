package manifest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVerifyNamesEachDifference(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("a.cu", "kernel")
	write("h.cuh", "header")
	write("a.ptx", "code")
	m := &Manifest{Modules: []Module{{
		PTX: "a.ptx", SHA256: Hash([]byte("code")), Source: "a.cu",
		Inputs: []Input{{"a.cu", Hash([]byte("kernel"))}, {"h.cuh", Hash([]byte("header"))}},
	}}}
	require.NoError(t, m.Write(dir))
	verify := func() []string {
		m, err := Read(dir)
		require.NoError(t, err)
		faults, err := m.Verify(dir)
		require.NoError(t, err)
		return faults
	}
	require.Empty(t, verify())

	write("h.cuh", "header changed")
	require.Equal(t, []string{"h.cuh has changed"}, verify())
	write("a.ptx", "edited by hand")
	require.Equal(t, []string{"a.ptx has changed", "h.cuh has changed"}, verify())
	require.NoError(t, os.Remove(filepath.Join(dir, "a.cu")))
	write("b.cu", "new")
	require.Equal(t, []string{"a.cu is gone", "a.ptx has changed", "b.cu is in no module", "h.cuh has changed"}, verify())
}

func TestReadNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, File), []byte("{"), 0o644))
	_, err := Read(dir)
	require.ErrorContains(t, err, File)
}
