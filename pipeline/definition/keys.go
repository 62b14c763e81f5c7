package definition

import "regexp"

// key is one line of the table of keys.
type key struct {
	name     string
	shape    shape
	required bool
}

// The names that definitions have. An event type has the name that producers
// write into events, so it may hold what those hold.
var (
	nameForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	eventTypeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	languageForm  = regexp.MustCompile(`^(en|de|fr)$`)
	labelForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$`)
)

const nameRule = "1 to 63 of a-z, 0-9 and -, the first not a -"

// keysOf is the one table of what a definition of each kind may hold. What is
// marked later is part of the language, but this version does not run it yet.
//
// With a preset, a destination may leave out what the preset knows.
func keysOf(kind Kind, preset bool) []key {
	switch kind {
	case KindEventType:
		return append(common(pattern(eventTypeForm, "the type as events have it: 1 to 128 of A-Z, a-z, 0-9, ., _ and -")), eventTypeKeys()...)
	case KindDestination:
		return append(common(pattern(nameForm, nameRule)), destinationKeys(preset)...)
	case KindWebhook:
		return append(common(pattern(nameForm, nameRule)), webhookKeys()...)
	default:
		return nil
	}
}

func common(name shape) []key {
	return []key{
		{"kind", anyText(), true},
		{"name", name, true},
		{"description", anyText(), false},
		{"labels", mapOf(pattern(labelForm, "a label: 1 to 63 of A-Z, a-z, 0-9, ., _, / and -"), anyText()), false},
	}
}

func eventTypeKeys() []key {
	display := oneOf(anyText(), mapOf(pattern(languageForm, "a language: en, de or fr"), anyText()))
	return []key{
		{"group", anyText(), false},
		{"display_name", display, false},
		{"properties", listOf(object(
			key{"name", pattern(propertyForm, "the name of a property, without white space"), true},
			key{"type", word("integer", "number", "string", "boolean", "date"), true},
			key{"display_name", display, false},
			key{"example", anyScalar(), false},
			key{"aliases", listOf(pattern(propertyForm, "the name of a property, without white space")), false},
			key{"sensitive", later(), false},
		)), false},
	}
}

var propertyForm = regexp.MustCompile(`^[^\s[:cntrl:]]{1,256}$`)

func webhookKeys() []key {
	eventType := pattern(propertyForm, "an event type, without white space")
	return []key{
		{"system", anyText(), false},
		{"environment", word("production", "qa"), false},
		{"event", oneOf(eventType, listOf(eventType)), true},
		{"condition", expressionText(), false},
		{"conditions", listOf(object(
			key{"join", word("and", "or"), false},
			key{"property", anyText(), true},
			key{"operator", anyText(), true},
			key{"value", anything(), false},
		)), false},
		{"properties", listOf(object(
			key{"from", anyText(), false},
			key{"as", anyText(), false},
			key{"name", anyText(), false},
			key{"value", anything(), false},
			key{"expr", expressionText(), false},
			key{"required", boolean(), false},
		)), false},
		{"destination", pattern(nameForm, "the name of a destination: "+nameRule), true},
		{"max_age", duration("1s", "8760h"), false},
		{"expire_to", word("dead_letter", "drop"), false},
		{"status", word("active", "paused"), false},
		{"tests", listOf(object(
			key{"event", anyMap(), true},
			key{"fires", boolean(), false},
			key{"body", anything(), false},
		)), false},
	}
}

func destinationKeys(preset bool) []key {
	return []key{
		{"platform", anyText(), false},
		{"preset", anyText(), false},
		{"request", object(requestKeys(preset)...), !preset},
		{"auth", authentication(), false},
		{"tls", object(tlsKeys()...), false},
		{"signing", object(signingKeys()...), false},
		{"lane", pattern(nameForm, "the name of a lane: "+nameRule), false},
		{"limits", object(
			key{"rate", number(0.000_01, 1_000_000), false},
			key{"burst", count(1_000_000), false},
			key{"concurrency", count(10_000), false},
			key{"timeout", duration("10ms", maxTimeout), false},
			key{"connect_timeout", duration("10ms", maxTimeout), false},
			key{"max_body", size("1B", "16MiB"), false},
			key{"max_response", size("1B", "1MiB"), false},
		), false},
		{"ordering", wordLater([]string{"none"}, "user"), false},
		{"retry", object(
			key{"attempts", count(1000), false},
			key{"first", duration("10ms", "6h"), false},
			key{"cap", duration("10ms", "168h"), false},
		), false},
		{"responses", mapOf(pattern(statusForm, "a status from 200 to 599, 4xx or 5xx"), word("success", "retry", "dead_letter", "pause", "disable")), false},
		{"breaker", object(
			key{"failures", count(10_000), false},
			key{"share", percentage(), false},
			key{"window", duration("1s", "1h"), false},
			key{"open", duration("100ms", "1h"), false},
		), false},
		{"batch", later(), false},
		{"status", word("active", "paused"), false},
	}
}

func requestKeys(preset bool) []key {
	return []key{
		{"method", word("GET", "POST", "PUT", "PATCH"), false},
		{"url", expressionText(), !preset},
		{"headers", mapOf(pattern(headerForm, "the name of a header, then a colon and a blank"), secretText(true)), false},
	}
}

func signingKeys() []key {
	return []key{
		{"secret", signingSecret(), true},
		{"previous_secret", signingSecret(), false},
	}
}

// maxTimeout leaves room in the minute that a group waits for a sink to give up
// a partition: its open calls end first.
const maxTimeout = "55s"

var statusForm = regexp.MustCompile(`^([2-5][0-9]{2}|4xx|5xx)$`)

// A header's name is a token of RFC 9110.
var headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")

// A scope is as RFC 6749, section 3.3, has it.
var scopeForm = regexp.MustCompile(`^[!\x23-\x5b\x5d-\x7e]{1,256}$`)

// authKeys is what each way to authenticate needs, oauth2 with the given grant.
func authKeys(grant string) map[string][]key {
	kind := key{"type", word(AuthNone, AuthBearer, AuthBasic, AuthOAuth2, AuthHeader, AuthProperty), true}
	return map[string][]key{
		AuthNone:     {kind},
		AuthBearer:   {kind, {"token", secretText(false), true}},
		AuthBasic:    {kind, {"username", secretText(true), true}, {"password", secretText(false), true}},
		AuthOAuth2:   oauth2Keys(kind, grant),
		AuthHeader:   {kind, {"name", pattern(headerForm, "the name of a header"), true}, {"value", secretText(false), true}},
		AuthProperty: {kind, {"name", anyText(), true}, {"value", secretText(false), true}},
	}
}

func oauth2Keys(kind key, grant string) []key {
	keys := []key{
		kind,
		{"grant", word(GrantClientCredentials, GrantRefreshToken), true},
		{"token_url", expressionText(), true},
		{"client_id", secretText(true), true},
		{"client_secret", secretText(false), grant == GrantClientCredentials},
		{"scopes", listOf(pattern(scopeForm, "a scope, without white space")), false},
		{"audience", anyText(), false},
	}
	if grant != GrantClientCredentials {
		keys = append(keys, key{"refresh_token", secretText(false), grant == GrantRefreshToken})
	}
	return keys
}
