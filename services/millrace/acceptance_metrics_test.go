package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// metric is what is said of a metric: of what kind it is, its labels, its help.
type metric struct{ kind, labels, help string }

// What a process serves after events have gone every way is what the list of
// metrics says, and besides only what the Go runtime and the system say.
func TestMetricsAreThoseOfTheList(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(
		pipelinetest.Answer{Status: 503}, pipelinetest.Answer{Status: 400}, pipelinetest.Answer{},
	)))
	collector := pipelinetest.Collector(t)
	m := start(t, options{traces: traceSettings{Endpoint: collector.URL, Sample: 1}})
	m.apply(soonAgain("crm", r.URL))
	m.produce(tickEvent(t, 1)) // fails, then is refused
	r.Wait(t, 2)
	m.produce(tickEvent(t, 2), jsonEvent(t, map[string]any{"type": "nobody.wants_it"}))
	r.Wait(t, 3)
	m.settled(map[string]endings{"crm": {"matched": 2, "delivered": 1, "dead_letter": 1}})

	list := metricsList(t)
	served := map[string]metric{}
	eventually(t, "what has to be there is served", func() bool {
		served = m.processes[0].served()
		for _, name := range []string{
			"events_read_total", "events_unwanted_total", "matches_total", "deliveries_produced_total", "attempts_total",
			"attempt_duration_seconds", "attempts_in_flight", "deliveries_ended_total", "deliveries_delayed_total",
			"destinations_stopped", "dead_letters_total", "transactions_total", "transaction_records", "definitions_offset", "definitions_broken", "spans_total",
		} {
			if _, ok := served["millrace_"+name]; !ok {
				return false
			}
		}
		return true
	})
	runtime := regexp.MustCompile(`^(go_|process_|promhttp_metric_handler_errors_total$|target_info$)`)
	for name, got := range served {
		want, ours := list[name]
		switch {
		case ours && got != want:
			t.Errorf("%s is served as %+v, the list has %+v", name, got, want)
		case !ours && !runtime.MatchString(name):
			t.Errorf("%s is served, but not in the list", name)
		}
	}
}

// metricsList reads the list that is held against the code in its own package.
func metricsList(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../../pipeline/telemetry/testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(\w+)\{([\w,]*)\} (\w+) \S+: (.*)\n$`)
	list := map[string]metric{}
	for l := range strings.Lines(string(text)) {
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("the list has the line %q", l)
		}
		list[m[1]] = metric{m[3], m[2], m[4]}
	}
	return list
}

var label = regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)

// served returns what the process answers at /metrics, in Prometheus' text.
func (p *process) served() map[string]metric {
	w := httptest.NewRecorder()
	telemetry.NewMux(p.Telemetry, p.health).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	all := map[string]metric{}
	name := "" // of the metric whose series come next
	for l := range strings.Lines(w.Body.String()) {
		l = strings.TrimSuffix(l, "\n")
		switch rest, help := strings.CutPrefix(l, "# HELP "); {
		case help:
			var text string
			name, text, _ = strings.Cut(rest, " ")
			all[name] = metric{help: text}
		case strings.HasPrefix(l, "# TYPE "):
			m := all[name]
			m.kind = l[strings.LastIndex(l, " ")+1:]
			all[name] = m
		default:
			m := all[name]
			m.labels = strings.Join(labelsIn(l), ",")
			all[name] = m
		}
	}
	return all
}

// labelsIn returns the names of the labels in a line, less a histogram's own.
func labelsIn(line string) (names []string) {
	for _, l := range label.FindAllStringSubmatch(line, -1) {
		if l[1] != "le" {
			names = append(names, l[1])
		}
	}
	slices.Sort(names)
	return names
}
