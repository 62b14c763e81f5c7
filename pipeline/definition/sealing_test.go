package definition_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

func newKeys(t testing.TB) *secret.Keys {
	t.Helper()
	k, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// destination is one of the given name and further lines.
func destination(name, lines string) string {
	return "kind: Destination\nname: " + name + "\nrequest:\n  url: https://crm.example/in\n" + lines
}

const signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// TestPlansSealSecrets writes secrets out wherever they may be.
func TestPlansSealSecrets(t *testing.T) {
	t.Parallel()
	leaf := pipelinetest.Authority(t, "root").Leaf(t, "client")
	block := func(text string) string {
		return "|\n    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
	}
	for name, c := range map[string]struct{ lines, field, opens string }{
		"bearer":   {"auth: {type: bearer, token: geheim}\n", "auth.token", "geheim"},
		"mixed":    {"auth: {type: bearer, token: \"geheim${env:MILLRACE_SECRET_A}\"}\n", "auth.token", "geheimfrom-env"},
		"basic":    {"auth: {type: basic, username: me, password: geheim}\n", "auth.password", "geheim"},
		"header":   {"auth: {type: header, name: X-Key, value: geheim}\n", "auth.value", "geheim"},
		"property": {"auth: {type: property, name: a, value: geheim}\n", "auth.value", "geheim"},
		"client":   {"auth: {type: oauth2, grant: client_credentials, token_url: https://id.example/t, client_id: me, client_secret: geheim}\n", "auth.client_secret", "geheim"},
		"refresh":  {"auth: {type: oauth2, grant: refresh_token, token_url: https://id.example/t, client_id: me, refresh_token: geheim}\n", "auth.refresh_token", "geheim"},
		"headers":  {"  headers: {Authorization: Bearer geheim, X-Team: crm}\n", "request.headers.Authorization", "Bearer geheim"},
		"key":      {"  headers: {x-api-key: geheim}\n", "request.headers.x-api-key", "geheim"},
		"auth":     {"  headers: {X-Auth: geheim, X-Author: me}\n", "request.headers.X-Auth", "geheim"},
		"sig":      {"  headers: {X-Hub-Sig: geheim, X-Design: a}\n", "request.headers.X-Hub-Sig", "geheim"},
		"signed":   {"  headers: {X-Signature: geheim}\n", "request.headers.X-Signature", "geheim"},
		"pass":     {"  headers: {x-pass: geheim, X-Bypass: a}\n", "request.headers.x-pass", "geheim"},
		"creds":    {"  headers: {X-Credential: geheim}\n", "request.headers.X-Credential", "geheim"},
		"signing":  {"signing: {secret: " + signingSecret + "}\n", "signing.secret", signingSecret},
		"previous": {"signing: {secret: \"${file:a}\", previous_secret: " + signingSecret + "}\n", "signing.previous_secret", signingSecret},
		"tls":      {"tls:\n  cert: " + block(leaf.Chain()) + "  partial_chain: true\n  key: " + block(leaf.KeyPEM), "tls.key", strings.TrimSpace(leaf.KeyPEM) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkSealing(t, destination("crm", c.lines), c.field, c.opens)
		})
	}
}

func checkSealing(t *testing.T, text, field, opens string) {
	keys := newKeys(t)
	o := definition.Options{Owner: "a", Keys: keys.Public()}
	base := apply(t, empty(t), parse(text), o)
	again, problems := definition.NewPlan(base, parse(text), o)
	if err := problems.Err(); err != nil || len(again.Changes) != 1 {
		t.Fatalf("applied again: %v, %+v", err, again)
	}
	for _, f := range again.Changes[0].Fields {
		if !f.Sealed || f.Path != field || len(f.String()) > 250 || !strings.Contains(f.String(), "sealed now, since it is written out") {
			t.Errorf("the change is %s", f)
		}
	}
	var b bytes.Buffer
	if err := errors.Join(again.Print(&b), json.NewEncoder(&b).Encode(again), definition.Export(&b, base)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%+v %#v", again.Changes[0].To, base.Destinations["crm"])
	records, _ := written(t, again, 7)
	for _, r := range records {
		b.Write(r.Value)
	}
	for _, plain := range []string{"geheim", signingSecret[6:], "PRIVATE KEY"} {
		if strings.Contains(b.String(), plain) {
			t.Errorf("%s is seen in %s", plain, b.String())
		}
	}
	r := &secret.Resolver{
		Keys: &secret.Keyring{Load: keys.Reveal},
		Env:  func(string) (string, bool) { return "from-env", true },
	}
	v, err := r.Resolve(fieldOf(base.Destinations["crm"], field))
	if err != nil || v.Reveal() != opens {
		t.Errorf("%s opens as %q, %v", field, v.Reveal(), err)
	}
}

// TestSecretsInURLs has which parts of a URL are sealed.
func TestSecretsInURLs(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	r := &secret.Resolver{
		Keys: &secret.Keyring{Load: keys.Reveal},
		Env:  func(string) (string, bool) { return "from-env", true },
	}
	const sealed, env = "<sealed>", "${env:MILLRACE_SECRET_A}"
	for url, want := range map[string]string{
		"https://x.example/a?id=1&api_secret=geheim":              "https://x.example/a?id=1&api_secret=" + sealed,
		"https://x.example/?api_key=geheim&id=1&X-Goog-Sig=ge%2F": "https://x.example/?api_key=" + sealed + "&id=1&X-Goog-Sig=" + sealed,
		"https://x.example/?api%5Fkey=geheim":                     "https://x.example/?api%5Fkey=" + sealed,
		"https://x.example/{{ event.user }}?token=geheim":         "https://x.example/{{ event.user }}?token=" + sealed,
		"https://x.example/?a={{ \"?key=b\" }}&token=geheim":      "https://x.example/?a={{ \"?key=b\" }}&token=" + sealed,
		"https://x.example/?a=" + env + env + "&auth=geheim":      "https://x.example/?a=" + env + env + "&auth=" + sealed,
		env + "?credential=geheim":                                env + "?credential=" + sealed,
		"https://x.example/?token=" + env:                         "",
		"https://x.example/?token=a" + env:                        "",
		"https://x.example/?token=a{{ event.user }}":              "",
		"https://x.example/?token=":                               "",
		"https://x.example/?token":                                "",
		"https://x.example/token=geheim":                          "",
		"https://x.example/?author=me&keyword=shoes&design=a":     "",
		"https://hooks.slack.com/services/T0/B0/geheim":           "",
	} {
		checkSealedURL(t, keys, r, "", url, want)
	}
	for url, want := range map[string]string{
		"https://hooks.slack.com/services/T0/B0/geheim":                    "https://hooks.slack.com/services/" + sealed,
		"https://hooks.slack.com/services/T0/B0/geheim?a=b&token=t":        "https://hooks.slack.com/services/" + sealed + "?a=b&token=" + sealed,
		"https://hooks.slack.com/services/T0/B0/geheim/{{ event.user }}":   "",
		"https://hooks.slack.com/services/T0/" + env + "/{{ event.user }}": "",
		"https://hooks.slack.com/services/" + env:                          "",
		"https://hooks.slack.com/services/":                                "",
		"https://gov.slack.com/a":                                          "",
	} {
		checkSealedURL(t, keys, r, "preset: slack\n", url, want)
	}
	checkSealedURL(t, keys, r, "preset: ga4\n", "https://ga.example/mp?measurement_id=G-1&api_secret=geheim", "https://ga.example/mp?measurement_id=G-1&api_secret="+sealed)
}

var sealForm = regexp.MustCompile(`\$\{sealed:[^}]*\}`)

func checkSealedURL(t *testing.T, keys *secret.Keys, r *secret.Resolver, lines, url, want string) {
	t.Helper()
	text := "kind: Destination\nname: crm\n" + lines + "request:\n  url: |\n    " + url + "\n"
	o := definition.Options{Keys: keys.Public()}
	d := apply(t, empty(t), parse(text), o).Destinations["crm"]
	if got := sealForm.ReplaceAllString(d.Request.URL, "<sealed>"); got != want && (want != "" || got != url) {
		t.Errorf("%s is stored as %s, expected %s", url, got, want)
	}
	ref, err := secret.Parse(d.Request.URL)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := r.Resolve(ref.In(d.SecretPlace("request.url")))
	if err != nil || opened.Reveal() != strings.ReplaceAll(url, "${env:MILLRACE_SECRET_A}", "from-env") {
		t.Errorf("%s opens as %s, %v", url, opened.Reveal(), err)
	}
	after, problems := parse(text).Check(empty(t))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	shown := strings.ReplaceAll(want, "<sealed>", secret.Mask)
	if got := after.Destinations["crm"].ShownURL(); got != shown && (want != "" || got != url) {
		t.Errorf("%s is shown as %s, expected %s", url, got, shown)
	}
	if got := d.ShownURL(); strings.Contains(got, "geheim") != (want == "" && strings.Contains(url, "geheim")) {
		t.Errorf("%s in force is shown as %s", url, got)
	}
}

// Whoever applied it before it was known to be a secret has it sealed now, and
// does not see it again.
func TestSecretsInForceAreHidden(t *testing.T) {
	t.Parallel()
	spec := `{"request":{"url":"https://crm.example/in?sig=geheim","headers":{"X-Auth":"geheim","X-Team":"crm"}}}`
	base := empty(t).With([]pipeline.Record{put("Destination", "crm", spec)}, 1)
	text := destination("crm", "  headers: {X-Auth: geheim, X-Team: erp}\n")
	for _, url := range []string{"https://crm.example/in", "https://crm.example/in?sig=geheim"} {
		p, problems := definition.NewPlan(base, parse(strings.Replace(text, "https://crm.example/in", url, 1)), definition.Options{Owner: "a", Force: true, Keys: newKeys(t).Public()})
		if problems.Err() != nil {
			t.Fatal(problems)
		}
		var b bytes.Buffer
		if err := errors.Join(p.Print(&b), json.NewEncoder(&b).Encode(p.Changes[0].Fields)); err != nil {
			t.Fatal(err)
		}
		said := b.String()
		if strings.Contains(said, "geheim") || !strings.Contains(said, `request.url: "https://crm.example/in?sig=[secret]" → `) ||
			!strings.Contains(said, `request.headers.X-Auth: "[secret]" → `) || !strings.Contains(said, `"crm" → "erp"`) {
			t.Errorf("the plan says %s", said)
		}
	}
	for what, set := range map[string]string{"without headers": destination("crm", ""), "removed": destination("other", "")} {
		p, problems := definition.NewPlan(base, parse(set), definition.Options{Owner: "a", Prune: true, Force: true, Keys: newKeys(t).Public()})
		if problems.Err() != nil {
			t.Fatal(problems)
		}
		said, err := json.Marshal(p.Changes)
		if err != nil || strings.Contains(string(said), "geheim") || !strings.Contains(string(said), "[secret]") {
			t.Errorf("%s: %v, the plan says %s", what, err, said)
		}
	}
}

// A URL that is too long once its secrets are sealed would be none that works.
func TestSealedURLTooLong(t *testing.T) {
	t.Parallel()
	text := strings.Replace(destination("crm", ""), "/in", "/"+strings.Repeat("a", 8100)+"?key=geheim", 1)
	if _, problems := parse(text).Check(empty(t)); problems.Err() != nil {
		t.Fatal(problems)
	}
	_, problems := definition.NewPlan(empty(t), parse(text), definition.Options{Keys: newKeys(t).Public()})
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), "f.yaml:4:8: found a URL of 8") {
		t.Errorf("it says %v", err)
	}
	_, problems = definition.NewPlan(empty(t), parse(text), definition.Options{})
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), "no key to seal it with") {
		t.Errorf("without a key it says %v", err)
	}
}

func fieldOf(d *definition.Destination, field string) secret.Reference {
	if name, ok := strings.CutPrefix(field, "request.headers."); ok {
		return d.Request.Headers[name].Reference
	}
	return map[string]secret.Reference{
		"auth.token": d.Auth.Token.Reference, "auth.password": d.Auth.Password.Reference, "auth.value": d.Auth.Value.Reference,
		"auth.client_secret": d.Auth.ClientSecret.Reference, "auth.refresh_token": d.Auth.RefreshToken.Reference,
		"signing.secret": d.Signing.Secret.Reference, "signing.previous_secret": d.Signing.PreviousSecret.Reference, "tls.key": d.TLS.Key.Reference,
	}[field]
}

func TestNoKeysToSealWith(t *testing.T) {
	t.Parallel()
	text := destination("crm", "  headers:\n    X-Api-Key: geheim\nauth:\n  type: bearer\n  token: geheim\n")
	_, problems := definition.NewPlan(empty(t), parse(text), definition.Options{})
	want := "found a secret that is written out, and no key to seal it with: start a sink with a keyset (millrace keys create), or write ${env:MILLRACE_SECRET_…} or ${file:…}"
	if got := problems.Error(); got != "f.yaml:6:16: "+want+"\nf.yaml:9:10: "+want {
		t.Errorf("it says\n%s", got)
	}
	if _, problems := parse(text).Check(empty(t)); problems.Err() != nil { // what `millrace check` does needs none
		t.Error(problems)
	}
}

// sealedFor is the text of a sealed token of crm.
func sealedFor(t *testing.T, keys *secret.Keys, text, field string) string {
	t.Helper()
	base := apply(t, empty(t), parse(text), definition.Options{Keys: keys.Public()})
	return fieldOf(base.Destinations["crm"], field).String()
}

// TestSealedSecretsStay moves sealed secrets about, and changes where they go.
func TestSealedSecretsStay(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	token := sealedFor(t, keys, destination("crm", "auth: {type: bearer, token: geheim}\n"), "auth.token")
	granted := "auth: {type: oauth2, grant: client_credentials, token_url: https://id.example/t, client_id: me, client_secret: %s}\n"
	client := sealedFor(t, keys, destination("crm", fmt.Sprintf(granted, "geheim")), "auth.client_secret")
	bearer := "auth: {type: bearer, token: \"" + token + "\"}\n"
	grant := fmt.Sprintf(granted, `"`+client+`"`)
	for name, c := range map[string]struct{ text, want string }{
		"as it was":             {destination("crm", bearer), ""},
		"another path":          {strings.Replace(destination("crm", bearer), "/in", "/out?a=b", 1), ""},
		"in other letters":      {strings.Replace(destination("crm", bearer), "https://crm", "HTTPS://CRM", 1), ""},
		"with expressions":      {strings.Replace(destination("crm", bearer), "/in", "/{{ event.user }}", 1), ""},
		"another destination":   {destination("erp", bearer), `5:29: token: ${sealed:…X} can't be opened here: it was sealed for another destination or another field; write the secret itself again, or seal it again`},
		"another field":         {destination("crm", "auth: {type: header, name: X-Key, value: \""+token+"\"}\n"), "5:42: value: ${sealed:…X} can't be opened here: it was sealed for another destination or another field"},
		"another host":          {strings.Replace(destination("crm", bearer), "crm.ex", "evil.ex", 1), "5:29: token: ${sealed:…X} can't be opened here: it was sealed for another scheme, host, port or token_url; write the secret itself again"},
		"another scheme":        {strings.Replace(destination("crm", bearer), "https", "http", 1), "another scheme, host, port or token_url"},
		"another port":          {strings.Replace(destination("crm", bearer), ".example", ".example:8443", 1), "another scheme, host, port or token_url"},
		"a longer host":         {strings.Replace(destination("crm", bearer), ".example", ".example.evil", 1), "another scheme, host, port or token_url"},
		"a host of a reference": {strings.Replace(destination("crm", bearer), "crm.example", "${env:MILLRACE_SECRET_HOST}", 1), "another scheme, host, port or token_url"},
		"as a client":           {destination("crm", grant), ""},
		"another token_url":     {strings.Replace(destination("crm", grant), "id.example/t", "id.example/u", 1), "5:"},
		"a client elsewhere":    {strings.Replace(destination("crm", grant), "crm.ex", "evil.ex", 1), "another scheme, host, port or token_url"},
		"damaged":               {destination("crm", strings.Replace(bearer, token, token[:40]+token[41:], 1)), "it is damaged: some of it is missing or has changed"},
		"in the host":           {strings.Replace(destination("crm", ""), "crm.example", token, 1), "4:8: found a sealed secret in scheme, host or port, expected them written out"},
		"all of the URL":        {strings.Replace(destination("crm", ""), "https://crm.example/in", token, 1), "4:8: found a sealed secret in scheme, host or port"},
		"in the path":           {strings.Replace(destination("crm", ""), "/in", "/"+token, 1), "4:8: url: ${sealed:…X} can't be opened here: it was sealed for another destination or another field"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, problems := parse(c.text).Check(empty(t)) // what `millrace check` says, without Kafka
			want := strings.NewReplacer("…X}", "…"+token[len(token)-7:]).Replace(c.want)
			if err := problems.Err(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("it says %v, expected %q", err, want)
			}
		})
	}
	_, problems := definition.NewPlan(empty(t), parse(destination("crm", bearer)), definition.Options{Keys: newKeys(t).Public()})
	want := fmt.Sprintf("it was sealed with the key %d, which the sinks don't have", keys.Public().Primary())
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("with other keys: %v", err)
	}
	rotated, err := keys.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	if _, problems := definition.NewPlan(empty(t), parse(destination("crm", bearer)), definition.Options{Keys: rotated.Public()}); problems.Err() != nil {
		t.Errorf("after a rotation: %v", problems)
	}
}

// A secret in the URL can be sealed too, and goes with its host.
func TestSealedSecretInURL(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	s := empty(t).With([]pipeline.Record{put("Destination", "crm", `{"request":{"url":"https://crm.example/in"}}`)}, 1)
	plain, err := secret.Parse("geheim")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := keys.Public().Seal(plain.In(s.Destinations["crm"].SecretPlace("request.url")))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(destination("crm", ""), "/in", "/{{ event.user }}?key="+ref.String(), 1)
	if _, problems := parse(text).Check(empty(t)); problems.Err() != nil {
		t.Error(problems)
	}
	if _, problems := parse(strings.Replace(text, "crm.ex", "evil.ex", 1)).Check(empty(t)); problems.Err() == nil {
		t.Error("a secret in the URL goes elsewhere")
	}
}

// What came into the topic past the checks must not make a destination unusable:
// that would end its deliveries.
func TestMovedSecretsBreakNothing(t *testing.T) {
	t.Parallel()
	token := sealedFor(t, newKeys(t), destination("crm", "auth: {type: bearer, token: geheim}\n"), "auth.token")
	for _, text := range []string{token, "${sealed:AAAA}"} {
		spec := `{"request":{"url":"https://evil.example"},"auth":{"type":"bearer","token":"` + text + `"}}`
		s := empty(t).With([]pipeline.Record{put("Destination", "erp", spec)}, 1)
		d := s.Destinations["erp"]
		if len(s.Broken) > 0 || d == nil || d.Auth.Token.CheckSealed(nil) == nil {
			t.Errorf("broken: %v, destination %+v", s.Broken, d)
		}
	}
}

func TestReferencesThatGoElsewhereAreNamed(t *testing.T) {
	t.Parallel()
	before := destination("crm", "  headers: {X-Other: \"${file:t}\", X-Team: \"${env:MILLRACE_SECRET_T}\"}\nauth: {type: bearer, token: \"${file:t}\"}\n")
	base := inForce(t, before, "")
	for text, want := range map[string]string{
		before: "",
		strings.Replace(before, "/in", "/out", 1):  "",
		strings.Replace(before, "crm.", "new.", 1): "f.yaml:4:8: warning: ${env:MILLRACE_SECRET_T}, ${file:t} now goes to https://new.example, before to https://crm.example",
		destination("crm", ""):                     "",
	} {
		_, problems := definition.NewPlan(base, parse(text), definition.Options{})
		if problems.Err() != nil || problems.Error() != want {
			t.Errorf("%s\ngives %v", text, problems)
		}
	}
}

func TestPublishedKeys(t *testing.T) {
	t.Parallel()
	h := setup(t)
	first := newKeys(t)
	second, err := first.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	publish := func(k *secret.Keys, force, refused bool, want *secret.Keys) {
		t.Helper()
		err := h.open().PublishKeys(t.Context(), k.Public(), force)
		if _, other := errors.AsType[*definition.OtherKeysError](err); other != refused || (err != nil) != refused {
			t.Fatalf("publishing: %v", err)
		}
		if s := h.now(); !slices.Equal(s.Keys.IDs(), want.Public().IDs()) || s.Keys.Primary() != want.Public().Primary() {
			t.Errorf("published are %v, expected %v", s.Keys.IDs(), want.Public().IDs())
		}
	}
	publish(first, false, false, first)
	before := h.now().Offset
	publish(first, false, false, first)
	if now := h.now().Offset; now != before {
		t.Errorf("the same keys are published again: offset %d, then %d", before, now)
	}
	publish(second, false, false, second)
	publish(first, false, true, second) // a sink that has not got the rotated keyset
	other := newKeys(t)
	publish(other, false, true, second)
	publish(other, true, false, other)

	plan, problems := definition.NewPlan(h.now(), parse(destination("crm", "auth: {type: bearer, token: geheim}\n")), definition.Options{})
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	publish(second, true, false, second) // meanwhile
	if _, err := h.store.Apply(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "which the sinks don't have") {
		t.Errorf("a plan is applied that was sealed for keys that are gone: %v", err)
	}
}

// What a newer version has published stays: this one can't tell what it is.
func TestNewerPublishedKeys(t *testing.T) {
	t.Parallel()
	keys := newKeys(t).Public()
	for value, want := range map[string]string{
		`{"format":99,"keys":{}}`: "written by a newer version of Millrace",
		`{"format":1,"keys":{}}`:  "",
		`no JSON`:                 "",
		``:                        "",
	} {
		record := pipeline.Record{Key: []byte("keys/public"), Value: []byte(value)}
		replace, err := empty(t).With([]pipeline.Record{record}, 1).CheckKeys(keys)
		if replace != (want == "") || (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: replaced %v, %v", value, replace, err)
		}
	}
}

// now is what is in force when all that was written has been read.
func (h *house) now() *definition.Snapshot {
	h.t.Helper()
	c, err := event.BuiltinCatalog()
	if err != nil {
		h.t.Fatal(err)
	}
	live := definition.NewLive(h.cfg, c)
	ctx, stop := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- live.Run(ctx) }()
	s, err := live.At(ctx, 0)
	stop()
	if <-ended; err != nil {
		h.t.Fatal(err)
	}
	return s
}

// The address of a token endpoint is no place for secrets: what looks like one
// there is warned of, without a word of it.
func TestSecretsInATokenURL(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"":                           false,
		"?version=2&audience=geheim": false,
		"?client_secret=geheim":      true,
		"?a=b&API%5FKEY=geheim":      true,
	} {
		text := "kind: Destination\nname: crm\nrequest: {url: https://crm.example}\n" +
			"auth:\n  type: oauth2\n  grant: client_credentials\n  token_url: https://id.example/t" + query + "\n  client_id: me\n  client_secret: ${env:MILLRACE_SECRET_A}\n"
		_, problems := parse(text).Check(empty(t))
		warned := ""
		if want {
			warned = "f.yaml:7:14: warning: the name of a parameter speaks of a secret"
		}
		got := problems.Error()
		if problems.Err() != nil || !strings.HasPrefix(got, warned) || !want && got != "" || strings.Contains(got, "geheim") {
			t.Errorf("%s: %q", query, got)
		}
	}
}
