package pipeline_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The rules of the house: what may stand where, and who may know whom. They are
// tests so that they can't be forgotten. A rule that has become wrong is changed
// here, with the reason in the commit.

const (
	root   = ".."
	module = "github.com/millrace-io/millrace/"
)

// mayImport says which of our packages each package may import. Only what
// stands here is allowed, and only packages that exist stand here.
var mayImport = map[string][]string{
	"pipeline":            {},
	"schemas":             {},
	"pipeline/secret":     {},
	"pipeline/telemetry":  {"pipeline", "pipeline/secret"},
	"pipeline/expression": {"pipeline"},
	"pipeline/condition":  {"pipeline", "pipeline/expression"},
	"pipeline/mapping":    {"pipeline", "pipeline/expression"},
	"pipeline/event":      {"pipeline", "schemas"},
	"pipeline/httpsend":   {"pipeline", "pipeline/secret"},
	"pipeline/stream":     {"pipeline", "pipeline/secret", "pipeline/event"},
	"pipeline/scalar":     {},
	"pipeline/preset":     {"pipeline/scalar"},
	"pipeline/definition": {
		"pipeline", "pipeline/secret", "pipeline/expression", "pipeline/condition", "pipeline/mapping",
		"pipeline/event", "pipeline/httpsend", "pipeline/preset", "pipeline/scalar", "pipeline/stream", "schemas",
	},
	"pipeline/state":        {"pipeline", "pipeline/event", "pipeline/stream"},
	"pipeline/pipelinetest": {"pipeline"},
	"deploy":                {},
	"services/filter":       deep,
	"services/transform":    deep,
	"services/sink":         deep,
	"services/millrace":     append([]string{"services/filter", "services/transform", "services/sink"}, deep...),
}

// deep are the packages that a service is put together from.
var deep = []string{
	"pipeline", "pipeline/secret", "pipeline/expression", "pipeline/condition", "pipeline/mapping",
	"pipeline/event", "pipeline/httpsend", "pipeline/preset", "pipeline/stream", "pipeline/definition", "pipeline/state", "pipeline/telemetry", "schemas",
}

// inTests says what a package's tests may import beside that.
var inTests = map[string][]string{
	"":                {"pipeline/pipelinetest"}, // every package
	"deploy":          {"pipeline/definition", "pipeline/event"},
	"pipeline/stream": {"schemas"},
}

// owners names the packages that alone may import a foreign module, in tests
// too: it could be replaced by changing them.
var owners = map[string][]string{
	"github.com/twmb/franz-go":   {"pipeline/stream", "pipeline/pipelinetest"},
	"github.com/expr-lang/expr":  {"pipeline/expression"},
	"github.com/alecthomas/kong": {"services/millrace"},
	"go.opentelemetry.io/otel":   {"pipeline/telemetry"},

	"github.com/tink-crypto/tink-go": {"pipeline/secret"},
}

// maxDepth is the longest chain of imports among our packages.
const maxDepth = 5

// topLevel is all that may stand at the top, dotfiles apart.
var topLevel = []string{
	"services", "schemas", "pipeline", "deploy", "docker-compose.yml", "go.mod", "go.sum", "Makefile",
	"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md",
	"bin", "data", // ignored by git
}

// source is one Go file.
type source struct {
	path string // from the root of the repository
	file *ast.File
	set  *token.FileSet
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }
func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

func (s source) imports() (out []string) {
	for _, i := range s.file.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

// sources returns every Go file of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// parsed reads the repository once for all tests.
var parsed = sync.OnceValues(func() ([]source, error) {
	set := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		all = append(all, source{filepath.ToSlash(rel), file, set})
		return err
	})
	return all, err
})

func TestImports(t *testing.T) {
	t.Parallel()
	exists := map[string]bool{}
	for _, s := range sources(t) {
		exists[s.dir()] = true
		allowed, ok := mayImport[s.dir()]
		if !ok {
			t.Errorf("%s: package %s is not in the table of imports", s.path, s.dir())
			continue
		}
		for _, imported := range s.imports() {
			ours, ok := strings.CutPrefix(imported+"/", module)
			ours = strings.TrimSuffix(ours, "/")
			switch {
			case !ok, slices.Contains(allowed, ours):
			case s.isTest() && (ours == s.dir() || slices.Contains(inTests[""], ours) || slices.Contains(inTests[s.dir()], ours)):
			default:
				t.Errorf("%s: %s may not import %s", s.path, s.dir(), ours)
			}
		}
	}
	for dir := range mayImport {
		if !exists[dir] {
			t.Errorf("%s is in the table of imports but does not exist", dir)
		}
	}
}

func TestForeignModulesHaveOwners(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			for prefix, dirs := range owners {
				if strings.HasPrefix(imported, prefix) && !slices.Contains(dirs, s.dir()) {
					t.Errorf("%s: only %s may import %s", s.path, strings.Join(dirs, " and "), prefix)
				}
			}
		}
	}
}

func TestImportDepth(t *testing.T) {
	t.Parallel()
	edges := map[string]map[string]bool{}
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			if ours, ok := strings.CutPrefix(imported, module); ok && !s.isTest() {
				if edges[s.dir()] == nil {
					edges[s.dir()] = map[string]bool{}
				}
				edges[s.dir()][ours] = true
			}
		}
	}
	var longest func(dir string) []string
	longest = func(dir string) []string {
		var best []string
		for _, next := range slices.Sorted(maps.Keys(edges[dir])) {
			if chain := longest(next); len(chain) > len(best) {
				best = chain
			}
		}
		return append([]string{dir}, best...)
	}
	for dir := range edges {
		if chain := longest(dir); len(chain)-1 > maxDepth {
			t.Errorf("%d imports deep, at most %d: %s", len(chain)-1, maxDepth, strings.Join(chain, " -> "))
		}
	}
}

func TestTopLevel(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s may not stand at the top level", e.Name())
		}
	}
}

// TestNoInit: what runs before main can neither be tested nor left out.
func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init()", s.at(f))
			}
		}
	}
}

// TestNoSleepingTests: a test that sleeps is slow or wrong, mostly both. In a
// bubble of synctest.Test time is not real, and sleeping is the way to pass it.
func TestNoSleepingTests(t *testing.T) {
	t.Parallel()
	all := sources(t)
	bubbles := bubbleMakers(all)
	for _, s := range all {
		if !s.isTest() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if isCall(call, "time", "Sleep") {
				t.Errorf("%s: time.Sleep", s.at(call))
			}
			if f, ok := call.Fun.(*ast.Ident); ok && bubbles[s.dir()+"."+f.Name] {
				return false
			}
			return !isCall(call, "synctest", "Test")
		})
	}
}

// bubbleMakers are the functions of tests, by folder and name, that run in a
// bubble what they are given.
func bubbleMakers(all []source) map[string]bool {
	found := map[string]bool{}
	for _, s := range all {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !s.isTest() || f.Recv != nil || strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && isCall(call, "synctest", "Test") {
					found[s.dir()+"."+f.Name.Name] = true
				}
				return true
			})
		}
	}
	return found
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != name {
		return false
	}
	x, ok := f.X.(*ast.Ident)
	return ok && x.Name == pkg
}
