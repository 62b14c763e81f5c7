package pipelinetest

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// Schemas is a schema registry with one schema in it, and a producer's side of
// it: franz-go's client, which registers and writes the wire format as
// Confluent's libraries do.
type Schemas struct {
	URL string

	serde sr.Serde
	away  atomic.Bool
}

// Registry starts a schema registry and registers an Avro schema. It ends with
// the test.
func Registry(t testing.TB, subject, schema string) *Schemas {
	t.Helper()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	s := &Schemas{URL: fake.URL()}
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatalf("reading the schema: %v", err)
	}
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	client, err := sr.NewClient(sr.URLs(s.URL), sr.HTTPClient(web))
	if err != nil {
		t.Fatalf("making a client of the registry: %v", err)
	}
	registered, err := client.CreateSchema(context.Background(), subject, sr.Schema{Schema: schema, Type: sr.TypeAvro})
	if err != nil {
		t.Fatalf("registering the schema: %v", err)
	}
	s.serde.Register(registered.ID, map[string]any{}, sr.EncodeFn(func(v any) ([]byte, error) {
		return codec.BinaryFromNative(nil, v)
	}))
	fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if s.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return s.away.Load()
	})
	return s
}

// Encode writes a datum, in goavro's form, as producers do: byte 0, the
// schema's id, Avro.
func (s *Schemas) Encode(t testing.TB, datum map[string]any) []byte {
	t.Helper()
	b, err := s.serde.Encode(datum)
	if err != nil {
		t.Fatalf("encoding %v: %v", datum, err)
	}
	return b
}

// Away has the registry answer 503, or answer again.
func (s *Schemas) Away(away bool) { s.away.Store(away) }
