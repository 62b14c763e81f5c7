package pipelinetest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span as a receiver of OTLP gets it. Ids are in hex.
type Span struct {
	Trace, ID, Parent string // Parent is "" where the trace begins
	State             string // tracestate
	Name, Kind        string
	Start, End        time.Time
	Attributes        map[string]string
	Events            []SpanEvent
	Error             string // what its status says, if that is an error
}

// SpanEvent is something that happened within a span.
type SpanEvent struct {
	Name       string
	Attributes map[string]string
}

// Collection is a receiver of traces: OTLP over HTTP, in protobuf.
type Collection struct {
	URL string

	mu       sync.Mutex
	spans    []Span
	resource map[string]string
	header   http.Header
}

// Collector starts a receiver of traces. It ends with the test.
func Collector(t testing.TB) *Collection {
	t.Helper()
	c := &Collection{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("receiving traces: %v", err)
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	server := httptest.NewServer(mux)
	c.URL = server.URL
	t.Cleanup(server.Close)
	return c
}

func (c *Collection) take(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = r.Header
	for _, from := range request.GetResourceSpans() {
		c.resource = texts(from.GetResource().GetAttributes())
		for _, scope := range from.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, spanOf(s))
			}
		}
	}
	return nil
}

func spanOf(s *trace.Span) Span {
	out := Span{
		Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		State: s.GetTraceState(), Name: s.GetName(), Kind: s.GetKind().String(),
		Start: nanos(s.GetStartTimeUnixNano()), End: nanos(s.GetEndTimeUnixNano()),
		Attributes: texts(s.GetAttributes()),
	}
	for _, e := range s.GetEvents() {
		out.Events = append(out.Events, SpanEvent{e.GetName(), texts(e.GetAttributes())})
	}
	if status := s.GetStatus(); status.GetCode() == trace.Status_STATUS_CODE_ERROR {
		out.Error = status.GetMessage()
	}
	return out
}

func nanos(n uint64) time.Time { return time.Unix(0, int64(n)) }

func texts(attributes []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range attributes {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[kv.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		default:
			out[kv.GetKey()] = fmt.Sprint(v)
		}
	}
	return out
}

// Spans returns what came in, in the order in which the spans began.
func (c *Collection) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedStableFunc(slices.Values(c.spans), func(a, b Span) int { return a.Start.Compare(b.Start) })
}

// Resource returns what the sender says of itself.
func (c *Collection) Resource() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resource
}

// Header returns the headers of the last request.
func (c *Collection) Header() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header
}
