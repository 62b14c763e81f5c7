// Package preset knows what platforms expect: a preset is a data file with a
// destination that has gaps, the platform's contract, and test cases. It reads
// those files and checks bodies against a contract. It knows neither webhooks
// nor HTTP: what a destination's keys mean is the business of who fills it in.
//
// A contract says what would make the platform refuse a call or quietly drop
// it, as far as its public documentation says so. What could not be confirmed
// is no rule but a setting of the destination, with a comment in the file.
package preset

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// Kind is what stands after "kind:" in the file of a preset.
const Kind = "Preset"

// Preset is one platform.
type Preset struct {
	Name        string   // of the file, without its extension
	Platform    string   // as people call it
	Description string   // what a call does there
	Docs        []string // where the platform documents it
	// Destination is a destination as JSON, without kind and name: what a
	// definition leaves out is taken from it.
	Destination json.RawMessage
	Gaps        []Gap    // what a definition must fill in
	Query       []string // parameters that the query of the URL must have
	// URLSecret finds what of the URL is a secret, beside parameters whose names say
	// so: its one group. Nil: nothing.
	URLSecret *regexp.Regexp
	Contract  *Rule // of the body
	Responses Responses
	Tests     []Test
	Example   Example
}

// Gap is a key that the preset can't know.
type Gap struct {
	Key     string `yaml:"key"`     // such as request.url
	About   string `yaml:"about"`   // what to write there
	Example string `yaml:"example"` // must work with the preset's example
}

// Test is a body, and how it breaks the contract: the text of the Violation, or
// nothing if it doesn't.
type Test struct {
	Body   json.RawMessage
	Breaks string
}

// Example is a webhook to begin with: its event types, property mapping and
// tests in the form of a webhook's definition, as JSON.
type Example struct {
	Event, Properties, Tests json.RawMessage
}

// file is a preset as it is written.
type file struct {
	Kind        string    `yaml:"kind"`
	Platform    string    `yaml:"platform"`
	Description string    `yaml:"description"`
	Docs        []string  `yaml:"docs"`
	Destination value     `yaml:"destination"`
	Gaps        []Gap     `yaml:"gaps"`
	Query       []string  `yaml:"query"`
	URLSecret   string    `yaml:"url_secret"`
	Contract    *Rule     `yaml:"contract"`
	Responses   Responses `yaml:"responses"`
	Tests       []struct {
		Body   value  `yaml:"body"`
		Breaks string `yaml:"breaks"`
	} `yaml:"tests"`
	Example struct {
		Event      value `yaml:"event"`
		Properties value `yaml:"properties"`
		Tests      value `yaml:"tests"`
	} `yaml:"example"`
}

// IsPreset says whether a YAML file holds a preset.
func IsPreset(data []byte) bool {
	var head struct {
		Kind string `yaml:"kind"`
	}
	return yaml.Unmarshal(data, &head) == nil && head.Kind == Kind
}

// Parse reads the file of a preset. It does not run its tests.
func Parse(name string, data []byte) (*Preset, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	var f file
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("reading preset %s: %w", name, err)
	}
	if err := d.Decode(&file{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading preset %s: expected one document", name)
	}
	p := &Preset{
		Name: strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), Platform: f.Platform, Description: f.Description, Docs: f.Docs,
		Destination: json.RawMessage(f.Destination), Gaps: f.Gaps, Query: f.Query, Contract: f.Contract, Responses: f.Responses,
		Example: Example{json.RawMessage(f.Example.Event), json.RawMessage(f.Example.Properties), json.RawMessage(f.Example.Tests)},
	}
	for _, t := range f.Tests {
		p.Tests = append(p.Tests, Test{json.RawMessage(t.Body), t.Breaks})
	}
	if err := errors.Join(p.check(f.Kind), p.findURLSecret(f.URLSecret)); err != nil {
		return nil, fmt.Errorf("reading preset %s: %w", name, err)
	}
	return p, nil
}

// findURLSecret compiles what finds the secret of a URL.
func (p *Preset) findURLSecret(text string) (err error) {
	if text == "" {
		return nil
	}
	if p.URLSecret, err = regexp.Compile(text); err != nil {
		return fmt.Errorf("compiling url_secret: %w", err)
	}
	if p.URLSecret.NumSubexp() != 1 {
		return fmt.Errorf("found url_secret with %d groups, expected one, which holds the secret", p.URLSecret.NumSubexp())
	}
	return nil
}

// A preset's name is that of a definition.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// check says what the preset lacks.
func (p *Preset) check(kind string) error {
	switch {
	case kind != Kind:
		return fmt.Errorf("found kind %q, expected %s", kind, Kind)
	case !nameForm.MatchString(p.Name):
		return errors.New("expected the file to be named after the preset, such as heap.yaml")
	case p.Platform == "" || p.Description == "" || len(p.Docs) == 0:
		return errors.New("expected platform, description and docs")
	case p.Destination == nil || p.Contract == nil || len(p.Tests) == 0 || p.Example.Properties == nil:
		return errors.New("expected destination, contract, tests and example")
	}
	if err := p.Contract.prepare(); err != nil {
		return fmt.Errorf("reading the contract: %w", err)
	}
	return p.Responses.each((*Response).check)
}

// RunTests holds each test's body against the contract, and the examples of
// responses against what they are about, and returns what did not turn out as
// expected.
func (p *Preset) RunTests() error {
	var errs []error
	if err := p.Responses.each((*Response).runTest); err != nil {
		errs = append(errs, fmt.Errorf("preset %s: %w", p.Name, err))
	}
	for i, t := range p.Tests {
		got := ""
		if err := p.Contract.Check(t.Body); err != nil {
			got = err.Error()
		}
		if got != t.Breaks {
			errs = append(errs, fmt.Errorf("tests.%d of preset %s: expected %s, got %s", i, p.Name, outcome(t.Breaks), outcome(got)))
		}
	}
	return errors.Join(errs...)
}

func outcome(violation string) string {
	if violation == "" {
		return "a body that keeps the contract"
	}
	return fmt.Sprintf("%q", violation)
}

// MissingQuery returns the parameters that the query of a URL must have and
// has not.
func (p *Preset) MissingQuery(text string) []string {
	_, query, _ := strings.Cut(text, "?")
	var missing []string
	for _, name := range p.Query {
		there := slices.ContainsFunc(strings.Split(query, "&"), func(pair string) bool {
			key, value, _ := strings.Cut(pair, "=")
			return key == url.QueryEscape(name) && value != ""
		})
		if !there {
			missing = append(missing, name)
		}
	}
	return missing
}

// Set is some presets by their names.
type Set map[string]*Preset

// Names returns the names, sorted.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s)) }

//go:embed *.yaml
var files embed.FS

// Builtin returns the presets that Millrace comes with. It must not be changed.
func Builtin() Set { return builtin() }

// builtin panics where a file can't be read: the files are part of the program,
// and a test reads each.
var builtin = sync.OnceValue(func() Set {
	names, err := files.ReadDir(".")
	if err != nil {
		panic(err)
	}
	s := Set{}
	for _, entry := range names {
		data, err := files.ReadFile(entry.Name())
		if err != nil {
			panic(err)
		}
		p, err := Parse(entry.Name(), data)
		if err != nil {
			panic(err)
		}
		s[p.Name] = p
	}
	return s
})
