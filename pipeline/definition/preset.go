package definition

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/mapping"
	"github.com/millrace-io/millrace/pipeline/preset"
)

// fillIn returns the destination with what it leaves out taken from its preset:
// headers and limits one by one, authentication as a whole.
func (d *Destination) fillIn(presets preset.Set, is *issues) *Destination {
	if d.Preset == "" {
		return d
	}
	p := presets[d.Preset]
	if p == nil {
		is.add(at("preset"), "found the unknown preset %q%s; there are %s", d.Preset, expression.DidYouMean(d.Preset, presets.Names()), strings.Join(presets.Names(), ", "))
		return d
	}
	out, err := d.over(p)
	if err != nil {
		is.add(at("preset"), "%v", err)
		return d
	}
	out.Contract, out.Meanings, out.urlSecret = p.Contract, p.Responses, p.URLSecret
	if out.Auth.Type == AuthProperty { // the mapping does without it
		out.Contract = p.Contract.Given(httpsend.PropertyPath(out.Auth.Name))
	}
	out.checkPreset(p, is)
	return out
}

// over is the destination written over that of the preset.
func (d *Destination) over(p *preset.Preset) (*Destination, error) {
	v, err := decodeSpec(Key{KindDestination, d.Name}, p.Destination)
	if err != nil {
		return nil, fmt.Errorf("filling in preset %q: %w", p.Name, err)
	}
	out := v.(*Destination)
	out.giveWay(d)
	if out.Platform == "" {
		out.Platform = p.Platform
	}
	own, err := marshal(d)
	if err != nil {
		return nil, fmt.Errorf("filling in preset %q: %w", p.Name, err)
	}
	if err := json.Unmarshal(own, out); err != nil {
		return nil, fmt.Errorf("filling in preset %q: %w", p.Name, err)
	}
	return out, nil
}

// giveWay drops what of the preset's destination would get mixed up with what
// the definition writes: half of one way to authenticate, the same header in
// other letters.
func (d *Destination) giveWay(own *Destination) {
	replaced := []string{}
	for name := range own.Request.Headers {
		replaced = append(replaced, name)
	}
	if own.Auth.Type != "" {
		d.Auth = Auth{}
		replaced = append(replaced, "Authorization")
	}
	for name := range d.Request.Headers {
		if slices.ContainsFunc(replaced, func(s string) bool { return strings.EqualFold(s, name) }) {
			delete(d.Request.Headers, name)
		}
	}
}

// checkPreset checks that the gaps are filled, and what the preset's platform
// expects of the request beside the body.
func (d *Destination) checkPreset(p *preset.Preset, is *issues) {
	for _, g := range p.Gaps {
		if d.lacks(g.Key) {
			is.add(strings.Split(g.Key, "."), "preset %q needs %s: %s, such as %s", p.Name, g.Key, g.About, g.Example)
		}
	}
	if d.Request.Method == http.MethodGet {
		is.add(at("request", "method"), "found GET with preset %q, whose platform takes a body", p.Name)
	}
	if d.Request.URL == "" {
		return
	}
	if missing := p.MissingQuery(d.Request.URL); len(missing) > 0 {
		is.add(at("request", "url"), "found no parameter %s in the query, which preset %q needs", strings.Join(missing, ", "), p.Name)
	}
}

// lacks says whether a key, such as request.url, is not there.
func (d *Destination) lacks(key string) bool {
	spec, err := marshal(d)
	if err != nil {
		return true
	}
	for name := range strings.SplitSeq(key, ".") {
		var members map[string]json.RawMessage
		if json.Unmarshal(spec, &members) != nil || members[name] == nil {
			return true
		}
		spec = members[name]
	}
	return false
}

// KeepsContract checks a body against the contract of the destination's preset.
// The error is permanent, and names the property and the rule.
func (c *Compiled) KeepsContract(body []byte) error {
	if c.Destination.Contract == nil {
		return nil
	}
	if err := c.Destination.Contract.Check(body); err != nil {
		return pipeline.Permanent(pipeline.ContractBroken, fmt.Errorf("body breaks the contract of preset %q: %w", c.Destination.Preset, err))
	}
	return nil
}

// checkContract refuses a mapping of which no body can keep the contract of the
// destination's preset.
func (c *Compiled) checkContract(scope expression.Scope, is *issues) {
	if c.Destination.Contract == nil || c.Mapping == nil {
		return
	}
	for _, v := range c.Destination.Contract.CheckOutline(outlineOf(c.Mapping, scope)) {
		path := at("properties")
		if v.Entry >= 0 {
			path = append(path, strconv.Itoa(v.Entry))
		}
		is.add(path, "preset %q of destination %q: %v", c.Destination.Preset, c.Destination.Name, v)
	}
}

// outlineOf is a mapping as a contract sees it. One that sends every property
// sends at most those of the catalog, as far as that knows the event types.
func outlineOf(m *mapping.Mapping, scope expression.Scope) *preset.Outline {
	if s := m.Shape(); s != nil {
		out := outline(s, scope)
		out.Entry = -1
		return out
	}
	out := &preset.Outline{Entry: -1, Object: true, Open: scope.Types == nil}
	for _, name := range sortedKeys(scope.Types) {
		if strings.HasSuffix(name, ">") {
			continue // a placeholder, such as answer.<question_id>
		}
		out.Members = append(out.Members, &preset.Outline{Entry: -1, Name: name, Type: jsonType(scope.Types[name])})
	}
	return out
}

func outline(s *mapping.Shape, scope expression.Scope) *preset.Outline {
	out := &preset.Outline{Entry: s.Entry, Name: s.Name, Array: s.Array, Fixed: s.Fixed, Object: !s.Leaf && !s.Array}
	if s.Property != "" {
		out.Type = jsonType(scope.Types[s.Property])
	}
	for i := range s.Children {
		out.Members = append(out.Members, outline(&s.Children[i], scope))
	}
	return out
}

// jsonType is how JSON calls the type of a property; empty where it is unknown.
func jsonType(t pipeline.Type) string {
	if t == pipeline.Date {
		return string(pipeline.String)
	}
	return string(t)
}
