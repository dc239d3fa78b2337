package emu

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	age := func(name string, size int64, old time.Duration) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, nil, 0o644))
		require.NoError(t, os.Truncate(path, size)) // takes no room
		require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(-old)))
	}
	left := func() []string {
		var names []string
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	age("ancient", 1, 8*24*time.Hour)
	age("old", 1<<30, 3*time.Hour)
	age("older", 1<<30, 5*time.Hour)
	age("young", 1, time.Minute)
	prune(dir)
	require.Equal(t, []string{"old", "young"}, left())
	age("fresh", 3<<30, 0)
	prune(dir)
	require.Equal(t, []string{"fresh", "young"}, left())
	require.True(t, touch(filepath.Join(dir, "young")))
	require.False(t, touch(filepath.Join(dir, "absent")))
}
