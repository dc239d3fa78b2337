// Package manifest records what each committed PTX file was made from, so that
// a test can tell, without a compiler, when a kernel's source and its PTX have
// parted. It is not a build system: kernels/mkptx compiles.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// File is the manifest's name in the directory of the kernels.
const File = "manifest.json"

// Manifest lists the modules of a directory of kernels.
type Manifest struct {
	// Compiler is the first line of the compiler's --version.
	Compiler string   `json:"compiler"`
	Modules  []Module `json:"modules"`
}

// Module is one compiled PTX file.
type Module struct {
	PTX    string   `json:"ptx"`    // file name, "gemm_bf16.ptx"
	SHA256 string   `json:"sha256"` // of the PTX file
	Source string   `json:"source"` // file name, "gemm_bf16.cu"
	Arch   string   `json:"arch"`   // "sm_80"
	Flags  []string `json:"flags"`  // the compiler's arguments but for the file names
	// Inputs are the source and the headers that it includes, sorted by name.
	Inputs []Input `json:"inputs"`
}

// Input is a source file and the SHA-256 of its contents.
type Input struct {
	Name   string `json:"name"` // slash-separated, relative to the directory
	SHA256 string `json:"sha256"`
}

// Hash returns the hex SHA-256 of b.
func Hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Read reads the manifest of directory dir.
func Read(dir string) (*Manifest, error) {
	name := filepath.Join(dir, File)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// Write writes the manifest of directory dir.
func (m *Manifest) Write(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, File), append(b, '\n'), 0o644)
}

// Verify compares directory dir with its manifest and describes each
// difference: a changed, missing or unlisted source, header or PTX file. None
// means that every PTX file is the one that was made from the sources there.
func (m *Manifest) Verify(dir string) ([]string, error) {
	var faults []string
	listed := map[string]bool{}
	check := func(name, want string) error {
		listed[name] = true
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		switch {
		case os.IsNotExist(err):
			faults = append(faults, name+" is gone")
		case err != nil:
			return err
		case Hash(b) != want:
			faults = append(faults, name+" has changed")
		}
		return nil
	}
	for _, mod := range m.Modules {
		if err := check(mod.PTX, mod.SHA256); err != nil {
			return nil, err
		}
		for _, in := range mod.Inputs {
			if err := check(in.Name, in.SHA256); err != nil {
				return nil, err
			}
		}
	}
	for _, pattern := range []string{"*.cu", "*.cuh", "*.ptx"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if base := path.Base(filepath.ToSlash(name)); !listed[base] {
				faults = append(faults, base+" is in no module")
			}
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults), nil
}
