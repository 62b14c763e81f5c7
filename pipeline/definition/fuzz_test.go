package definition_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
)

// FuzzParse reads anything, as YAML and as JSON: it never panics, takes little
// time, points into the file, and what it accepts can be exported and read back.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/errors/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(names, "testdata/heap.yaml") {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, filepath.Ext(name) == ".json")
	}
	f.Add([]byte(awkward), false)
	base, keys := empty(f), newKeys(f).Public()
	f.Fuzz(func(t *testing.T, data []byte, isJSON bool) {
		name := "f.yaml"
		if isJSON {
			name = "f.json"
		}
		start := time.Now()
		set := definition.Parse(definition.File{Name: name, Data: data})
		_, problems := set.Check(base)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%d bytes took %v", len(data), took)
		}
		lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + 1
		for _, p := range problems {
			if p.Line < 0 || p.Line > lines+1 || p.Line > 0 && p.Column < 1 {
				t.Errorf("of %d lines, this is at %d:%d: %s", lines, p.Line, p.Column, p.Message)
			}
		}
		if problems.Err() != nil {
			return
		}
		after := apply(t, base, set, definition.Options{Keys: keys})
		var b bytes.Buffer
		if err := definition.Export(&b, after); err != nil {
			t.Fatal(err)
		}
		if len(set.Definitions) > 0 {
			p, problems := definition.NewPlan(after, parse(b.String()), definition.Options{})
			if err := problems.Err(); err != nil {
				t.Fatalf("%v in the export:\n%s", err, b.String())
			}
			if len(p.Changes) > 0 {
				t.Errorf("the export differs in %v:\n%s", p.Changes[0].Fields, b.String())
			}
		}
	})
}
