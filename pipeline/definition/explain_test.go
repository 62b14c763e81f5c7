package definition_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// hooks are webhooks of every kind over two event types.
var hooks = map[string]string{
	"always":  "event: survey.submitted",
	"both":    "event: [survey.submitted, survey.dismissed]\ncondition: |\n  props[\"survey_id\"] == 640 and props[\"survey_type\"] != \"custom\"",
	"qa":      "event: survey.submitted\nenvironment: qa\ncondition: |\n  props[\"nps_score\"] > 6",
	"shop":    "event: survey.submitted\nsystem: shop\ncondition: |\n  not props[\"wants_help\"]",
	"rows":    "event: survey.submitted\nconditions:\n  - {property: nps_score, operator: less_or_equal, value: 6}\n  - {property: comment, operator: contains, value: help}\n  - {join: or, property: wants_help, operator: is_set}",
	"failing": "event: survey.submitted\ncondition: |\n  props[\"survey_id\"] == 640 or len(props[\"comment\"]) / props[\"nps_score\"] > 1",
	"alias":   "event: survey.dismissed\ncondition: |\n  props[\"sId\"] == \"s-1\" or event.user == \"u-1\"",
}

func withHooks(t testing.TB) *definition.Snapshot {
	t.Helper()
	text := one
	for name, spec := range hooks {
		text += "kind: Webhook\nname: " + name + "\ndestination: one\n" + spec + "\n---\n"
	}
	return inForce(t, text, "a")
}

// surveyEvent is a random event, with properties of any type or none.
func surveyEvent(t testing.TB, r *rand.Rand, s *definition.Snapshot) *pipeline.Event {
	t.Helper()
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	text := `{"id":"1","type":"` + pick("survey.submitted", "survey.dismissed", "menu.opened") + `"` +
		pick("", `,"system":"shop"`, `,"system":"other"`) + pick("", "", `,"environment":"qa"`) + pick("", `,"user":"u-1"`) +
		pick("", `,"session":"s-1"`) + `,"properties":{"wm.language":"en"`
	for _, name := range []string{"survey_id", "survey_type", "nps_score", "wants_help", "comment"} {
		text += pick("", `,"`+name+`":`+pick("640", "0", "9", `"640"`, `"nps"`, `"help me"`, "true", "false", "null", "2.5", "123456789012345678901"))
	}
	record := pipeline.Record{Topic: "t", Time: time.Now(), Value: []byte(text + "}}")}
	e, err := event.NewDecoder(nil, "").Decode(t.Context(), &record, s.Catalog)
	if err != nil {
		t.Fatalf("%s: %v", record.Value, err)
	}
	return e
}

// TestExplainAgreesWithTheFilter: on random pairs of an event and a webhook, what
// is explained is what the filter does.
func TestExplainAgreesWithTheFilter(t *testing.T) {
	t.Parallel()
	s := withHooks(t)
	r := rand.New(rand.NewPCG(1, 2))
	fired, failed := 0, 0
	for range 10_000 / len(hooks) {
		e := surveyEvent(t, r, s)
		var fires, fails []string
		s.FilterSet().Match(e, func(w string) { fires = append(fires, w) }, func(w string, _ error) { fails = append(fails, w) })
		for name := range hooks {
			why, err := s.Webhooks[name].Explain(e, s.Catalog)
			if err != nil {
				t.Fatal(err)
			}
			if why.Fires != slices.Contains(fires, name) || why.Why == "" {
				t.Fatalf("%s: the filter fires %v, the explanation is %+v", name, fires, why)
			}
			failed := strings.HasPrefix(why.Why, "its condition failed")
			if failed != slices.Contains(fails, name) || failed && why.Condition.Answer != expression.Failed {
				t.Fatalf("%s: it fails for %v, the explanation is %+v", name, fails, why)
			}
		}
		fired, failed = fired+len(fires), failed+len(fails)
	}
	if fired < 500 || failed < 50 {
		t.Errorf("only %d fired and %d failed", fired, failed)
	}
}

func TestExplainRowsAsRows(t *testing.T) {
	t.Parallel()
	s := withHooks(t)
	e := &pipeline.Event{Type: "survey.submitted", Environment: pipeline.QA}
	why, err := s.Webhooks["rows"].Explain(e, s.Catalog)
	if err != nil || why.Fires || !strings.Contains(why.Why, "environment is qa") {
		t.Fatalf("%+v %v", why, err)
	}
	if got := why.Condition.Parts[0].Parts[0].Text; got != "nps_score less_or_equal 6" {
		t.Errorf("the first row is shown as %s", got)
	}
}

func TestSuggestOfWebhook(t *testing.T) {
	t.Parallel()
	s := withHooks(t)
	ways, err := s.Webhooks["rows"].Suggest(s.Catalog)
	if err != nil || len(ways) == 0 || ways[0].Properties["nps_score"] != int64(6) {
		t.Errorf("suggested is %+v (%v)", ways, err)
	}
	if ways, err := s.Webhooks["always"].Suggest(s.Catalog); err != nil || ways != nil {
		t.Errorf("without a condition, %+v is suggested (%v)", ways, err)
	}
}
