package updraft

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cmd/updraft/cli"
)

// Commands that the pages show exist, with their flags.
func TestPagesShowRealCommands(t *testing.T) {
	root := cli.New(cli.Options{})
	names := map[string]bool{}
	checked := 0
	for _, page := range pages(t) {
		text := strings.ReplaceAll(read(t, page), "\\\n", " ")
		for line := range strings.Lines(text) {
			for _, m := range regexp.MustCompile("(?:^    |`)(?:\\./|go run \\./cmd/)?updraft ([a-z]+)([^`\n]*)").FindAllStringSubmatch(line, -1) {
				cmd, _, err := root.Find([]string{m[1]})
				require.NoError(t, err, "%s: %s", page, line)
				require.Equal(t, m[1], cmd.Name(), "%s: %s", page, line)
				names[cmd.Name()] = true
				for _, f := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(m[2], -1) {
					found := cmd.Flags().Lookup(f[1]) != nil || cmd.InheritedFlags().Lookup(f[1]) != nil
					require.True(t, found, "%s: updraft %s has no flag --%s", page, m[1], f[1])
					checked++
				}
			}
		}
	}
	require.Greater(t, checked, 10)
	// And each command is in the README.
	for _, cmd := range root.Commands() {
		if cmd.Name() != "help" && cmd.Name() != "completion" {
			require.True(t, names[cmd.Name()], "no page shows updraft %s", cmd.Name())
		}
	}
	// Flags that prose mentions alone belong to some command.
	flags := map[string]bool{}
	for _, cmd := range append(root.Commands(), root) {
		note := func(f *pflag.Flag) { flags[f.Name] = true }
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
	}
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile("`--([a-z-]+)").FindAllStringSubmatch(read(t, page), -1) {
			require.True(t, flags[m[1]], "%s: no command has a flag --%s", page, m[1])
		}
	}
}

// Every gapg.Algorithm of package gapg is a choice of --algorithm.
func TestEveryAlgorithmIsOffered(t *testing.T) {
	root := cli.New(cli.Options{})
	train, _, err := root.Find([]string{"train"})
	require.NoError(t, err)
	methods, names := map[string][]string{}, map[string]string{}
	walkGo(t, func(path string) {
		if !strings.HasPrefix(path, "gapg") || strings.Count(path, "/") != 1 || strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, d := range parse(t, path).Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			recv := f.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			id, ok := recv.(*ast.Ident)
			if !ok {
				continue
			}
			methods[id.Name] = append(methods[id.Name], f.Name.Name)
			if f.Name.Name == "Name" && len(f.Body.List) == 1 {
				if r, ok := f.Body.List[0].(*ast.ReturnStmt); ok && len(r.Results) == 1 {
					if lit, ok := r.Results[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						names[id.Name], _ = strconv.Unquote(lit.Value)
					}
				}
			}
		}
	})
	n := 0
	for typ, m := range methods {
		if slices.Contains(m, "Select") && slices.Contains(m, "Weights") {
			require.NotEmpty(t, names[typ], "gapg.%s: Name does not return a constant", typ)
			require.NoError(t, train.Flags().Set("algorithm", names[typ]), "gapg.%s is not in builtinAlgorithms", typ)
			n++
		}
	}
	require.GreaterOrEqual(t, n, 6)
}

// A Go block of a page is a run of lines of the Example that it names.
func TestPagesShowCompiledExamples(t *testing.T) {
	block := regexp.MustCompile("(?s)<!-- example: (\\S+) -->\n```go\n(.*?)```")
	n := 0
	for _, page := range pages(t) {
		text := read(t, page)
		found := block.FindAllStringSubmatch(text, -1)
		require.Len(t, found, strings.Count(text, "```go"), "%s: name the Example of each Go block", page)
		for _, m := range found {
			require.Contains(t, unindent(read(t, m[1])), unindent(m[2]), "%s: %s has other lines", page, m[1])
			n++
		}
	}
	require.Positive(t, n)
}

func unindent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimLeft(line, "\t"))
	}
	return b.String()
}

// The recipe's page shows the commands of its script, phase by phase.
func TestRecipeShowsItsScript(t *testing.T) {
	plain := func(s string) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(s, "\\\n", " ")), " ")
	}
	page, script := plain(read(t, "docs/recipe.md")), plain(strings.ReplaceAll(read(t, "docs/recipe/mawps.sh"), "\nphase ", "\n;phase "))
	phases := regexp.MustCompile(`;phase ([\w-]+) \S+ ((?:sft|train|eval) [^;&#\[]*(?:\[@\][^;&#\[]*)*)`).FindAllStringSubmatch(script, -1)
	require.Len(t, phases, 8)
	for _, p := range phases {
		require.Contains(t, page, "updraft "+strings.TrimSpace(p[2])+" --output-dir runs/"+p[1])
	}
	for _, m := range regexp.MustCompile(`\b(ask|held|small|learn)=\(([^)]*)\)`).FindAllStringSubmatch(script, -1) {
		require.Contains(t, page, m[0])
	}
}
