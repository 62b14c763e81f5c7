package definition_test

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
)

const (
	one  = "kind: Destination\nname: one\nrequest: {url: https://one.example}\n---\n"
	two  = "kind: Destination\nname: two\nrequest: {url: https://two.example}\n---\n"
	hook = "kind: Webhook\nname: hook\nevent: launcher.clicked\ndestination: one\nproperties:\n" +
		"  - from: launcher_id\n  - {name: a, value: 1}\n---\n"
	order = "kind: EventType\nname: order.paid\nproperties: [{name: total, type: number}]\n---\n"
)

// inForce is the snapshot after a text was applied by an owner.
func inForce(t testing.TB, text, owner string) *definition.Snapshot {
	t.Helper()
	return apply(t, empty(t), parse(text), definition.Options{Owner: owner})
}

// apply makes a plan and gives the snapshot after what it writes.
func apply(t testing.TB, base *definition.Snapshot, set *definition.Set, o definition.Options) *definition.Snapshot {
	t.Helper()
	p, problems := definition.NewPlan(base, set, o)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return base.With(written(t, p, base.Offset))
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, text string
		options      definition.Options
		want         string // the plan, or the problems
	}{
		"add in order": {
			text: hook + one + order,
			want: "+ EventType order.paid\n+ Destination one\n+ Webhook hook\n3 to add, 0 to change, 0 to remove, 0 unchanged\n",
		},
		"nothing changes": {
			before: one + hook, text: strings.Replace(hook, "{name: a, value: 1}", "{value: 0x1, name: \"a\"}", 1) + one,
			want: "0 to add, 0 to change, 0 to remove, 2 unchanged\n",
		},
		"a change names its fields": {
			before: one + hook,
			text: one + "kind: Webhook\nname: hook\nevent: launcher.clicked\ndestination: one\nstatus: paused\nproperties:\n" +
				"  - from: launcher_name\n  - from: launcher_id\n  - {name: a, value: 2}\n",
			want: "~ Webhook hook\n" +
				"    properties.0.from: \"launcher_id\" → \"launcher_name\"\n" +
				"    properties.1.from: (none) → \"launcher_id\"\n" +
				"    properties.1.name: \"a\" → (none)\n" +
				"    properties.1.value: 1 → (none)\n" +
				"    properties.2: (none) → {\"name\":\"a\",\"value\":2}\n" +
				"    status: (none) → \"paused\"\n" +
				"0 to add, 1 to change, 0 to remove, 1 unchanged\n",
		},
		"an entry put in front": {
			before: one + hook,
			text:   one + strings.Replace(hook, "properties:\n", "properties:\n  - from: launcher_name\n", 1),
			want: "~ Webhook hook\n    properties.0: (none) → {\"from\":\"launcher_name\"}\n" +
				"0 to add, 1 to change, 0 to remove, 1 unchanged\n",
		},
		"without prune nothing is removed": {
			before: one + hook, text: one,
			want: "0 to add, 0 to change, 0 to remove, 1 unchanged\n",
		},
		"prune removes webhooks first": {
			before: order + one + two + hook, text: two, options: definition.Options{Prune: true},
			want: "- Webhook hook\n- Destination one\n- EventType order.paid\n0 to add, 0 to change, 3 to remove, 1 unchanged\n",
		},
		"prune leaves other owners alone": {
			before: one + hook, text: two, options: definition.Options{Owner: "b", Prune: true},
			want: "+ Destination two\n1 to add, 0 to change, 0 to remove, 0 unchanged\n",
		},
		"another owner's is refused": {
			before: one, text: one, options: definition.Options{Owner: "b"},
			want: `f.yaml:2:7: Destination/one belongs to "a", not to "b"; with force it is taken over`,
		},
		"force takes over": {
			before: one, text: one, options: definition.Options{Owner: "b", Force: true},
			want: "~ Destination one\n    owner: \"a\" → \"b\"\n0 to add, 1 to change, 0 to remove, 0 unchanged\n",
		},
		"a destination in use stays": {
			before: one + hook, options: definition.Options{Remove: []definition.Key{{Kind: definition.KindDestination, Name: "one"}}},
			want: "Destination/one can't be removed: Webhook/hook uses it",
		},
		"a destination pruned with its last webhook elsewhere": {
			before: one + hook, text: two + strings.Replace(hook, "destination: one", "destination: two", 1), options: definition.Options{Prune: true},
			want: "+ Destination two\n~ Webhook hook\n    destination: \"one\" → \"two\"\n- Destination one\n" +
				"1 to add, 1 to change, 1 to remove, 0 unchanged\n",
		},
		"removing what is not there": {
			options: definition.Options{Remove: []definition.Key{{Kind: definition.KindWebhook, Name: "x"}}},
			want:    "Webhook/x is not there, so it can't be removed",
		},
		"removing another owner's": {
			before: one, options: definition.Options{Owner: "b", Remove: []definition.Key{{Kind: definition.KindDestination, Name: "one"}}},
			want: `Destination/one belongs to "a", not to "b"; with force it is removed`,
		},
		"applying and removing": {
			before: one, text: one, options: definition.Options{Remove: []definition.Key{{Kind: definition.KindDestination, Name: "one"}}},
			want: "Destination/one is to be applied and to be removed",
		},
		"a destination that is there already may be used": {
			before: one, text: hook,
			want: "+ Webhook hook\n1 to add, 0 to change, 0 to remove, 0 unchanged\n",
		},
		"what is in force must go on working": {
			before: one + "kind: Webhook\nname: deep\nevent: launcher.clicked\ndestination: one\nproperties: [{name: /a/b, value: 1}]\n",
			text:   "kind: Destination\nname: one\nrequest: {method: GET, url: https://one.example}\n",
			want: `f.yaml:1:1: Webhook/deep is in force and would not work any more: properties: destination "one" is called with GET: ` +
				"properties[0] is nested, which a query string can't be",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.options.Owner == "" {
				c.options.Owner = "a"
			}
			p, problems := definition.NewPlan(inForce(t, c.before, "a"), parse(c.text), c.options)
			got := ""
			if err := problems.Err(); err != nil {
				got = err.Error()
			} else {
				var b strings.Builder
				if err := p.Print(&b); err != nil {
					t.Fatal(err)
				}
				got = b.String()
			}
			if got != c.want {
				t.Errorf("got:\n%s\nexpected:\n%s", got, c.want)
			}
		})
	}
}

// TestPrefixesOfAPlanAreValid applies a large plan record by record, as a reader
// may meet it: no prefix breaks anything.
func TestPrefixesOfAPlanAreValid(t *testing.T) {
	t.Parallel()
	base := inForce(t, order+one+hook, "a")
	moved := strings.Replace(hook, "destination: one", "destination: two", 1)
	p, problems := definition.NewPlan(base, parse(two+moved), definition.Options{Owner: "a", Prune: true})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	records, _ := written(t, p, base.Offset)
	for i := range records {
		s := base.With(records[:i+1], base.Offset+int64(i))
		if len(s.Broken) > 0 {
			t.Errorf("after %d of %d records these are broken: %v", i+1, len(records), s.Broken)
		}
	}
	if got := base.With(records, 9).Webhooks["hook"].Destination.Request.URL; got != "https://two.example" {
		t.Errorf("the webhook goes to %s in the end", got)
	}
}

// written are the records that a plan writes to the definitions, and the offset
// after them.
func written(t testing.TB, p *definition.Plan, next int64) ([]pipeline.Record, int64) {
	t.Helper()
	all, err := definition.PlanRecords(p, pipeline.DefaultPrefix, next)
	if err != nil {
		t.Fatal(err)
	}
	return all[:len(all)/2], next + int64(len(all)/2)
}
