package telemetry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	missing := errors.New("MILLRACE_SECRET_HEAP is not set")
	tests := []struct {
		name   string
		steps  func(h *Health)
		status int
		body   string
	}{
		{"at the start", func(*Health) {}, 503, "not ready\ndefinitions: starting\nkafka: starting\n"},
		{"one left", func(h *Health) { h.SetReady("kafka", nil) }, 503, "not ready\ndefinitions: starting\n"},
		{"all", func(h *Health) {
			h.SetReady("kafka", nil)
			h.SetReady("definitions", nil)
		}, 200, "ready\n"},
		{"lost again", func(h *Health) {
			h.SetReady("kafka", nil)
			h.SetReady("definitions", nil)
			h.SetReady("secrets", missing)
		}, 503, "not ready\nsecrets: MILLRACE_SECRET_HEAP is not set\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := NewHealth("kafka", "definitions")
			test.steps(h)
			mux := NewMux(setup(t), h)
			if status, body := get(t, mux, "/readyz"); status != test.status || body != test.body {
				t.Errorf("/readyz: %d %q, want %d %q", status, body, test.status, test.body)
			}
			if status, body := get(t, mux, "/healthz"); status != 200 || body != "alive\n" {
				t.Errorf("/healthz: %d %q", status, body)
			}
			if (h.Err() == nil) != (test.status == 200) {
				t.Errorf("Err is %v", h.Err())
			}
		})
	}
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

func TestMuxServesMetrics(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	tel.Metrics.EventsRead.Add(3)
	status, body := get(t, NewMux(tel, NewHealth()), "/metrics")
	if status != 200 || !strings.Contains(body, "millrace_events_read_total 3\n") {
		t.Errorf("%d\n%s", status, body)
	}
}

// TestServeEnds shows that an answer under way is finished after ctx has ended.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		for { // until the server takes no more calls, that is while it shuts down
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
			if err != nil {
				break
			}
			conn.Close()
		}
		say(w, "done")
	})
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, slow) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "done" {
		t.Errorf("answer %q, error %v", body, err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

func TestServeTakenAddress(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = Serve(t.Context(), taken.Addr().String(), http.NotFoundHandler())
	if err == nil || !strings.HasPrefix(err.Error(), "listening on "+taken.Addr().String()) {
		t.Errorf("error %v does not say what could not be bound", err)
	}
}

func TestServeLostListener(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := serve(t.Context(), listener, http.NotFoundHandler()); err == nil {
		t.Error("a closed listener is no error")
	}
}
