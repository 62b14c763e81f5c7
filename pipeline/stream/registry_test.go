package stream

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/schemas"
)

// setupRegistry starts a registry that counts requests, and a client of it.
func setupRegistry(t *testing.T, opts ...srfake.Option) (fake *srfake.Registry, r *Registry, requests *atomic.Int64) {
	t.Helper()
	fake = srfake.New(opts...)
	t.Cleanup(fake.Close)
	requests = &atomic.Int64{}
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool {
		requests.Add(1)
		return false
	})
	r, err := NewRegistry(RegistryConfig{
		URLs: []string{fake.URL()}, Username: "millrace", Password: func() (string, error) { return "pw", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return fake, r, requests
}

func TestRegistryAsksOnceForASchema(t *testing.T) {
	t.Parallel()
	fake, r, requests := setupRegistry(t, srfake.WithAuth("Basic bWlsbHJhY2U6cHc="))
	fake.SeedSchema("events-value", 1, 7, sr.Schema{Schema: schemas.EventAvro, Type: sr.TypeAvro})
	for range 3 {
		schema, err := r.Schema(t.Context(), 7)
		if err != nil || !strings.Contains(schema, `"Event"`) {
			t.Fatalf("got %.80q, %v", schema, err)
		}
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestRegistryRemembersWhatIsUnknown(t *testing.T) {
	t.Parallel()
	_, r, requests := setupRegistry(t)
	for range 3 {
		if _, err := r.Schema(t.Context(), 8); !errors.Is(err, event.ErrSchemaUnknown) {
			t.Fatalf("got %v", err)
		}
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestRegistryRefusesOtherKindsOfSchema(t *testing.T) {
	t.Parallel()
	fake, r, _ := setupRegistry(t)
	fake.SeedSchema("json-value", 1, 9, sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON})
	if _, err := r.Schema(t.Context(), 9); !errors.Is(err, event.ErrSchemaUnknown) {
		t.Fatalf("got %v", err)
	}
}

func TestRegistryThatCannotAnswerIsNotAnUnknownSchema(t *testing.T) {
	t.Parallel()
	answers := map[string]func(http.ResponseWriter){
		"500": func(w http.ResponseWriter) { http.Error(w, `{"error_code":50001,"message":"no"}`, 500) },
		"404 of a proxy": func(w http.ResponseWriter) {
			http.Error(w, "no such page", http.StatusNotFound)
		},
		"401": func(w http.ResponseWriter) { http.Error(w, `{"error_code":401,"message":"who"}`, 401) },
		"no schema": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("<html>"))
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, r, _ := setupRegistry(t)
			fake.SeedSchema("events-value", 1, 7, sr.Schema{Schema: schemas.EventAvro, Type: sr.TypeAvro})
			var broken atomic.Bool
			broken.Store(true)
			fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				if broken.Load() {
					answer(w)
				}
				return broken.Load()
			})
			if _, err := r.Schema(t.Context(), 7); err == nil || errors.Is(err, event.ErrSchemaUnknown) {
				t.Fatalf("got %v", err)
			}
			broken.Store(false)
			if _, err := r.Schema(t.Context(), 7); err != nil {
				t.Errorf("once it answers again: %v", err)
			}
		})
	}
}
