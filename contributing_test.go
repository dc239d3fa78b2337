package updraft

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

// These tests keep CONTRIBUTING.md true: its table is the one that is enforced,
// the files that it and the other pages name are there, and a recipe's step
// that no compiler misses is missed by a test.

var quoted = regexp.MustCompile("`([^`\n]+)`")

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestContributingShowsTheLayers(t *testing.T) {
	_, table, ok := strings.Cut(read(t, "CONTRIBUTING.md"), "<!-- layers -->\n")
	require.True(t, ok)
	table, _, ok = strings.Cut(table, "<!-- /layers -->")
	require.True(t, ok)
	shown := map[string][]string{}
	for _, row := range strings.Split(strings.TrimSpace(table), "\n")[2:] {
		cells := strings.Split(row, "|")
		require.Len(t, cells, 4, row)
		name := quoted.FindStringSubmatch(cells[1])
		require.NotNil(t, name, row)
		require.NotContains(t, shown, name[1])
		shown[name[1]] = []string{}
		for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
			shown[name[1]] = append(shown[name[1]], m[1])
		}
	}
	require.Equal(t, sorted(layers), sorted(shown))
}

func sorted(m map[string][]string) map[string][]string {
	out := map[string][]string{}
	for k, v := range m {
		out[k] = append([]string{}, v...)
		slices.Sort(out[k])
	}
	return out
}

// pages are the texts that name files and packages of the repository.
func pages(t *testing.T) []string {
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, docs)
	return append(docs, "README.md", "CONTRIBUTING.md")
}

// Names between backquotes that look like paths of the repository, and targets
// of links, exist. Files of a run directory are not paths of the repository.
func TestPagesNameRealFiles(t *testing.T) {
	top, err := os.ReadDir(".")
	require.NoError(t, err)
	var roots []string
	for _, e := range top {
		if e.IsDir() {
			roots = append(roots, e.Name()+"/")
		}
	}
	path := regexp.MustCompile(`^[\w.*/@+-]+$`)
	link := regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)|(?:src|srcset)="([^"]+)"`)
	absent := []string{"serve/...", "engine/gpu", "dist/", "runs/", "results/"}
	checked := 0
	for _, page := range pages(t) {
		text := read(t, page)
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			name := strings.TrimPrefix(m[1], "./")
			inTree := slices.ContainsFunc(roots, func(r string) bool { return strings.HasPrefix(name, r) })
			if !inTree || !path.MatchString(name) || slices.ContainsFunc(absent, func(a string) bool { return strings.HasPrefix(name, a) }) {
				continue
			}
			found, err := filepath.Glob(strings.TrimSuffix(name, "/..."))
			require.NoError(t, err)
			require.NotEmpty(t, found, "%s names %s, which is not there", page, name)
			checked++
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := m[1] + m[2]
			if strings.Contains(target, "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(page), target))
			require.NoError(t, err, "%s links to %s", page, target)
			checked++
		}
	}
	require.Greater(t, checked, 20)
}

// Test names that the pages mention exist.
func TestPagesNameRealTests(t *testing.T) {
	tests := map[string]bool{}
	walkGo(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			for _, d := range parse(t, path).Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					tests[f.Name.Name] = true
				}
			}
		}
	})
	name := regexp.MustCompile(`^(Test|Example|Fuzz|Benchmark)[A-Z_]\w*$`)
	checked := 0
	for _, page := range pages(t) {
		for _, m := range quoted.FindAllStringSubmatch(read(t, page), -1) {
			if name.MatchString(m[1]) {
				require.True(t, tests[m[1]], "%s names %s, which is not there", page, m[1])
				checked++
			}
		}
	}
	require.Greater(t, checked, 5)
}

func walkGo(t *testing.T, each func(path string)) {
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (name[0] == '.' || name[0] == '_' || name == "testdata"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go"):
			each(path)
		}
		return nil
	}))
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	require.NoError(t, err)
	return f
}

func TestEveryPackageIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	walkGo(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir, f := filepath.Dir(path), parse(t, path)
		base := filepath.Base(path)
		home := base == "doc.go" || base == f.Name.Name+".go" || f.Name.Name == "main"
		documented[dir] = documented[dir] || home && f.Doc != nil && len(f.Doc.Text()) > 80
	})
	for dir, ok := range documented {
		require.True(t, ok, "package %s has no comment in a doc.go or %s.go (a command: in any file)", dir, filepath.Base(dir))
	}
	require.Greater(t, len(documented), 15)
}

// Every exported function of simd that works on slices is called in its tests.
func TestEveryKernelIsTested(t *testing.T) {
	files, err := filepath.Glob("simd/*.go")
	require.NoError(t, err)
	used := map[string]bool{}
	kernels := map[string]string{}
	for _, path := range files {
		f := parse(t, path)
		if strings.HasSuffix(path, "_test.go") {
			ast.Inspect(f, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					used[id.Name] = true
				}
				return true
			})
			continue
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !fn.Name.IsExported() {
				continue
			}
			for _, p := range fn.Type.Params.List {
				if _, slice := p.Type.(*ast.ArrayType); slice {
					kernels[fn.Name.Name] = path
				}
			}
		}
	}
	for name, path := range kernels {
		require.True(t, used[name], "%s: no test of package simd calls %s", path, name)
	}
	require.Greater(t, len(kernels), 10)
}

// Every method of engine.Backend that computes has a check of its own name in
// the conformance suite.
func TestEveryOperationHasChecks(t *testing.T) {
	// These are checked under other names.
	other := map[string]string{"Alloc": "Memory", "Free": "Memory", "Sync": "Memory", "Close": "Memory", "Wait": "Memory", "Name": "Memory", "Async": "Memory",
		"UploadF32": "Memory", "UploadI32": "Memory", "DownloadF32": "Memory", "DownloadI32": "Memory",
		"Record": "Program", "Run": "Program", "KVWrite": "DecodeAttention", "PrepareWeight": "Linear", "RefreshWeight": "Linear"}
	ops := map[string]bool{}
	for _, c := range enginetest.Checks() {
		ops[c.Op] = true
	}
	backend := reflect.TypeFor[engine.Backend]()
	for i := range backend.NumMethod() {
		name := backend.Method(i).Name
		if o, ok := other[name]; ok {
			name = o
		}
		require.True(t, ops[name], "engine.Backend has %s, the suite has no check of that name: %v", backend.Method(i).Name, ops)
	}
}

// Every model type that a configuration may name has PyTorch's values and is in
// the test that compares with them.
func TestEveryArchitectureHasGoldenValues(t *testing.T) {
	types := regexp.MustCompile(`case "(\w+)":\n\t\treturn "\w+ForCausalLM"`).FindAllStringSubmatch(read(t, "model/config.go"), -1)
	require.NotEmpty(t, types)
	golden := read(t, "model/golden_test.go")
	for _, m := range types {
		require.FileExists(t, "model/testdata/"+m[1]+".safetensors")
		require.Contains(t, golden, `"`+m[1]+`"`, "TestGolden does not list it")
	}
}
