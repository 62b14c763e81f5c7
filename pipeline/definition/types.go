package definition

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/preset"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// Kind is what a definition defines.
type Kind string

// The kinds of definitions, as they are written after "kind:".
const (
	KindEventType   Kind = "EventType"
	KindDestination Kind = "Destination"
	KindWebhook     Kind = "Webhook"
)

// Key identifies a definition: a name is unique within its kind, and a rename is
// a new definition.
type Key struct {
	Kind Kind
	Name string
}

// String gives "Webhook/name", which is also the record's key.
func (k Key) String() string { return string(k.Kind) + "/" + k.Name }

// ParseKey reads what String gives.
func ParseKey(s string) (Key, error) {
	kind, name, ok := strings.Cut(s, "/")
	k := Key{Kind(kind), name}
	switch k.Kind {
	case KindEventType, KindDestination, KindWebhook:
		if ok && name != "" {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("%q is not the key of a definition, such as Webhook/name", cut(s, 80))
}

// Status says whether a webhook or a destination is at work.
type Status string

// The statuses that a definition can ask for. Whether a destination is in fact
// sent to is a state beside its definition.
const (
	Active Status = "active"
	Paused Status = "paused"
)

// What becomes of a delivery that is older than its webhook's max_age.
const (
	ExpireToDeadLetter = "dead_letter"
	ExpireToDrop       = "drop" // counted as expired
)

// The ways to authenticate.
const (
	AuthNone     = "none"
	AuthBearer   = "bearer"
	AuthBasic    = "basic"
	AuthOAuth2   = "oauth2"
	AuthHeader   = "header"
	AuthProperty = "property"
)

// The grants of oauth2.
const (
	GrantClientCredentials = "client_credentials"
	GrantRefreshToken      = "refresh_token"
)

// EventType adds an event type to the catalog, or properties to one of its own.
type EventType struct {
	Name        string            `json:"-"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Group       string            `json:"group,omitempty"`
	DisplayName Text              `json:"display_name,omitempty"`
	Properties  []EventProperty   `json:"properties,omitempty"`
}

// EventProperty is a property of an event type.
type EventProperty struct {
	Name        string          `json:"name"`
	Type        pipeline.Type   `json:"type"`
	DisplayName Text            `json:"display_name,omitempty"`
	Example     json.RawMessage `json:"example,omitempty"`
	Aliases     []string        `json:"aliases,omitempty"`
}

// Text is a text in languages: en, de, fr. It is written as a text where there
// is only English.
type Text map[string]string

// MarshalJSON writes English alone as a text, several languages as a map.
func (t Text) MarshalJSON() ([]byte, error) {
	if en, ok := t["en"]; ok && len(t) == 1 {
		return marshal(en)
	}
	return marshal(map[string]string(t))
}

// UnmarshalJSON reads a text, which is English, or a map of languages.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		return json.Unmarshal(b, (*map[string]string)(t))
	}
	var en string
	err := json.Unmarshal(b, &en)
	*t = Text{"en": en}
	return err
}

// Webhook sends events of some types, where a condition holds, to a destination.
// Which keys there are and what they mean stands in the table of keys.
type Webhook struct {
	Name        string            `json:"-"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	System      string            `json:"system,omitempty"`      // empty: any
	Environment string            `json:"environment,omitempty"` // pipeline.Production or QA
	Event       Types             `json:"event"`
	Condition   string            `json:"condition,omitempty"`
	Conditions  []Row             `json:"conditions,omitempty"` // instead of Condition
	Properties  []Property        `json:"properties,omitempty"` // none: every property under its own name
	Destination string            `json:"destination"`
	MaxAge      Duration          `json:"max_age,omitempty"` // since the match
	ExpireTo    string            `json:"expire_to,omitempty"`
	Status      Status            `json:"status,omitempty"`
	Tests       []Test            `json:"tests,omitempty"`
}

// Types are the event types of a webhook: written as one text or as a list.
type Types []string

// MarshalJSON writes one type as a text, several as a list.
func (t Types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return marshal(t[0])
	}
	return marshal([]string(t))
}

// UnmarshalJSON reads a text or a list of texts.
func (t *Types) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(t))
	}
	if string(b) == "null" {
		*t = nil
		return nil
	}
	*t = Types{""}
	return json.Unmarshal(b, &(*t)[0])
}

// Row is one row of a webhook's conditions.
type Row struct {
	Join     string          `json:"join,omitempty"` // and, or; how it is tied to the row before
	Property string          `json:"property"`
	Operator string          `json:"operator"`
	Value    json.RawMessage `json:"value,omitempty"`
}

// Property is one entry of a webhook's property mapping: a property that is
// sent (From, As), a fixed value (Name, Value) or an expression's (Name, Expr).
type Property struct {
	From     string          `json:"from,omitempty"`
	As       string          `json:"as,omitempty"`
	Name     string          `json:"name,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	Expr     string          `json:"expr,omitempty"`
	Required bool            `json:"required,omitempty"`
}

// Test is an event with what the webhook makes of it.
type Test struct {
	Event json.RawMessage `json:"event"`           // Event JSON
	Fires *bool           `json:"fires,omitempty"` // nil: true
	Body  json.RawMessage `json:"body,omitempty"`  // the request body expected, compared as JSON
}

// Destination is a third-party endpoint.
type Destination struct {
	Name        string            `json:"-"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Platform    string            `json:"platform,omitempty"`
	Preset      string            `json:"preset,omitempty"` // what is left out is the preset's
	Request     Request           `json:"request,omitzero"`
	Auth        Auth              `json:"auth,omitzero"`
	TLS         TLS               `json:"tls,omitzero"`
	Signing     Signing           `json:"signing,omitzero"`
	Lane        string            `json:"lane,omitempty"`
	Limits      Limits            `json:"limits,omitzero"`
	Ordering    string            `json:"ordering,omitempty"` // "none"
	Retry       Retry             `json:"retry,omitzero"`
	Responses   map[string]string `json:"responses,omitempty"` // what a status, 4xx or 5xx means: success, retry, dead_letter, pause, disable
	Breaker     Breaker           `json:"breaker,omitzero"`
	Status      Status            `json:"status,omitempty"`

	// Contract is what the preset's platform expects of a body; nil without a
	// preset. Filled in when it is compiled.
	Contract *preset.Rule `json:"-"`
	// Meanings are the platform's responses whose status alone does not say what they mean, by the
	// preset; Responses comes before. Filled in likewise.
	Meanings preset.Responses `json:"-"`

	urlSecret *regexp.Regexp // finds what the preset says is a secret in the URL; likewise
}

// Request says what a call looks like.
type Request struct {
	Method  string            `json:"method,omitempty"` // GET, POST, PUT, PATCH
	URL     string            `json:"url,omitempty"`    // with {{ expression }}, ${env:NAME}, ${file:PATH} and ${sealed:TEXT}
	Headers map[string]Secret `json:"headers,omitempty"`
}

// Auth says how a call is authenticated. Which fields there are follows from the
// type. What is a Secret holds references to secrets; in force, never secrets.
type Auth struct {
	Type     string `json:"type,omitempty"`
	Token    Secret `json:"token,omitzero"`
	Username Secret `json:"username,omitzero"` // may be a literal: it is no secret
	Password Secret `json:"password,omitzero"`
	Name     string `json:"name,omitempty"` // of the header or property that Value is sent in
	Value    Secret `json:"value,omitzero"`

	Grant        string   `json:"grant,omitempty"`
	TokenURL     string   `json:"token_url,omitempty"`
	ClientID     Secret   `json:"client_id,omitzero"` // may be a literal: it is no secret
	ClientSecret Secret   `json:"client_secret,omitzero"`
	Scopes       []string `json:"scopes,omitempty"`
	Audience     string   `json:"audience,omitempty"`
	RefreshToken Secret   `json:"refresh_token,omitzero"`
}

// Signing holds the secrets that calls are signed with.
type Signing struct {
	Secret         Secret `json:"secret,omitzero"` // empty: calls are not signed
	PreviousSecret Secret `json:"previous_secret,omitzero"`
}

// Limits bound what is sent to a destination, over all replicas of the sink.
type Limits struct {
	Rate           float64  `json:"rate,omitempty"`        // calls per second; 0: no limit
	Burst          int      `json:"burst,omitempty"`       // calls at once after a pause
	Concurrency    int      `json:"concurrency,omitempty"` // calls open at a time
	Timeout        Duration `json:"timeout,omitempty"`     // of a whole call
	ConnectTimeout Duration `json:"connect_timeout,omitempty"`
	MaxBody        Size     `json:"max_body,omitempty"`     // of a request
	MaxResponse    Size     `json:"max_response,omitempty"` // read of a response
}

// Retry says how often and when a failed call is tried again: after First, then
// twice as long each time up to Cap, with full jitter.
type Retry struct {
	Attempts int      `json:"attempts,omitempty"` // the first call counts
	First    Duration `json:"first,omitempty"`
	Cap      Duration `json:"cap,omitempty"`
}

// Breaker says when a destination counts as down: after Failures in a row, or
// when Share of the calls within Window failed; and how long it then rests.
type Breaker struct {
	Failures int      `json:"failures,omitempty"`
	Share    Share    `json:"share,omitempty"`
	Window   Duration `json:"window,omitempty"`
	Open     Duration `json:"open,omitempty"`
}

// Secret is a text with references to secrets, ${env:NAME}, ${file:PATH} and
// ${sealed:TEXT}. In a set that was read from files it may also be a secret that
// is written out: NewPlan seals it.
type Secret struct{ secret.Reference }

// IsZero says whether the text is empty.
func (s Secret) IsZero() bool { return s.String() == "" }

// MarshalText gives the text with its references.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a text with references.
func (s *Secret) UnmarshalText(b []byte) (err error) {
	s.Reference, err = secret.Parse(string(b))
	return err
}

// withDefaults fills in what was not written.
func (w Webhook) withDefaults() Webhook {
	w.Environment = cmp.Or(w.Environment, pipeline.Production)
	w.MaxAge = cmp.Or(w.MaxAge, Duration(72*time.Hour))
	w.ExpireTo = cmp.Or(w.ExpireTo, ExpireToDeadLetter)
	w.Status = cmp.Or(w.Status, Active)
	return w
}

// withDefaults fills in what was not written.
func (d Destination) withDefaults() Destination {
	d.Request.Method = cmp.Or(d.Request.Method, "POST")
	d.Auth.Type = cmp.Or(d.Auth.Type, AuthNone)
	d.Lane = cmp.Or(d.Lane, pipeline.DefaultLane)
	d.Limits = d.Limits.withDefaults()
	d.Retry.Attempts = cmp.Or(d.Retry.Attempts, 15)
	d.Retry.Cap = cmp.Or(d.Retry.Cap, Duration(6*time.Hour))
	d.Retry.First = cmp.Or(d.Retry.First, min(Duration(time.Second), d.Retry.Cap))
	d.Breaker.Failures = cmp.Or(d.Breaker.Failures, 10)
	d.Breaker.Share = cmp.Or(d.Breaker.Share, 0.5)
	d.Breaker.Window = cmp.Or(d.Breaker.Window, Duration(30*time.Second))
	d.Breaker.Open = cmp.Or(d.Breaker.Open, Duration(30*time.Second))
	d.Status = cmp.Or(d.Status, Active)
	return d
}

func (l Limits) withDefaults() Limits {
	if l.Rate > 0 {
		l.Burst = cmp.Or(l.Burst, int(math.Ceil(l.Rate))) // what one second lets through
	}
	l.Concurrency = cmp.Or(l.Concurrency, 64)
	l.Timeout = cmp.Or(l.Timeout, Duration(10*time.Second))
	l.ConnectTimeout = cmp.Or(l.ConnectTimeout, min(Duration(3*time.Second), l.Timeout))
	l.MaxBody = cmp.Or(l.MaxBody, 256<<10)
	l.MaxResponse = cmp.Or(l.MaxResponse, 64<<10)
	return l
}
