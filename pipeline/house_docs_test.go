package pipeline_test

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestExportedNamesAreDocumented wants a comment on every exported name, as
// that is what a reader of the documentation gets to see.
func TestExportedNamesAreDocumented(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		for _, d := range s.file.Decls {
			for name, n := range undocumented(d) {
				t.Errorf("%s: %s has no comment", s.at(n), name)
			}
		}
	}
}

// undocumented returns the exported names of a declaration without a comment.
func undocumented(d ast.Decl) map[string]ast.Node {
	found := map[string]ast.Node{}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && isExportedReceiver(d) && !isWellKnown(d) {
			found[d.Name.Name] = d
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
					found[spec.Name.Name] = spec
				}
				for _, m := range methodsOf(spec) {
					if len(m.Names) == 1 && m.Names[0].IsExported() && m.Doc == nil && m.Comment == nil {
						found[spec.Name.Name+"."+m.Names[0].Name] = m
					}
				}
			case *ast.ValueSpec: // one comment may stand for a group
				if d.Doc == nil && spec.Doc == nil && spec.Comment == nil && d.Tok != token.IMPORT {
					for _, name := range spec.Names {
						if name.IsExported() {
							found[name.Name] = name
						}
					}
				}
			}
		}
	}
	return found
}

// methodsOf returns the methods that want a comment: those of an exported
// interface, unless there is but one, which the interface's comment describes.
func methodsOf(spec *ast.TypeSpec) []*ast.Field {
	if i, ok := spec.Type.(*ast.InterfaceType); ok && spec.Name.IsExported() && len(i.Methods.List) > 1 {
		return i.Methods.List
	}
	return nil
}

func isExportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	base := f.Recv.List[0].Type
	for {
		switch x := base.(type) {
		case *ast.StarExpr:
			base = x.X
		case *ast.IndexExpr:
			base = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// isWellKnown reports whether a method does what its name says everywhere.
func isWellKnown(f *ast.FuncDecl) bool {
	return f.Recv != nil && slices.Contains([]string{"Error", "String", "Unwrap", "Len", "Less", "Swap"}, f.Name.Name)
}

// documents name files of the repository, and commands of the Makefile.
var documents = []string{"README.md", "CONTRIBUTING.md", "pipeline/DESIGN.md"}

// readDocuments calls visit with the text of each document.
func readDocuments(t *testing.T, visit func(name, text string)) {
	t.Helper()
	for _, name := range documents {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		visit(name, string(text))
	}
}

var (
	webAddress = regexp.MustCompile(`\w+://[^\s)>]+`)
	link       = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	slashed    = regexp.MustCompile(`[\w.*-]+(?:/[\w.*-]+)+/?`)
	command    = regexp.MustCompile("(?m)(?:^\\s*|`)make ([a-z][a-z-]*)")
	fileEnding = regexp.MustCompile(`\.(go|md|ya?ml|json|avsc|golden|pom|xml|sh)$`)
)

// TestPathsInDocumentsExist finds documents that name what has moved. A path is
// the target of a link, or words with slashes between them of which the first is
// a folder here or the last has a file's ending.
func TestPathsInDocumentsExist(t *testing.T) {
	t.Parallel()
	readDocuments(t, func(name, text string) {
		text = webAddress.ReplaceAllString(text, "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if !existsFrom(path.Dir(name), m[1]) {
				t.Errorf("%s: link to %s, which does not exist", name, m[1])
			}
		}
		for _, p := range slashed.FindAllString(text, -1) {
			p = strings.TrimRight(p, ".")
			if isPath(name, p) && !existsFrom(path.Dir(name), p) {
				t.Errorf("%s: names %s, which does not exist", name, p)
			}
		}
	})
}

func isPath(document, p string) bool {
	first, _, _ := strings.Cut(p, "/")
	if first == "bin" || first == "data" { // made by the program, ignored by git
		return false
	}
	return existsFrom(path.Dir(document), first) || fileEnding.MatchString(p)
}

// existsFrom reports whether a path, which may be a pattern, exists from a
// document's folder or from the root.
func existsFrom(dir, p string) bool {
	for _, base := range []string{dir, "."} {
		found, err := filepath.Glob(filepath.Join(root, base, p))
		if err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	readDocuments(t, func(name, text string) {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: make %s is no command", name, m[1])
			}
		}
	})
}
