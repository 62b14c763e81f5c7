package telemetry

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	for _, v := range os.Environ() { // a developer's own settings
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

func setup(t *testing.T) *Telemetry {
	t.Helper()
	tel, err := New(t.Context(), Config{Service: "millrace-test", Version: "v0", Instance: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

// use gives every instrument one value under labels named like their values.
func use(t *testing.T, m *Metrics) {
	t.Helper()
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		values := labelsOf(v.Type().Field(i).Tag)
		switch inst := v.Field(i).Interface().(type) {
		case *Counter:
			inst.Add(1, values...)
		case *UpDown:
			inst.Add(1, values...)
		case *Gauge:
			inst.Set(1, values...)
		case *Histogram:
			inst.Record(1, values...)
		default:
			t.Fatalf("%s is a %T", v.Type().Field(i).Name, inst)
		}
	}
}

// gather returns our own metrics, without those of the runtime.
func gather(t *testing.T, tel *Telemetry) []*dto.MetricFamily {
	t.Helper()
	all, err := tel.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var own []*dto.MetricFamily
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "millrace_") {
			own = append(own, f)
		}
	}
	return own
}

// golden is the list of metrics that dashboards and alerts are built on: names,
// labels, types, units and help, as Prometheus sees them.
const golden = "testdata/metrics.golden"

// TestGolden pins the list.
func TestGolden(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	use(t, tel.Metrics)

	var got strings.Builder
	families := gather(t, tel)
	units := units()
	for _, f := range families {
		unit, ok := units[f.GetName()]
		if !ok {
			t.Errorf("no field has a metric that is served as %s", f.GetName())
		}
		fmt.Fprintf(&got, "%s{%s} %s %s: %s\n", f.GetName(), labelNames(f.GetMetric()[0]),
			strings.ToLower(f.GetType().String()), unit, f.GetHelp())
	}
	if fields := reflect.TypeFor[Metrics]().NumField(); len(families) != fields {
		t.Errorf("%d fields are %d metrics", fields, len(families))
	}

	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("metrics differ from %s; run go test -update if that is meant.\ngot:\n%s", golden, got.String())
	}
}

// units returns the unit of each metric by the name that Prometheus gives it. It
// serves the unit itself only where that is part of the name.
func units() map[string]string {
	all := map[string]string{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Metrics]()) {
		name, unit := strings.ReplaceAll(field.Tag.Get("metric"), ".", "_"), field.Tag.Get("unit")
		if unit == "s" {
			name += "_seconds"
		}
		if field.Type == reflect.TypeFor[*Counter]() {
			name += "_total"
		}
		all[name] = unit
	}
	return all
}

// TestReadme holds the README's table of metrics against the list.
func TestReadme(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]string{}, map[string]string{}
	for line := range strings.Lines(string(list)) {
		name, rest, _ := strings.Cut(line, "{")
		labels, _, _ := strings.Cut(rest, "}")
		want[name] = labels
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(millrace_\\w+)` \\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		got[row[1]] = strings.ReplaceAll(strings.TrimSpace(row[2]), " ", "")
	}
	for name, labels := range want {
		if of, ok := got[name]; !ok || of != labels {
			t.Errorf("the README gives %s the labels %q, or leaves it out; they are %q", name, of, labels)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("the README has %s, which is no metric", name)
		}
	}
}

func labelNames(m *dto.Metric) string {
	var names []string
	for _, l := range m.GetLabel() {
		names = append(names, l.GetName())
		if l.GetName() != l.GetValue() { // use gives each label its own name
			names = append(names, "?")
		}
	}
	return strings.Join(names, ",")
}

// TestConventions holds the names against Prometheus' own rules.
func TestConventions(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	use(t, tel.Metrics)
	problems, err := promlint.NewWithMetricFamilies(gather(t, tel)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	tel.Metrics.Attempts.Add(2, "heap", "success")
	tel.Metrics.Attempts.Add(3, "heap", "success")
	tel.Metrics.AttemptsInFlight.Add(4, "heap")
	tel.Metrics.AttemptsInFlight.Add(-1, "heap")
	tel.Metrics.AttemptDuration.Record(0.02, "heap")
	tel.Metrics.DefinitionsOffset.Set(7, "sink")
	tel.Metrics.DefinitionsOffset.Set(9, "sink")

	answer := httptest.NewRecorder()
	tel.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`millrace_attempts_total{destination="heap",outcome="success"} 5`,
		`millrace_attempts_in_flight{destination="heap"} 3`,
		`millrace_attempt_duration_seconds_bucket{destination="heap",le="0.025"} 1`,
		`millrace_attempt_duration_seconds_sum{destination="heap"} 0.02`,
		`millrace_definitions_offset{role="sink"} 9`,
		`target_info{service_instance_id="one",service_name="millrace-test",service_version="v0"} 1`,
		"go_goroutines ",
		"process_cpu_seconds_total ",
	} {
		if !strings.Contains(string(body), "\n"+want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

// TestBoundedLabels shows that values users name end in "other" beyond the
// limit, that those the program chooses are still told apart, and that nothing
// is lost on the way.
func TestBoundedLabels(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	const destinations = MaxSeries + 500
	for i := range destinations {
		tel.Metrics.Attempts.Add(1, fmt.Sprint("d", i), "retry")
	}
	tel.Metrics.Attempts.Add(1, "d0", "success")
	tel.Metrics.Attempts.Add(1, fmt.Sprint("d", destinations-1), "success")

	got := map[string]float64{}
	var sum float64
	for _, m := range gather(t, tel)[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
		sum += m.GetCounter().GetValue()
	}
	want := map[string]float64{"d0 retry": 1, "d0 success": 1, "other retry": 500, "other success": 1}
	for series, n := range want {
		if got[series] != n {
			t.Errorf("%s = %v, want %v", series, got[series], n)
		}
	}
	if sum != destinations+2 {
		t.Errorf("%v counted, want %d", sum, destinations+2)
	}
	if len(got) != MaxSeries+3 {
		t.Errorf("%d series, want %d", len(got), MaxSeries+3)
	}
}

// TestForeignLabels shows that one broken value doesn't hide a metric, and that
// a label outlives the buffer it was read from.
func TestForeignLabels(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	buffer := []byte("survey")
	tel.Metrics.Matches.Add(1, unsafe.String(&buffer[0], len(buffer)))
	copy(buffer, "xxxxxx")
	tel.Metrics.Matches.Add(1, "a\xff")
	tel.Metrics.Matches.Add(1, "a\xff")

	got := map[string]float64{}
	for _, m := range gather(t, tel)[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	if want := map[string]float64{"survey": 1, "a\uFFFD": 2}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 1_000 {
				tel.Metrics.Matches.Add(1, fmt.Sprint("w", i%50))
			}
		})
	}
	all.Wait()
	series := gather(t, tel)[0].GetMetric()
	var sum float64
	for _, m := range series {
		sum += m.GetCounter().GetValue()
	}
	if len(series) != 50 || sum != 8_000 {
		t.Errorf("%d series and %v counted, want 50 and 8000", len(series), sum)
	}
}

func TestWrongNumberOfLabels(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("one value for two labels was taken")
		}
	}()
	Discard().Attempts.Add(1, "heap")
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	use(t, Discard())
}

func BenchmarkAdd(b *testing.B) {
	tel, err := New(b.Context(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	metrics := map[string]*Metrics{"kept": tel.Metrics, "discarded": Discard()}
	for name, m := range metrics {
		b.Run(name+"/no labels", func(b *testing.B) {
			for b.Loop() {
				m.EventsRead.Add(1)
			}
		})
		b.Run(name+"/two labels", func(b *testing.B) {
			for b.Loop() {
				m.Attempts.Add(1, "heap", "success")
			}
		})
		b.Run(name+"/histogram", func(b *testing.B) {
			for b.Loop() {
				m.AttemptDuration.Record(0.02, "heap")
			}
		})
	}
}
