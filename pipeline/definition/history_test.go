package definition_test

import (
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
)

// TestHistory: each state that ever was in force can be had again, though the
// definitions topic keeps the newest alone.
func TestHistory(t *testing.T) {
	t.Parallel()
	h := setup(t)
	first := h.apply(one+order+hook, definition.Options{Owner: "a"})
	second := h.apply(hook[:len(hook)-4]+"condition: |\n  props[\"launcher_id\"] == 7\n", definition.Options{Owner: "a"})
	third := h.apply(one, definition.Options{Owner: "a", Prune: true})
	history, err := definition.ReadHistory(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	at := func(offset int64) *definition.Snapshot {
		t.Helper()
		s, err := history.At(builtin, offset)
		if err != nil {
			t.Fatal(err)
		}
		if s.Offset != offset || len(s.Broken) != 0 {
			t.Errorf("at %d: complete up to %d, broken %v", offset, s.Offset, s.Broken)
		}
		return s
	}
	e := &pipeline.Event{Type: "launcher.clicked", Environment: pipeline.Production}
	for offset, fires := range map[int64]bool{first.Offset: true, second.Offset: false} {
		s := at(offset)
		why, err := s.Webhooks["hook"].Explain(e, s.Catalog)
		if err != nil || why.Fires != fires {
			t.Errorf("at %d: %+v %v", offset, why, err)
		}
		if _, ok := s.Catalog.EventType("order.paid"); !ok {
			t.Errorf("at %d the event type is missing", offset)
		}
	}
	if s := at(third.Offset); s.Webhooks["hook"] != nil || s.Destinations["one"] == nil {
		t.Errorf("after the removal there are %v", s.Resources)
	}
	if s := at(0); len(s.Resources) != 0 {
		t.Errorf("before the first there are %v", s.Resources)
	}
	k := definition.Key{Kind: definition.KindWebhook, Name: "hook"}
	if !history.Has(k) || history.Has(definition.Key{Kind: k.Kind, Name: "none"}) {
		t.Error("it does not know what was there")
	}
}
