package httpsend_test

import (
	"cmp"
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// sealer seals texts for fields of one destination.
type sealer struct {
	keys *secret.Keys
	at   secret.Place
}

func (s sealer) seal(t *testing.T, field, text string) secret.Reference {
	t.Helper()
	at := s.at
	at.Field = field
	r, err := s.keys.Public().Seal(reference(t, text).In(at))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sealing makes what seals secrets for a destination, and a client that opens them.
func sealing(t *testing.T, goes string) (sealer, *httpsend.Client) {
	t.Helper()
	keys, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return sealer{keys, secret.Place{Owner: "Destination/crm", Goes: goes}},
		client(t, httpsend.Options{Allow: local, Secrets: &secret.Resolver{Keys: &secret.Keyring{Load: keys.Reveal}}})
}

// TestSealedSecretsAreSent puts sealed secrets wherever there may be one. They
// are opened in their own field alone, and shown by no more than their end.
func TestSealedSecretsAreSent(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	s, c := sealing(t, e.URL)
	const plain = "pl4nted"
	for name, x := range map[string]struct {
		target httpsend.Target
		field  string // that is named where it can't be opened
	}{
		"url":    {httpsend.Target{URL: e.URL + "/" + s.seal(t, "request.url", plain).String() + "/x"}, "request.url"},
		"query":  {httpsend.Target{URL: e.URL + "/?key=" + s.seal(t, "request.url", plain).String()}, "request.url"},
		"header": {httpsend.Target{URL: e.URL, Headers: []httpsend.Header{{"x-api-key", s.seal(t, "request.headers.x-api-key", plain).String()}}}, "request.headers.x-api-key"},
		"bearer": {httpsend.Target{URL: e.URL, Auth: httpsend.Bearer{Token: s.seal(t, "auth.token", plain)}}, "auth.token"},
		"body":   {httpsend.Target{URL: e.URL, Auth: httpsend.InProperty{Name: "key", Value: s.seal(t, "auth.value", plain)}}, "auth.value"},
	} {
		t.Run(name, func(t *testing.T) {
			x.target.Place = s.at
			to := sender(t, c, x.target)
			call := httpsend.Call{ID: "id-of-" + name, Body: []byte("{}")}
			if p, err := to.Preview(call); err != nil || strings.Contains(shownRequest(p), plain) || !strings.Contains(shownRequest(p), "${sealed:…") || len(shownRequest(p)) > 500 {
				t.Errorf("shown as %+v, %v", p, err)
			}
			if r := to.Send(t.Context(), call); r.Outcome != httpsend.Success {
				t.Fatalf("sending: %+v", r)
			}
			calls := e.Calls()
			got := calls[len(calls)-1]
			if sent := got.Path + got.Query + got.Header.Get("X-Api-Key") + got.Header.Get("Authorization") + string(got.Body); !strings.Contains(sent, plain) {
				t.Errorf("sent was %s", sent)
			}
			refuse(t, c, x.target, x.field, call)
		})
	}
}

// What waits with a URL of its own is sent with the secrets as they are sealed
// now: an apply seals them anew.
func TestWaitingCallsAreSentWithNewSeals(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	s, c := sealing(t, e.URL)
	url := func(user, key, sig string) string {
		return e.URL + "/" + user + "?key=" + s.seal(t, "request.url", key).String() + "&sig=" + s.seal(t, "request.url", sig).String()
	}
	to := sender(t, c, httpsend.Target{URL: url("{{ event.user }}", "k-2", "s-2"), Place: s.at})
	if r := to.Send(t.Context(), httpsend.Call{ID: "1", URL: url("u-1", "k-1", "s-1"), Body: []byte("{}")}); r.Outcome != httpsend.Success {
		t.Fatalf("sending: %+v", r)
	}
	if got := e.Calls()[0]; got.Path != "/u-1" || got.Query != "key=k-2&sig=s-2" {
		t.Errorf("sent was %s?%s", got.Path, got.Query)
	}
	more := httpsend.Call{ID: "2", URL: url("u-1", "k-1", "s-1") + s.seal(t, "request.url", "more").String(), Body: []byte("{}")}
	if r := to.Send(t.Context(), more); r.Outcome != httpsend.DeadLetter || r.Class != httpsend.ClassInvalid || len(e.Calls()) != 1 {
		t.Errorf("with more secrets than the URL has: %+v", r)
	}
}

// refuse has the target in another destination, to which its secrets were moved.
func refuse(t *testing.T, c *httpsend.Client, moved httpsend.Target, field string, call httpsend.Call) {
	t.Helper()
	moved.Place.Owner = "Destination/erp"
	if a, ok := moved.Auth.(httpsend.Bearer); ok {
		at := moved.Place
		at.Field = field
		moved.Auth = httpsend.Bearer{Token: a.Token.In(at)}
	}
	if a, ok := moved.Auth.(httpsend.InProperty); ok {
		at := moved.Place
		at.Field = field
		moved.Auth = httpsend.InProperty{Name: a.Name, Value: a.Value.In(at)}
	}
	to := sender(t, c, moved)
	r := to.Send(t.Context(), call)
	missing, ok := errors.AsType[*secret.MissingError](r.Err)
	if r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassSecret || !ok || missing.Field != field {
		t.Errorf("moved to another destination: %+v", r)
	}
	if err := to.Ready(); err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "another destination") || strings.Contains(err.Error(), "pl4nted") {
		t.Errorf("it is ready: %v", err)
	}
}

func shownRequest(p httpsend.Request) string {
	var b strings.Builder
	b.WriteString(p.URL + string(p.Body))
	for _, h := range p.Header {
		b.WriteString(h.Name + h.Value)
	}
	return b.String()
}

// A secret that is written out, as a file that is tested may have it, is no more
// seen in a response than others.
func TestWrittenSecretsAreNotEchoed(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 400, Body: []byte("you sent pl4nted")}
	}))
	for name, target := range map[string]httpsend.Target{
		"key":    {Headers: []httpsend.Header{{"X-Api-Key", "pl4nted"}}},
		"header": {Headers: []httpsend.Header{{"Authorization", "Bearer pl4nted"}}},
		"bearer": {Auth: httpsend.Bearer{Token: reference(t, "pl4nted")}},
		"value":  {Auth: httpsend.InHeader{Name: "X-It", Value: reference(t, "pl4nted")}},
		"url":    {URL: e.URL + "/?key=pl4nted", SecretParts: [][2]int{{len(e.URL) + len("/?key="), len(e.URL) + len("/?key=pl4nted")}}},
	} {
		target.URL = cmp.Or(target.URL, e.URL)
		r := sender(t, client(t, httpsend.Options{Allow: local}), target).Send(t.Context(), httpsend.Call{ID: name, Body: []byte("{}")})
		if r.Status != 400 || strings.Contains(string(r.Response)+r.Err.Error(), "pl4nted") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
