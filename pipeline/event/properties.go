package event

import (
	"iter"

	"github.com/millrace-io/millrace/pipeline"
)

// properties implements pipeline.Properties over the text they were written in:
// a value is converted when it is read. It holds text of its own, nothing of the
// record, so an event lives as long as someone keeps it.
type properties struct {
	text   string // JSON that the members lie in
	from   int32  // of the properties object; to is 0 where there is none
	to     int32
	whole  bool // text is Event JSON
	fields []field
	index  map[string]int32 // from name to its last field, where there are many

	event    *pipeline.Event
	layout   *layout
	mismatch func(eventType, property string) // may be nil
}

// field is one member of the properties object.
type field struct {
	name    token
	value   token
	counted bool // as a mismatch
}

// fewFields is up to how many fields are searched one by one.
const fewFields = 32

// Get implements pipeline.Properties. An alias gives the property's value too.
func (p *properties) Get(name string) any {
	s := p.layout.known[name]
	if s == nil {
		return p.value(p.last(name), name, nil)
	}
	if v := s.mirror.of(p.event); v != nil {
		return v
	}
	return p.value(p.find(s), s.name(), s)
}

// All implements pipeline.Properties. What mirrors the envelope and is not in
// the event comes last.
func (p *properties) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for i := range p.fields {
			name := p.fields[i].name.string(p.text)
			s := p.layout.known[name]
			var at int
			if s == nil {
				at = p.last(name)
			} else {
				at, name = p.find(s), s.name()
			}
			if at == i && !yield(name, p.Get(name)) {
				return
			}
		}
		for _, s := range p.layout.mirrors {
			if v := s.mirror.of(p.event); v != nil && p.find(s) < 0 && !yield(s.name(), v) {
				return
			}
		}
	}
}

// find returns the field of a property: that under its name, else under an
// alias; -1 if there is none.
func (p *properties) find(s *slot) int {
	for _, name := range s.names {
		if i := p.last(name); i >= 0 {
			return i
		}
	}
	return -1
}

// last returns the last field of that name, or -1: as in most readers of JSON,
// the last of several wins.
func (p *properties) last(name string) int {
	if len(p.fields) > fewFields {
		return p.lookup(name)
	}
	for i := len(p.fields) - 1; i >= 0; i-- {
		if p.fields[i].name.is(p.text, name) {
			return i
		}
	}
	return -1
}

func (p *properties) lookup(name string) int {
	if p.index == nil {
		p.index = map[string]int32{} // of no size yet: the names may all be the same
		for i := range p.fields {
			p.index[p.fields[i].name.string(p.text)] = int32(i)
		}
	}
	if i, ok := p.index[name]; ok {
		return int(i)
	}
	return -1
}

// value returns the value of field i, -1 being none, as the type that the
// catalog gives the property; s is nil if it has no slot.
func (p *properties) value(i int, name string, s *slot) any {
	if i < 0 {
		return nil
	}
	f := &p.fields[i]
	v := f.value.native(p.text)
	var typ pipeline.Type
	if s != nil {
		typ = s.typ
	} else {
		typ = p.layout.typeOf(name)
	}
	v, ok := convert(v, f.value.raw(p.text), typ)
	if !ok {
		p.count(f, name)
	}
	return v
}

// count reports a value that contradicts the catalog, once for an event.
func (p *properties) count(f *field, name string) {
	if p.mismatch != nil && !f.counted {
		f.counted = true
		p.mismatch(p.event.Type, name)
	}
}
