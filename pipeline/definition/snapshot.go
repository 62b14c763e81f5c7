package definition

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/preset"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// Snapshot is all that is in force at one offset of the definitions topic,
// compiled. It never changes: With makes another one, which shares what is the
// same. Its maps must not be written to.
type Snapshot struct {
	Offset       int64                   // complete up to here
	Catalog      *event.Catalog          // with the event types of users
	Webhooks     map[string]*Compiled    // paused ones too
	Destinations map[string]*Destination // with the defaults filled in
	Resources    map[Key]*Resource       // as they were written
	Starts       map[string]Start        // by event topic
	Keys         *secret.PublicKeys      // that seal secrets; nil: no sink has published any
	// Broken has what is in the topic but can't be used by this version, and
	// why. Such a webhook is not removed: its deliveries wait.
	Broken map[Key]error

	keysErr error // why Keys can't be read, and must not be replaced

	builtin    *event.Catalog
	presets    preset.Set
	eventTypes map[string]event.EventType
	filterSet  func() *condition.Set
	pausedSet  func() *condition.Set
}

// NewSnapshot returns the empty snapshot over a catalog, at offset 0.
func NewSnapshot(builtin *event.Catalog) *Snapshot {
	s := &Snapshot{
		Catalog: builtin, Webhooks: map[string]*Compiled{}, Destinations: map[string]*Destination{}, Resources: map[Key]*Resource{},
		Starts: map[string]Start{}, Broken: map[Key]error{}, builtin: builtin, presets: preset.Builtin(), eventTypes: map[string]event.EventType{},
	}
	s.prepareSets()
	return s
}

// prepareSets makes the sets of conditions on the first use of each.
func (s *Snapshot) prepareSets() {
	s.filterSet = sync.OnceValue(func() *condition.Set { return s.conditions(Active) })
	s.pausedSet = sync.OnceValue(func() *condition.Set { return s.conditions(Paused) })
}

// FilterSet is the conditions of the webhooks that are at work.
func (s *Snapshot) FilterSet() *condition.Set { return s.filterSet() }

// PausedSet is the conditions of the paused webhooks: what they miss is counted.
func (s *Snapshot) PausedSet() *condition.Set { return s.pausedSet() }

func (s *Snapshot) conditions(status Status) *condition.Set {
	var rules []condition.Rule
	for _, name := range slices.Sorted(maps.Keys(s.Webhooks)) {
		c := s.Webhooks[name]
		if w := c.Webhook; w.Status == status {
			rules = append(rules, condition.Rule{Webhook: name, Types: w.Event, System: w.System, Environment: w.Environment, Condition: c.Condition})
		}
	}
	return condition.NewSet(rules)
}

// Lanes returns the lanes that destinations are on, sorted; the default lane is
// always among them.
func (s *Snapshot) Lanes() []string {
	lanes := map[string]bool{pipeline.DefaultLane: true}
	for _, d := range s.Destinations {
		lanes[d.Lane] = true
	}
	return slices.Sorted(maps.Keys(lanes))
}

// With returns the snapshot after some records of the definitions topic, in
// their order; a record without a value removes. next is the offset that it is
// then complete up to. Only what the records touch is compiled.
func (s *Snapshot) With(records []pipeline.Record, next int64) *Snapshot {
	changes := map[Key]change{}
	out := s.copy()
	out.Offset = next
	for i := range records {
		out.read(&records[i], changes)
	}
	out.apply(changes)
	return out
}

// change is a new state of a definition; no resource means removed.
type change struct {
	resource *Resource
	err      error // it can't be read
}

func (s *Snapshot) copy() *Snapshot {
	out := *s
	out.Webhooks, out.Destinations = maps.Clone(s.Webhooks), maps.Clone(s.Destinations)
	out.Resources, out.Broken = maps.Clone(s.Resources), maps.Clone(s.Broken)
	out.Starts, out.eventTypes = maps.Clone(s.Starts), maps.Clone(s.eventTypes)
	out.prepareSets()
	return &out
}

// read takes one record. Keys that this version does not know (drafts) are not
// in force and left alone.
func (s *Snapshot) read(r *pipeline.Record, changes map[Key]change) {
	if topic, ok := strings.CutPrefix(string(r.Key), startPrefix); ok {
		start, there, err := ParseStart(r)
		if err == nil && there {
			s.Starts[topic] = start
		} else {
			delete(s.Starts, topic) // a filter without a start says so
		}
		return
	}
	if string(r.Key) == publishedKey {
		s.Keys, s.keysErr = parsePublished(r.Value)
		return
	}
	k, err := ParseKey(string(r.Key))
	if err != nil {
		return
	}
	if r.Value == nil {
		changes[k] = change{}
		return
	}
	resource, err := decodeResource(k, r.Value)
	changes[k] = change{resource, err}
}

// apply takes the changes in and compiles what they touch: event types first,
// then destinations, then the webhooks over either. It returns what is wrong
// with what it compiled.
func (s *Snapshot) apply(changes map[Key]change) map[Key]issues {
	found := map[Key]issues{}
	touched := touch{types: map[string]bool{}, destinations: map[string]bool{}, webhooks: map[string]bool{}}
	for _, k := range slices.SortedFunc(maps.Keys(changes), compareKeys) {
		s.take(k, changes[k])
		switch k.Kind {
		case KindEventType:
			touched.types[k.Name] = true
		case KindDestination:
			touched.destinations[k.Name] = true
			s.takeDestination(k, found)
		case KindWebhook:
			touched.webhooks[k.Name] = true
		}
	}
	if len(touched.types) > 0 {
		s.takeEventTypes(touched.types, found)
	}
	s.takeWebhooks(s.webhooksTouched(touched), found)
	return found
}

// touch names what a change touches.
type touch struct{ types, destinations, webhooks map[string]bool }

// take puts the resource of a change in its place.
func (s *Snapshot) take(k Key, c change) {
	delete(s.Broken, k)
	if c.resource == nil {
		delete(s.Resources, k)
	} else {
		s.Resources[k] = c.resource
	}
	if c.err != nil {
		s.Broken[k] = c.err
	}
}

// webhooksTouched are the webhooks to compile: changed ones, those over event
// types and destinations that changed, and broken ones, which may work now.
func (s *Snapshot) webhooksTouched(t touch) []string {
	names := maps.Clone(t.webhooks)
	for name, c := range s.Webhooks {
		if t.destinations[c.Webhook.Destination] || slices.ContainsFunc(c.Webhook.Event, func(e string) bool { return t.types[e] }) {
			names[name] = true
		}
	}
	for k := range s.Broken {
		if k.Kind == KindWebhook && len(t.types)+len(t.destinations) > 0 {
			names[k.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// decode reads the resource of a key: nil where there is none, or none that can
// be read, which it puts down.
func (s *Snapshot) decode(k Key) any {
	r := s.Resources[k]
	if r == nil {
		return nil
	}
	v, err := decodeSpec(k, r.Spec)
	if err != nil {
		s.Broken[k] = err
		return nil
	}
	return v
}

func (s *Snapshot) takeDestination(k Key, found map[Key]issues) {
	delete(s.Destinations, k.Name)
	v, ok := s.decode(k).(*Destination)
	if !ok {
		return
	}
	d, is := compileDestination(v, s.presets)
	found[k] = is
	if d == nil {
		s.Broken[k] = is.err()
		return
	}
	s.Destinations[k.Name] = d
}

// takeEventTypes makes the catalog anew. An event type that does not fit the
// ones before it, by name, is left out; names grows by those whose fate changes.
func (s *Snapshot) takeEventTypes(names map[string]bool, found map[Key]issues) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		s.takeEventType(Key{KindEventType, name}, found)
	}
	var all []event.EventType
	for _, name := range slices.Sorted(maps.Keys(s.eventTypes)) {
		k := Key{KindEventType, name}
		if s.Broken[k] != nil {
			names[name] = true
		}
		delete(s.Broken, k)
		all = append(all, s.eventTypes[name])
	}
	if c, err := s.builtin.With(all); err == nil {
		s.Catalog = c
		return
	}
	s.Catalog = s.builtin
	for _, t := range all { // one by one, to find out which are at fault
		k := Key{KindEventType, t.Name}
		c, err := s.Catalog.With([]event.EventType{t})
		if err != nil {
			s.Broken[k] = err
			names[t.Name] = true
			found[k] = append(found[k], issue{message: err.Error()})
			continue
		}
		s.Catalog = c
	}
}

func (s *Snapshot) takeEventType(k Key, found map[Key]issues) {
	delete(s.eventTypes, k.Name)
	v, ok := s.decode(k).(*EventType)
	if !ok {
		return
	}
	t, is := compileEventType(v)
	found[k] = is
	if err := is.err(); err != nil {
		s.Broken[k] = err
		return
	}
	s.eventTypes[k.Name] = t
}

// takeWebhooks compiles webhooks on all processors: at a start there are many.
func (s *Snapshot) takeWebhooks(names []string, found map[Key]issues) {
	results := make([]webhookResult, len(names))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(names); i = int(next.Add(1)) - 1 {
				results[i] = s.compileWebhook(Key{KindWebhook, names[i]})
			}
		})
	}
	workers.Wait()
	for i, name := range names {
		s.takeWebhook(Key{KindWebhook, name}, results[i], found)
	}
}

// webhookResult is what compiling a webhook gave; err is why it can't be in
// force.
type webhookResult struct {
	compiled *Compiled
	issues   issues
	err      error
}

func (s *Snapshot) compileWebhook(k Key) (out webhookResult) {
	r := s.Resources[k]
	if r == nil {
		return out
	}
	v, err := decodeSpec(k, r.Spec)
	if err != nil {
		out.err = err
		return out
	}
	out.compiled, out.issues = compileWebhook(v.(*Webhook), s.Catalog, s.Destinations)
	for i := range out.issues {
		lacks := out.issues[i].lacks
		if broken := s.Broken[lacks]; broken != nil && lacks.Kind == KindDestination {
			out.issues[i].message = fmt.Sprintf("destination %q can't be used: %v", lacks.Name, broken)
		}
	}
	out.err = out.issues.err()
	return out
}

func (s *Snapshot) takeWebhook(k Key, r webhookResult, found map[Key]issues) {
	delete(s.Webhooks, k.Name)
	if s.Resources[k] == nil {
		return // removed, or it could not be read
	}
	delete(s.Broken, k)
	found[k] = r.issues
	if r.err != nil {
		s.Broken[k] = r.err
		return
	}
	s.Webhooks[k.Name] = r.compiled
}

// compareKeys orders keys by the kind that others refer to, then by name.
func compareKeys(a, b Key) int {
	order := []Kind{KindEventType, KindDestination, KindWebhook}
	return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Name, b.Name))
}
