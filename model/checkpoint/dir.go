package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Suffixes of the names that WriteDir uses beside its destination.
const (
	tmpMark = ".tmp-"
	oldMark = ".old-"
)

// WriteDir replaces the directory dst by what fill writes into a temporary
// directory beside it. Everything is flushed to the disk before the names
// change. A crash leaves dst as it was, or as it will be, or, in the instant
// between two renames where dst existed before, the old one under a name that
// RecoverDir restores.
func WriteDir(dst string, fill func(tmp string) error) error {
	dst = filepath.Clean(dst)
	parent, base := filepath.Split(dst)
	if parent == "" {
		parent = "."
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "."+base+tmpMark)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return fmt.Errorf("checkpoint: %s: %w", dst, err)
	}
	old := ""
	if _, err := os.Lstat(dst); err == nil {
		old = filepath.Join(parent, "."+base+oldMark+strings.TrimPrefix(filepath.Base(tmp), "."+base+tmpMark))
		if err := os.Rename(dst, old); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	if err := os.Rename(tmp, dst); err != nil {
		if old != "" {
			os.Rename(old, dst)
		}
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := syncDir(parent); err != nil {
		return err
	}
	if old != "" {
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("checkpoint: the previous %s: %w", dst, err)
		}
	}
	return nil
}

// RecoverDir puts things right after a crash inside WriteDir(dst): it restores
// the old directory where the new one has not taken its place, and removes
// left-over temporary ones.
func RecoverDir(dst string) error {
	dst = filepath.Clean(dst)
	parent, base := filepath.Split(dst)
	if parent == "" {
		parent = "."
	}
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, missing := os.Lstat(dst)
	for _, e := range entries {
		name := filepath.Join(parent, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."+base+oldMark):
			if errors.Is(missing, fs.ErrNotExist) {
				if err := os.Rename(name, dst); err != nil {
					return fmt.Errorf("checkpoint: %w", err)
				}
				missing = nil
				continue
			}
			err = os.RemoveAll(name)
		case strings.HasPrefix(e.Name(), "."+base+tmpMark):
			err = os.RemoveAll(name)
		}
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	return nil
}

// syncTree flushes every file and directory under root.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return syncDir(path)
		case !e.Type().IsRegular():
			return nil
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = f.Sync()
		return errors.Join(err, f.Close())
	})
}

// syncDir flushes a directory's entries. Windows has no such call, and does
// not need one after a rename.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %s: %w", dir, err)
	}
	return nil
}
