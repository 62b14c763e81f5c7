package telemetry

import (
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-io/millrace/pipeline"
)

// The headers of a trace context, in records and in calls (W3C Trace Context).
const (
	traceparentHeader = "traceparent"
	tracestateHeader  = "tracestate"
)

// maxState is how much of a tracestate is handed on, in bytes. W3C asks for 512;
// one without a bound would have destinations refuse the call.
const maxState = 4 << 10

// TraceContext returns the trace context of a record as a call may carry it:
// traceparent as it is, and tracestate in one piece. Where traceparent is missing
// or broken, there is none; where only tracestate is, that is left out.
func TraceContext(headers []pipeline.Header) (parent, state string) {
	value, ok := lastOf(headers, traceparentHeader)
	if !ok {
		return "", ""
	}
	if _, ok := parseTraceparent(value); !ok {
		return "", ""
	}
	return string(value), stateOf(headers)
}

func lastOf(headers []pipeline.Header, key string) ([]byte, bool) {
	r := pipeline.Record{Headers: headers}
	return r.Header(key)
}

// stateOf joins the tracestate headers; "" if that can't stand in a call.
func stateOf(headers []pipeline.Header) string {
	var state []byte
	for _, h := range headers {
		if h.Key != tracestateHeader {
			continue
		}
		if len(state)+len(h.Value) >= maxState {
			return ""
		}
		if len(state) > 0 {
			state = append(state, ',')
		}
		state = append(state, h.Value...)
	}
	for _, c := range state {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return string(state)
}

// The places of the parts in a traceparent: version, trace, span, flags.
const (
	traceAt       = 3
	spanAt        = 36
	flagsAt       = 53
	traceparentIs = 55 // bytes; later versions may have more, after another dash
)

// parseTraceparent reads a traceparent. OpenTelemetry's own propagator says the
// same and takes a context and an allocation for it, for every record that comes
// with one, sampled or not.
func parseTraceparent(v []byte) (c trace.SpanContextConfig, ok bool) {
	if len(v) < traceparentIs || v[traceAt-1] != '-' || v[spanAt-1] != '-' || v[flagsAt-1] != '-' {
		return c, false
	}
	var version, flags [1]byte
	if !unhex(version[:], v) || !unhex(c.TraceID[:], v[traceAt:]) || !unhex(c.SpanID[:], v[spanAt:]) || !unhex(flags[:], v[flagsAt:]) {
		return c, false
	}
	const known = trace.FlagsSampled | trace.FlagsRandom
	c.TraceFlags = trace.TraceFlags(flags[0]) & known
	c.Remote = true
	rest := v[traceparentIs:]
	switch version[0] {
	case 0:
		ok = len(rest) == 0 && flags[0] == byte(c.TraceFlags)
	case 0xff:
	default:
		ok = len(rest) == 0 || rest[0] == '-'
	}
	return c, ok && c.TraceID.IsValid() && c.SpanID.IsValid()
}

// unhex fills dst from small hexadecimal digits.
func unhex(dst, src []byte) bool {
	var wrong byte
	for i := range dst {
		high, low := digit(src[2*i]), digit(src[2*i+1])
		wrong |= high | low
		dst[i] = high<<4 | low
	}
	return wrong < 16
}

// digit returns the value of a hexadecimal digit, 16 or more for anything else.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
