package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// sealing is a Millrace whose sink has a keyset, and a receiver.
type sealing struct {
	*millrace
	r      *pipelinetest.Endpoint
	keyset string
	sink   process
	sent   int
}

func startSealing(t *testing.T) *sealing {
	t.Helper()
	s := &sealing{r: pipelinetest.Receiver(t), keyset: filepath.Join(t.TempDir(), "keyset.json")}
	commandLine(t, "", "keys", "create", s.keyset).must(t)
	s.millrace = start(t, options{keyset: s.keyset, idle: true})
	s.sink = s.run()
	s.published(s.keyset)
	return s
}

// published waits until secrets are sealed with the primary key of a keyset.
func (s *sealing) published(keyset string) {
	s.t.Helper()
	keys, err := readKeyset(keyset)
	if err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the sink has published its key", func() bool {
		defs := s.sink.live.Snapshot()
		return defs != nil && defs.Keys != nil && defs.Keys.Primary() == keys.Public().Primary()
	})
}

// hooked is a destination, with further lines, and a webhook of its name.
func (s *sealing) hooked(name, lines string) string {
	return fmt.Sprintf("kind: Destination\nname: %s\nrequest:\n  url: %s/in\n%s---\nkind: Webhook\nname: %[1]s\nevent: tick\ndestination: %[1]s\n", name, s.r.URL, lines)
}

// call sends an event and returns the next call.
func (s *sealing) call() pipelinetest.Call {
	s.t.Helper()
	s.sent++
	n := s.r.Count() + 1
	s.produce(tickEvent(s.t, s.sent))
	s.r.Wait(s.t, n)
	return s.r.Calls()[n-1]
}

// refused applies what is refused.
func (s *sealing) refused(yaml, says string) {
	s.t.Helper()
	got := commandLine(s.t, yaml, "apply", "-", "--brokers", strings.Join(s.cfg.Brokers, ","), "--prefix", string(s.cfg.Names))
	got.fails(s.t, exitFailed, says)
}

// stored is all that was ever written into the definitions and their history.
func (s *sealing) stored() string {
	s.t.Helper()
	var b strings.Builder
	topics := []string{s.cfg.Names.Definitions(), s.cfg.Names.Changes()}
	err := stream.Scan(s.t.Context(), s.cfg, topics, time.Time{}, nil, func(r pipeline.Record) error {
		fmt.Fprintf(&b, "%s %s\n", r.Key, r.Value)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

const (
	geheim        = "pl4nted-s3cret"
	geheimSigning = "whsec_cGw0bnRlZC1wbDRudGVkLXBsNG50ZWQtcGw0bnRlZA=="
)

// Secrets that are written out are sent by the sink, and nobody else can read
// them: not in the topics, in what export prints, nor in a plan. What export
// prints stays as it is.
func TestWrittenSecretsAreSealed(t *testing.T) {
	t.Parallel()
	s := startSealing(t)
	lines := "  headers: {X-Api-Key: " + geheim + "-key}\nauth: {type: bearer, token: " + geheim + "}\nsigning: {secret: " + geheimSigning + "}\n"
	said := s.applyOnly(s.hooked("crm", lines))
	c := s.call()
	if c.Header.Get("Authorization") != "Bearer "+geheim || c.Header.Get("X-Api-Key") != geheim+"-key" || c.Header.Get("Webhook-Signature") == "" {
		t.Errorf("sent was %v", c.Header)
	}
	exported := s.command("", "export")
	if again := s.applyOnly(exported); !strings.Contains(again, "0 to add, 0 to change, 0 to remove, 2 unchanged") {
		t.Errorf("what was exported changes something:\n%s", again)
	}
	if got := strings.Count(exported, "${sealed:"); got != 3 {
		t.Errorf("%d sealed secrets are in\n%s", got, exported)
	}
	anew := s.applyOnly(s.hooked("crm", lines))
	if !strings.Contains(anew, "auth.token: ") || strings.Count(anew, "(sealed now, since it is written out)") != 3 {
		t.Errorf("applied again, it says\n%s", anew)
	}
	dry := s.command(s.hooked("crm", lines), "apply", "-", "--dry-run", "--json")
	if c := s.call(); c.Header.Get("Authorization") != "Bearer "+geheim {
		t.Errorf("sent was %v", c.Header)
	}
	shown := said + exported + anew + dry + s.stored() + s.command("", "list", "--json") + s.command("", "test", "crm", "--keyset-file", s.keyset) + s.log.String()
	for _, plain := range []string{geheim, geheimSigning[6:], base64.StdEncoding.EncodeToString([]byte(geheim))} {
		if strings.Contains(shown, plain) {
			t.Errorf("%s is seen", plain)
		}
	}
}

// A sealed secret stays in its field of its destination, and with its address.
func TestSealedSecretsCantBeMoved(t *testing.T) {
	t.Parallel()
	s := startSealing(t)
	s.applyOnly(s.hooked("crm", "auth: {type: bearer, token: "+geheim+"}\n"))
	_, token, _ := strings.Cut(s.command("", "export"), "${sealed:")
	token, _, _ = strings.Cut(token, "}")
	lines := "auth: {type: bearer, token: \"${sealed:" + token + "}\"}\n"
	s.refused(s.hooked("erp", lines), "5:29: token: ${sealed:…"+token[len(token)-6:]+"} can't be opened here: it was sealed for another destination or another field")
	elsewhere := strings.Replace(s.hooked("crm", lines), s.r.URL, "https://evil.example", 1)
	s.refused(elsewhere, "5:29: token: ${sealed:…"+token[len(token)-6:]+"} can't be opened here: it was sealed for another scheme, host, port or token_url; write the secret itself again")
	commandLine(t, elsewhere, "check", "-").fails(t, exitFailed, "another scheme, host, port or token_url")
	s.applyOnly(strings.Replace(elsewhere, "${sealed:"+token+"}", "another", 1)) // written again, it may go
	s.applyOnly(s.hooked("crm", lines))
	if c := s.call(); c.Header.Get("Authorization") != "Bearer "+geheim {
		t.Errorf("sent was %v", c.Header)
	}

	// A URL has its secrets sealed by command.
	path := strings.TrimSpace(s.command(geheim+"\n", "seal", "crm", "request.url"))
	s.applyOnly(strings.Replace(s.hooked("crm", lines), "/in", "/in/"+path, 1))
	if c := s.call(); c.Path != "/in/"+geheim || c.Header.Get("Authorization") != "Bearer "+geheim {
		t.Errorf("called was %s", c.Path)
	}
	if shown := s.stored() + s.command("", "list") + s.log.String(); strings.Contains(shown, geheim) || strings.Contains(s.command("", "list"), path) {
		t.Errorf("it is seen in %s", shown)
	}
}

// Somebody writes a destination of another address into the topic, past all
// checks. The sink does not send him the secret, and nothing is lost.
func TestSealedSecretsStayWhateverTheTopicSays(t *testing.T) {
	t.Parallel()
	s := startSealing(t)
	evil := pipelinetest.Receiver(t)
	s.apply(s.hooked("crm", "auth: {type: bearer, token: "+geheim+"}\n"))
	s.call()
	var forged pipeline.Record
	s.read("the definition", func(r *pipeline.Record) bool {
		forged = pipeline.Record{Topic: r.Topic, Key: r.Key, Value: bytes.ReplaceAll(r.Value, []byte(s.r.URL), []byte(evil.URL))}
		return string(r.Key) == "Destination/crm"
	}, s.cfg.Names.Definitions())
	if err := s.producer.Produce(t.Context(), []pipeline.Record{forged}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sink has the forged definition", func() bool {
		return strings.HasPrefix(s.sink.live.Snapshot().Destinations["crm"].Request.URL, evil.URL)
	})
	s.produce(tickEvent(t, 2))
	eventually(t, "/readyz says what is wrong", func() bool {
		text := fmt.Sprint(s.sink.health.Err())
		return strings.Contains(text, "destination crm: secret ${sealed:…") &&
			strings.Contains(text, "in auth.token can't be opened: it was sealed for another scheme, host, port or token_url")
	})
	s.ledger(map[string]endings{"crm": {pipeline.Matched: 2, pipeline.Delivered: 1}})
	if evil.Count() != 0 || s.r.Count() != 1 {
		t.Errorf("%d calls to another address, %d to the right one", evil.Count(), s.r.Count())
	}
}

// After a rotation, what was sealed before is opened as before. With another
// keyset deliveries wait, and /readyz says for what.
func TestKeysetOfARunningSink(t *testing.T) {
	t.Parallel()
	s := startSealing(t)
	s.apply(s.hooked("old", "auth: {type: bearer, token: "+geheim+"}\n"))
	commandLine(t, "", "keys", "rotate", s.keyset).must(t)
	s.published(s.keyset)
	if c := s.call(); c.Header.Get("Authorization") != "Bearer "+geheim {
		t.Errorf("after the rotation, sent was %v", c.Header)
	}
	s.apply(s.hooked("old", "status: paused\n") + "---\n" + s.hooked("crm", "auth: {type: bearer, token: "+geheim+"-new}\n"))
	if c := s.call(); c.Header.Get("Authorization") != "Bearer "+geheim+"-new" {
		t.Errorf("with the new key, sent was %v", c.Header)
	}

	right, err := os.ReadFile(s.keyset)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := createKeyset(s.keyset + ".other"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.keyset+".other", s.keyset); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz says that the keyset is another", func() bool {
		text := fmt.Sprint(s.sink.health.Err())
		return strings.Contains(text, "destination crm: secret ${sealed:…") && strings.Contains(text, "in auth.token can't be opened: the keyset has no key") &&
			strings.Contains(text, "keyset: secrets are sealed with the key") && !strings.Contains(text, geheim)
	})
	calls := s.r.Count()
	s.sent++
	s.produce(tickEvent(t, s.sent))
	s.ledger(map[string]endings{
		"old": {pipeline.Matched: 3, pipeline.Delivered: 1}, "crm": {pipeline.Matched: 2, pipeline.Delivered: 1},
	})
	if got := s.r.Count(); got != calls {
		t.Errorf("%d calls without the keyset", got-calls)
	}
	if err := os.WriteFile(s.keyset, right, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz is content", func() bool { return s.sink.health.Err() == nil })
	if c := s.call(); c.Header.Get("Authorization") != "Bearer "+geheim+"-new" {
		t.Errorf("with the keyset again, sent was %v", c.Header)
	}
}
