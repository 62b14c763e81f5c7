package event

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/millrace-io/millrace/pipeline"
)

// loadBuiltin reads the catalog once for all tests: it does not change.
var loadBuiltin = sync.OnceValues(BuiltinCatalog)

func builtin(tb testing.TB) *Catalog {
	tb.Helper()
	c, err := loadBuiltin()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// promised is the catalog as the documentation lists it, the operator events
// last; * marks what the event is chosen by.
const promised = `
Smart Walk-Thru
smart_walk_thru.step_played: walk_thru_id*, walk_thru_name, step_id*, step_name
smart_walk_thru.goal_reached: walk_thru_id, walk_thru_name, goal_id, goal_name
smart_walk_thru.started: walk_thru_id, walk_thru_name
smart_walk_thru.failed: walk_thru_id, walk_thru_name, reason
Launcher
launcher.clicked: launcher_id, launcher_name
Onboarding
onboarding.task_completed: task_id*, task_name
ShoutOut
shoutout.action_clicked: shoutout_id, shoutout_name, action_id
shoutout.dismissed: shoutout_id, shoutout_name
shoutout.goal_reached: shoutout_id, shoutout_name, goal_id
shoutout.displayed: shoutout_id, shoutout_name
SmartTip
smart_tip.message_displayed: smart_tip_id, smart_tip_name
smart_tip.validation_error: smart_tip_id, smart_tip_name, rule_id
Survey
survey.question_answered: survey_id*, survey_name, survey_type, question_id*, question_text, answer
survey.dismissed: survey_id, survey_name, survey_type
survey.submitted: survey_id, survey_name, survey_type, nps_score, comment, wants_help, answer.<question_id>
Menu
menu.opened:
menu.searched: query
menu.item_selected: item_id, item_name, query
Shuttle
shuttle.goal_reached: shuttle_id, shuttle_name, goal_id
Resource
resource.clicked: resource_id, resource_name
resource.goal_reached: resource_id, resource_name, goal_id
TeachMe
teach_me.visible: course_id, course_name
teach_me.step_started: course_id, course_name, step_id
teach_me.course_started: course_id, course_name
teach_me.course_completed: course_id, course_name
teach_me.quiz_played: course_id, quiz_id
teach_me.quiz_submitted: course_id, quiz_id, score
teach_me.quiz_passed: course_id, quiz_id, score
teach_me.quiz_failed: course_id, quiz_id, score
Digital Experience Analytics
dxa.click: element_id, element_classes, element_text
dxa.user_input: element_id, element_classes, input_type
dxa.page_view: url, referrer
Millrace
millrace.destination_paused: destination, reason, detail, by
millrace.destination_disabled: destination, reason, detail, by
millrace.destination_breaker_opened: destination, open_until
millrace.destination_dead_letters: destination, lane, count, webhook, delivery, reason, status, detail
`

// outline writes a catalog the way promised is written.
func outline(c *Catalog) string {
	var b strings.Builder
	group := ""
	b.WriteString("\n")
	for _, t := range c.Types() {
		if t.Group != group {
			group = t.Group
			b.WriteString(group + "\n")
		}
		var props []string
		for _, p := range t.Properties {
			name := p.Name
			if slices.Contains(t.ChosenBy, name) {
				name += "*"
			}
			props = append(props, name)
		}
		b.WriteString(strings.TrimSpace(t.Name+": "+strings.Join(props, ", ")) + "\n")
	}
	return b.String()
}

func TestCatalogIsThePromisedOne(t *testing.T) {
	t.Parallel()
	c := builtin(t)
	if got := outline(c); got != promised {
		t.Errorf("got %s\nwant %s", got, promised)
	}
	groups, users, operators := map[string]bool{}, 0, 0
	for _, e := range c.Types() {
		if pipeline.IsOperator(e.Name) {
			operators++
			continue
		}
		groups[e.Group] = true
		users++
	}
	if len(groups) != 11 || users != 32 || operators != 4 {
		t.Errorf("%d groups, %d event types, %d operator events", len(groups), users, operators)
	}
	var common []string
	for _, p := range c.Common() {
		common = append(common, p.Name)
	}
	if got, want := strings.Join(common, " "), "wm.euid wm.env wm.language type created_at sid "+
		"env.browser.name env.browser.version env.os.name "+
		"ctx.title ctx.location.protocol ctx.location.hostname ctx.location.pathname"; got != want {
		t.Errorf("common properties: %s", got)
	}
}

func TestCatalogSpeaksThreeLanguages(t *testing.T) {
	t.Parallel()
	c := builtin(t)
	seen := map[string]string{} // language and display name -> event type
	for _, e := range c.Types() {
		if e.Description == "" {
			t.Errorf("%s has no description", e.Name)
		}
		for language, name := range languages(e.DisplayName) {
			if other := seen[language+name]; name == "" || other != "" {
				t.Errorf("%s is called %q in %s, as is %q", e.Name, name, language, other)
			}
			seen[language+name] = e.Name
		}
		for _, p := range slices.Concat(e.Properties, c.Common()) {
			for language, name := range languages(p.DisplayName) {
				if name == "" {
					t.Errorf("%s of %s has no name in %s", p.Name, e.Name, language)
				}
			}
		}
	}
	e, _ := c.EventType("dxa.user_input")
	if !strings.Contains(e.Description, "password field's value is never collected") {
		t.Errorf("dxa.user_input: %s", e.Description)
	}
}

func languages(t Text) map[string]string {
	return map[string]string{"English": t.EN, "German": t.DE, "French": t.FR}
}

func TestCatalogTypesAndExamples(t *testing.T) {
	t.Parallel()
	integers := []string{"nps_score", "score", "created_at", "wm.env", "count", "status"}
	c := builtin(t)
	for _, e := range c.Types() {
		for _, p := range slices.Concat(e.Properties, c.Common()) {
			want := pipeline.String
			switch {
			case p.Name == "wants_help":
				want = pipeline.Boolean
			case p.Name == "open_until":
				want = pipeline.Date
			case strings.HasSuffix(p.Name, "_id") || slices.Contains(integers, p.Name):
				want = pipeline.Integer
			}
			if p.Type != want {
				t.Errorf("%s of %s is %s, want %s", p.Name, e.Name, p.Type, want)
			}
			if p.Example == nil {
				t.Errorf("%s of %s has no example", p.Name, e.Name)
			}
			if strings.ContainsFunc(p.Name, unicode.IsSpace) {
				t.Errorf("%q holds white space", p.Name)
			}
		}
	}
}

func TestCatalogFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	const good = `
common: []
properties: [{name: a_id, type: integer, display_name: {en: A}, example: 1}]
groups: [{name: G, event_types: [{name: g.x, display_name: {en: X}, description: d, properties: [{name: a_id}]}]}]
`
	if _, err := parseCatalog([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]struct{ from, to, want string }{
		"unknown key":       {"display_name: {en: A}", "displayname: {en: A}", "displayname"},
		"unknown property":  {"properties: [{name: a_id}]", "properties: [{name: b_id}]", "b_id is not described"},
		"unknown type":      {"type: integer", "type: int", `"int" is none of`},
		"example's type":    {"example: 1", "example: one", "example one is no integer"},
		"type twice":        {"groups: [{name: G, event_types: [", "groups: [{name: G, event_types: [{name: g.x}, ", "there twice"},
		"property twice":    {"properties: [{name: a_id}]", "properties: [{name: a_id}, {name: a_id}]", "already"},
		"no name":           {"name: g.x", "name: ''", "is empty"},
		"a second document": {"common: []", "common: []\n---\n", "more than one document"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseCatalog([]byte(strings.Replace(good, change.from, change.to, 1)))
			if err == nil || !strings.Contains(err.Error(), change.want) {
				t.Errorf("got %v, want %q", err, change.want)
			}
		})
	}
}

func TestWithAddsTypesAndProperties(t *testing.T) {
	t.Parallel()
	before := builtin(t)
	c, err := before.With([]EventType{
		{Name: "crm.deal_won", Group: "CRM", Properties: []Property{
			{Name: "deal_id", Type: pipeline.Integer, Example: 5, Aliases: []string{"dealId"}},
			{Name: "won_on", Type: pipeline.Date},
		}},
		{Name: "menu.opened", Properties: []Property{{Name: "position", Type: pipeline.String}}, ChosenBy: []string{"position"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := c.EventType("crm.deal_won"); !ok || len(c.Types()) != 37 || e.Properties[0].Example != int64(5) {
		t.Errorf("crm.deal_won: %v", e)
	}
	if e, _ := c.EventType("menu.opened"); len(e.Properties) != 1 || e.Group != "Menu" || e.ChosenBy[0] != "position" {
		t.Errorf("menu.opened: %v", e)
	}
	if e, _ := before.EventType("menu.opened"); len(e.Properties) != 0 || len(before.Types()) != 36 {
		t.Error("the catalog before has changed")
	}
}

func TestWithRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prop Property
		want string
	}{
		"a common property":       {Property{Name: "wm.env", Type: pipeline.String}, "wm.env is the name or an alias of wm.env already"},
		"the type's own property": {Property{Name: "launcher_id", Type: pipeline.Integer}, "launcher_id is the name"},
		"an alias in use":         {Property{Name: "x", Type: pipeline.String, Aliases: []string{"wm.euId"}}, "wm.euId is the name or an alias of wm.euid"},
		"an unknown type":         {Property{Name: "x", Type: "float"}, `"float" is none of`},
		"no name":                 {Property{Type: pipeline.String}, "no name"},
		"an example of no type":   {Property{Name: "x", Type: pipeline.String, Example: []string{"a"}}, "example [a] is no string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := builtin(t).With([]EventType{{Name: "launcher.clicked", Properties: []Property{tt.prop}}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestScope(t *testing.T) {
	t.Parallel()
	c, err := builtin(t).With([]EventType{{Name: "odd", Properties: []Property{{Name: "survey_id", Type: pipeline.String}}}})
	if err != nil {
		t.Fatal(err)
	}
	props, aliases, err := c.Scope("survey.submitted", "survey.dismissed")
	if err != nil || props["answer.<question_id>"] != pipeline.String || props["survey_id"] != pipeline.Integer ||
		props["wm.euid"] != pipeline.String || len(props) != 13+7 {
		t.Errorf("got %v, %v", props, err)
	}
	if !maps.Equal(aliases, map[string]string{"wm.euId": "wm.euid", "sId": "sid"}) {
		t.Errorf("aliases: %v", aliases)
	}
	if props, aliases, err := c.Scope("survey.submitted", "outside"); props != nil || len(aliases) != 2 || err != nil {
		t.Errorf("outside the catalog: %v, %v, %v", props, aliases, err)
	}
	if _, _, err := c.Scope("survey.submitted", "odd"); err == nil ||
		err.Error() != "property survey_id is integer in survey.submitted and string in odd" {
		t.Errorf("got %v", err)
	}
}
