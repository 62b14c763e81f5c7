package definition

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/preset"
)

// CheckPreset runs the tests of a preset from a file, and checks its destination
// and its example with the gaps filled in as the preset says. It returns how
// many tests there were.
func CheckPreset(ctx context.Context, file string, p *preset.Preset, builtin *event.Catalog) (tests int, problems Problems) {
	if err := p.RunTests(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			problems = append(problems, Problem{File: file, Message: line})
		}
	}
	docs, err := exampleOf(p)
	if err != nil {
		return len(p.Tests), append(problems, Problem{File: file, Message: err.Error()})
	}
	base := NewSnapshot(builtin)
	base.presets = preset.Set{p.Name: p}
	set := Parse(File{Name: "example.json", Data: docs})
	after, found := set.Check(base)
	ran := 0
	if found.Err() == nil {
		ran, found = set.RunTests(ctx, after)
	}
	for _, f := range found { // their places are those of a file that nobody has
		problems = append(problems, Problem{File: file, Message: f.Message, Warning: f.Warning})
	}
	return len(p.Tests) + ran, problems
}

// exampleOf is the preset's example as definitions: a destination that fills
// the gaps, and a webhook.
func exampleOf(p *preset.Preset) ([]byte, error) {
	destination := map[string]any{"kind": KindDestination, "name": p.Name, "preset": p.Name}
	for _, g := range p.Gaps {
		setKey(destination, strings.Split(g.Key, "."), g.Example)
	}
	webhook := map[string]any{
		"kind": KindWebhook, "name": "example", "destination": p.Name,
		"event": p.Example.Event, "properties": p.Example.Properties,
	}
	if p.Example.Tests != nil {
		webhook["tests"] = p.Example.Tests
	}
	docs, err := json.Marshal([]any{destination, webhook})
	if err != nil {
		return nil, fmt.Errorf("writing the example of preset %q: %w", p.Name, err)
	}
	return docs, nil
}

// setKey puts a value where a path of keys leads.
func setKey(m map[string]any, path []string, value string) {
	for _, key := range path[:len(path)-1] {
		next, ok := m[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	m[path[len(path)-1]] = value
}
