package basemodel

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed all:model
var files embed.FS

// ErrMissing says that this build holds no base model.
var ErrMissing = errors.New("this build holds no base model; make one with updraft sft --task countdown and pass it with --model")

// Files returns the model's directory: config.json, model.safetensors and the
// tokenizer's files.
func Files() (fs.FS, error) {
	dir, err := fs.Sub(files, "model")
	if err != nil {
		return nil, err
	}
	if _, err := fs.Stat(dir, "model.safetensors"); err != nil {
		return nil, ErrMissing
	}
	return dir, nil
}

// Write puts the model's files into dir, which is made if it is not there.
func Write(dir string) error {
	from, err := Files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := fs.ReadDir(from, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".md" {
			continue
		}
		data, err := fs.ReadFile(from, e.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
