package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/state"
)

// What a destination's status may be besides those of its state.
const (
	statusBroken = "broken"       // the definition can't be used
	statusOpen   = "breaker open" // it fails, and is given a rest
)

// byDefinition is who paused what its definition pauses.
const byDefinition = "definition"

// standing is how a destination stands.
type standing struct {
	Name        string    `json:"name"`
	Platform    string    `json:"platform,omitempty"`
	Lane        string    `json:"lane,omitempty"`
	Status      string    `json:"status"` // active, paused, disabled, breaker open, broken
	By          string    `json:"by,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Why         string    `json:"why,omitempty"`
	Since       time.Time `json:"since,omitzero"`
	OpenUntil   time.Time `json:"breaker_open_until,omitzero"`
	Instance    string    `json:"breaker_of,omitempty"` // the sink whose breaker that is
	RateBefore  float64   `json:"rate_before,omitempty"`
	Call        string    `json:"call,omitempty"`
	Webhooks    []string  `json:"webhooks"`
	ToDo        string    `json:"to_do,omitempty"`
	Revision    int64     `json:"revision"`
	Owner       string    `json:"owner,omitempty"`
	Description string    `json:"description,omitempty"`
}

// standingOf puts together what definition and state say of a destination.
func standingOf(defs *definition.Snapshot, s state.State, now time.Time) standing {
	key := definition.Key{Kind: definition.KindDestination, Name: s.Destination}
	res := defs.Resources[key]
	if res != nil {
		s = s.Of(res.Created)
	}
	r := standing{Name: s.Destination, Status: string(s.Status), RateBefore: s.Rate, Webhooks: webhooksTo(defs, s.Destination)}
	if res != nil {
		r.Revision, r.Owner = res.Revision, res.Owner
	}
	def := defs.Destinations[s.Destination]
	if def != nil {
		r.Platform, r.Lane, r.Description = def.Platform, def.Lane, def.Description
		r.Call = def.Request.Method + " " + def.ShownURL()
	}
	if s.OpenUntil.After(now) {
		r.OpenUntil, r.Instance = s.OpenUntil, s.Instance
	}
	switch broken := defs.Broken[key]; {
	case broken != nil:
		r.Status, r.Why = statusBroken, broken.Error()
	case !s.Callable():
		r.By, r.Reason, r.Why, r.Since = s.By, string(s.Reason), s.Detail, s.Since
	case def != nil && def.Status == definition.Paused:
		r.Status, r.By, r.Why = string(state.Paused), byDefinition, "its definition says status: paused"
	case !r.OpenUntil.IsZero():
		r.Status, r.By, r.Why = statusOpen, state.BySink, "it fails; the next call is at "+clockDate(r.OpenUntil)
	default:
		r.By, r.Since = s.By, s.Since // who resumed it, if anybody did
	}
	r.ToDo = r.toDo()
	return r
}

// webhooksTo names the webhooks that go to a destination.
func webhooksTo(defs *definition.Snapshot, destination string) []string {
	names := []string{}
	for name, w := range defs.Webhooks {
		if w.Webhook.Destination == destination {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// toDo says what to do next; nothing where it is called as it should be.
func (r *standing) toDo() string {
	look := fmt.Sprintf("`millrace tail attempts --destination %s --since 1h`", r.Name)
	resume := fmt.Sprintf("then `millrace destinations resume %s`", r.Name)
	switch {
	case r.Status == statusBroken:
		return "apply its definition again as this version wants it, or upgrade"
	case r.Status == statusOpen:
		return "nothing, if the platform is known to be down: it is tried again by itself. Why it fails: " + look
	case r.By == byDefinition:
		return "take status: paused out of its definition and `millrace apply`"
	case r.Status == string(state.Active):
		return ""
	}
	before, ok := mend[state.Reason(r.Reason)]
	if !ok {
		return "see " + look + ", " + resume
	}
	return strings.ReplaceAll(before, "ATTEMPTS", look) + "; " + resume
}

// mend says what to do before a destination is resumed, by why it is not called.
var mend = map[state.Reason]string{
	state.Refused:        "mend its credentials (auth, and the secrets that it names) or what they may do on the platform; what it answered: ATTEMPTS",
	state.FinalResponses: "it refuses what it is sent: mend its definition, or the property mapping of the webhooks; what it answered: ATTEMPTS",
	state.Response:       "do what the reason above says; its preset, or responses of its definition, takes this answer for a sign not to call it: ATTEMPTS",
	state.Blocked:        "its address is a private one: open it with --egress-allow at the sinks, or mend its URL",
	state.Proxy:          "the proxy (--egress-proxy at the sinks) forbids it: have the proxy allow its address, name it in --egress-no-proxy, or mend its URL",
	state.Gone:           "it says that it is gone for good (410): find out its new URL and apply that",
	state.Operator:       "see with whoever paused it",
}

// lines are what is shown of one destination.
func (r *standing) lines() [][2]string {
	since := clockDate(r.Since)
	if r.By != "" && since != "" {
		since += " by " + r.By
	}
	rate := ""
	if r.RateBefore > 0 {
		rate = strconv.FormatFloat(r.RateBefore, 'f', 1, 64) + " calls a second"
	}
	return [][2]string{
		{"Name", r.Name},
		{"Description", r.Description},
		{"Platform", r.Platform},
		{"Status", r.Status},
		{"Since", since},
		{"Why", strings.TrimPrefix(strings.Join([]string{r.Reason, r.Why}, ": "), ": ")},
		{"Breaker open until", clockDate(r.OpenUntil)},
		{"Breaker of", r.Instance},
		{"Rate before", rate},
		{"Lane", r.Lane},
		{"Call", r.Call},
		{"Webhooks", strings.Join(r.Webhooks, ", ")},
		{"Revision", fmt.Sprintf("%d of owner %s", r.Revision, r.Owner)},
		{"To do", r.ToDo},
	}
}

// history says who did what, when and why.
func history(s state.State) string {
	text := " by " + s.By + " since " + clockDate(s.Since)
	if s.Detail != "" {
		text += " (" + s.Detail + ")"
	}
	return printable(text)
}

// breakerNote says that there is a breaker, which nobody has to resume.
func breakerNote(s state.State, now time.Time) string {
	if !s.OpenUntil.After(now) {
		return ""
	}
	return fmt.Sprintf("; its breaker is open until %s, then it is tried by itself", clockDate(s.OpenUntil))
}

// clockDate is a point in time for people, to the second; "" for none.
func clockDate(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
