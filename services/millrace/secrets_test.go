package main

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
	"github.com/millrace-io/millrace/services/filter"
	"github.com/millrace-io/millrace/services/sink"
	"github.com/millrace-io/millrace/services/transform"
)

// planted is the one place where secrets are planted and looked for.
type planted struct {
	*millrace
	vault  *vault
	mirror *mirror
	file   string            // with all definitions
	wants  map[string]string // destinations, and what is to be seen of each
	shown  map[string]string // all that was shown, by what showed it
}

// Every place of a secret meets everything that may quote it: what the roles
// write, log, trace and count and what commands print has none of it.
func TestNoSecretIsShown(t *testing.T) {
	var standard logBuffer
	log.SetOutput(&standard)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	v := newVault(t)
	p := &planted{vault: v, mirror: serveMirror(t, v), wants: map[string]string{}, shown: map[string]string{}}
	v.plant(t, "url", p.mirror.URL+"/services/h00k1111-id0/wh0le111-segment?key=wh0le222-sig")
	v.plant(t, "short-url", p.mirror.URL+"/T0/B1/z9?k=q7")
	v.marks["short-url"] = append(v.marks["short-url"], "/T0/B1/z9")
	p.write(t)
	collector := pipelinetest.Collector(t)
	p.millrace = start(t, options{
		idle: true, secrets: v.dir, keyset: tempFile(t, "keyset.json", v.value("keyset")), traces: traceSettings{Endpoint: p.tellingCollector(t, collector.URL), Sample: 1},
		proxy: egressProxySettings{
			EgressProxy: p.mirror.URL, EgressProxyUsername: "me", EgressProxyPasswordFile: v.file("proxy"), EgressNoProxy: []string{"127.0.0.1", "::1"},
		},
		registry: registrySettings{URL: p.tellingRegistry(t), Username: "reader", PasswordFile: v.file("registry")},
	})
	debug := &slog.HandlerOptions{Level: slog.LevelDebug}
	p.cfg.Log = slog.New(slog.NewMultiHandler(slog.NewTextHandler(p.log, debug), slog.NewJSONHandler(p.log, debug)))
	process := p.run(filter.Role, transform.Role, sink.Role)
	eventually(t, "the sink has published its key", func() bool {
		defs := process.live.Snapshot()
		return defs != nil && defs.Keys != nil
	})
	p.commands()
	p.produce(jsonEvent(t, map[string]any{"id": "e-1", "type": "menu.opened", "user": "u-1"}))
	p.waitForCalls()
	p.moreCommands()
	p.waitUntilReadyz(&process, "destination token-", len(tokenEchoes))
	p.produce(pipeline.Record{Value: []byte{0, 0, 0, 0, 1, 0}}) // Avro by a schema that has to be asked for
	p.waitUntilReadyz(&process, "[secret]: asked by", 1)
	p.scan()
	p.shown["/metrics"] = p.get(&process, "/metrics")
	process.stop()
	p.shown["spans"] = fmt.Sprintf("%+v", collector.Spans())
	p.shown["log"] = p.log.String()
	p.shown["standard log"] = standard.String()
	p.check()
}

// write makes a file of a destination and a webhook for each place and each echo,
// and for what else may go wrong.
func (p *planted) write(t *testing.T) {
	t.Helper()
	var b strings.Builder
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(slow.Close)
	define := func(name, echo, keys string) {
		keys = strings.NewReplacer(
			"$ECHO", fmt.Sprintf("X-Name: %s, X-Echo: %s", name, echo), "$SECURE", strings.Replace(p.mirror.URL, "http", "https", 1),
			"$HERE", p.mirror.URL, "$SLOW", slow.URL,
		).Replace(keys)
		fmt.Fprintf(&b, "kind: Destination\nname: %s\n%s\nretry: {attempts: 1}\n", name, keys)
		switch {
		case echoes[echo] != nil, echo == "wait": // all at once, on a machine that may be busy
			b.WriteString("limits: {timeout: 20s, connect_timeout: 10s}\n")
		case !strings.Contains(keys, "limits:"):
			b.WriteString("limits: {timeout: 2s, connect_timeout: 1s}\n")
		}
		fmt.Fprintf(&b, "---\nkind: Webhook\nname: %s\nevent: menu.opened\ndestination: %[1]s\n---\n", name)
		p.wants[name] = echo
	}
	for place, keys := range p.vault.allPlaces() {
		for echo := range echoes {
			define(place+"-"+echo, echo, keys)
		}
	}
	for name, keys := range faults() {
		define(name, "fault", keys)
	}
	for name, keys := range p.vault.waits() {
		define(name, "wait", keys)
	}
	p.file = tempFile(t, "planted.yaml", b.String())
}

// tellingCollector takes traces, but the first it answers with what it was sent.
func (p *planted) tellingCollector(t *testing.T, to string) string {
	t.Helper()
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20"+p.vault.value("otlp"))
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan bool, 1)
	asked <- true
	pass := httputil.NewSingleHostReverseProxy(u)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-asked:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, "not with %s", r.Header.Get("Authorization"))
		default:
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// tellingRegistry has no schemas, and says who asks for them.
func (p *planted) tellingRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s: asked by %s", password, r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// command keeps what a command prints, whatever its exit code.
func (p *planted) keep(name string, args ...string) {
	p.t.Helper()
	r := commandLine(p.t, "", args...)
	p.shown[name] += r.out + r.err
	if r.code == exitUsage || r.out+r.err == "" {
		p.t.Errorf("%s: exit code %d: %s", name, r.code, r.err)
	}
}

// onKafka is keep for a command that needs Kafka.
func (p *planted) onKafka(name string, args ...string) {
	p.t.Helper()
	p.keep(name, append(args, "--brokers", strings.Join(p.cfg.Brokers, ","), "--prefix", string(p.cfg.Names), "--log-level", "debug")...)
}

// commands are those for definitions; they leave them in force.
func (p *planted) commands() {
	p.t.Helper()
	p.keep("check", "check", p.file)
	p.keep("check of mistakes", "check", tempFile(p.t, "mistakes.yaml", regexp.MustCompile("<[a-z]+>").ReplaceAllStringFunc(mistakes, func(name string) string {
		return p.vault.value(strings.Trim(name, "<>"))
	})))
	p.keep("check --json", "check", p.file, "--json")
	p.onKafka("apply --dry-run", "apply", p.file, "--dry-run")
	p.onKafka("apply --json", "apply", p.file, "--dry-run", "--json")
	text, err := os.ReadFile(p.file)
	if err != nil {
		p.t.Fatal(err)
	}
	p.shown["apply"] = p.applyOnly(string(text))
	p.onKafka("export", "export")
	p.onKafka("list", "list")
	p.onKafka("list --json", "list", "--json")
	p.keep("keys public", "keys", "public", p.opts.keyset)
	p.keep("keys rotate", "keys", "rotate", p.opts.keyset)
	p.keep("list at no Kafka", "list", "--brokers", strings.TrimPrefix(p.mirror.URL, "http://"),
		"--sasl-mechanism", "PLAIN", "--sasl-username", "me", "--sasl-password-file", p.vault.file("kafka"))
	egress := []string{
		"--secrets-dir", p.vault.dir, "--egress-allow", "127.0.0.0/8", "--egress-proxy", p.mirror.URL, "--egress-proxy-username", "me",
		"--egress-proxy-password-file", p.vault.file("proxy"), "--egress-no-proxy", "127.0.0.1,::1",
	}
	for name, args := range map[string][]string{
		"test": nil, "test --json": {"--json"}, "test --send": {"--send", "--yes"}, "test --send --json": {"--send", "--yes", "--json"},
	} {
		p.keep(name, slices.Concat([]string{"test", "-f", p.file}, egress, args)...)
	}
}

// moreCommands are those that look at what has happened.
func (p *planted) moreCommands() {
	p.t.Helper()
	for what, count := range map[string]int{"events": 1, "matches": 1, "deliveries": len(p.wants), "attempts": 300, "dead-letters": 200} {
		for _, more := range [][]string{nil, {"--json"}} {
			p.onKafka("tail "+what, append([]string{"tail", what, "--from-start", "--count", fmt.Sprint(count)}, more...)...)
		}
	}
	p.onKafka("destinations pause", "destinations", "pause", "private", "--why", "to see it")
	p.onKafka("destinations list", "destinations", "list")
	p.onKafka("destinations show", "destinations", "show", "bearer-refused")
	p.onKafka("destinations show", "destinations", "show", "private", "--json")
	for _, webhook := range []string{"bearer-plain", "grant-refused", "slow", "unfit-url", "token-says"} {
		p.onKafka("explain", "explain", webhook, "e-1")
		p.onKafka("explain", "explain", webhook, "e-1", "--json")
	}
}

// waitForCalls waits until every destination was called, or its delivery waits.
func (p *planted) waitForCalls() {
	p.t.Helper()
	topics := []string{p.cfg.Names.Attempts(), p.cfg.Names.DeadLetters(), p.cfg.Names.Waiting(pipeline.DefaultLane)}
	for _, tier := range pipeline.Tiers() {
		topics = append(topics, p.cfg.Names.Delays(tier))
	}
	left := maps.Clone(p.wants)
	defer func() {
		if len(left) > 0 {
			p.t.Errorf("nothing came of %v", left)
		}
	}()
	p.read("every destination", func(r *pipeline.Record) bool {
		switch header, _ := r.Header(pipeline.EnvelopeHeader); r.Topic {
		case p.cfg.Names.DeadLetters():
			x, err := pipeline.ParseDeadLetter(header)
			if err != nil {
				p.t.Fatal(err)
			}
			delete(left, x.Webhook)
		case p.cfg.Names.Attempts():
			a, err := event.ParseAttempt(r.Value)
			if err != nil {
				p.t.Fatal(err)
			}
			delete(left, a.Destination)
			p.checkAttempt(a)
		default:
			delete(left, parseDelivery(p.t, r).Destination)
		}
		return len(left) == 0
	}, topics...)
}

// quotes are the echoes of which an attempt has something, with the secret
// hidden.
var quotes = []string{
	"plain", "refused", "again", "json", "json-raw", "html", "go", "query", "query-low", "path", "path-low", "base64", "base64-url",
	"php", "python", "others", "digits", "endless", "length", "encoding",
}

// checkAttempt sees to it that an attempt would have shown what it must not.
func (p *planted) checkAttempt(a *event.Attempt) {
	p.t.Helper()
	said, echo := a.Error+string(a.Response), p.wants[a.Destination]
	if slices.Contains(quotes, echo) && !strings.Contains(said, secret.Mask) {
		p.t.Errorf("the attempt at %s says %q", a.Destination, said)
	}
	if echo == "encoded" && len(a.Response) > 0 {
		p.t.Errorf("of a response in a code is kept %q", a.Response)
	}
}

func (p *planted) get(process *process, path string) string {
	w := httptest.NewRecorder()
	telemetry.NewMux(process.Telemetry, process.health).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Body.String()
}

// waitUntilReadyz waits until /readyz says something so many times.
func (p *planted) waitUntilReadyz(process *process, text string, times int) {
	p.t.Helper()
	eventually(p.t, "/readyz says "+text, func() bool {
		said := p.get(process, "/readyz")
		if strings.Count(said, text) < times {
			return false
		}
		p.shown["/readyz"] += said
		return true
	})
}

// scan keeps what is in every topic.
func (p *planted) scan() {
	p.t.Helper()
	n := p.cfg.Names
	topics := []string{n.Events(), n.Matches(), n.DeadLetters(), n.Attempts(), n.Ledger(), n.Definitions(), n.Changes(), n.States(), n.OperatorEvents()}
	for _, tier := range pipeline.Tiers() {
		topics = append(topics, n.Delays(tier))
	}
	topics = append(topics, n.Deliveries(pipeline.DefaultLane), n.Redeliveries(pipeline.DefaultLane), n.Waiting(pipeline.DefaultLane))
	err := stream.Scan(p.t.Context(), p.cfg, topics, time.Time{}, nil, func(r pipeline.Record) error {
		p.shown["topic "+r.Topic] += fmt.Sprintf("%s %s %s\n", r.Key, r.Value, r.Headers)
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// check looks for every secret in all that was shown, and for signs that it would
// have been there.
func (p *planted) check() {
	p.t.Helper()
	for by, text := range p.shown {
		for name, where := range p.vault.inSight(text) {
			p.t.Errorf("%s shows the secret %q: …%s…", by, name, where)
		}
	}
	for place := range p.vault.allPlaces() {
		if sent := p.mirror.sent[place+"-plain"]; len(p.vault.heldBy(sent)) == 0 {
			p.t.Errorf("%s: no secret was sent, but %q", place, sent)
		}
	}
	for _, by := range []string{"log", "/readyz", "test --send"} {
		if !strings.Contains(p.shown[by], "from "+p.mirror.URL+"/token/says: ") {
			p.t.Errorf("%s shows more than it should of a token endpoint's URL, or nothing", by)
		}
	}
	for by, says := range map[string]string{
		"log": "not with [secret]", "check of mistakes": "found characters here that mean something else", "spans": "Name:sink", "/readyz": "[secret]: asked by", "/metrics": "millrace_attempts_total",
		"test --send": "Response: ", "explain": "[secret]", "tail attempts": "[secret]", "tail dead-letters": "[secret]", "export": "${file:bearer}", "list": "written-bearer-plain",
	} {
		if !strings.Contains(p.shown[by], says) {
			p.t.Errorf("%s does not say %q: %.2000s", by, says, p.shown[by])
		}
	}
}
