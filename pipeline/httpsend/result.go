package httpsend

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Outcome is what a call means for its delivery and its destination.
type Outcome int

// The outcomes.
const (
	NotSent    Outcome = iota // a secret, an access token or a login at the proxy is missing: wait, no attempt was used
	Success                   // the destination took it
	Retry                     // try again later, not before RetryAfter
	DeadLetter                // final: trying again does not mend it
	Pause                     // keep this and the destination's other deliveries until somebody acts
	Disable                   // the destination says it is gone (410)
)

// outcomes are their names.
func outcomes() []string {
	return []string{"not_sent", "success", "retry", "dead_letter", "pause", "disable"}
}

func (o Outcome) String() string {
	names := outcomes()
	if o < 0 || int(o) >= len(names) {
		return "outcome " + strconv.Itoa(int(o))
	}
	return names[o]
}

// Class says in one word what kept a call from being answered in full. It is
// stable: a label of metrics, a field of attempts.
type Class string

// The classes. With a status, a class says why the body is not whole; the
// outcome is then that of the status, or Retry where a Meaning would have looked
// at the body.
const (
	Answered         Class = ""                   // the response came whole
	ClassDNS         Class = "dns"                // the name could not be resolved
	ClassConnect     Class = "connect"            // no connection: refused, unreachable, connect timeout
	ClassTLS         Class = "tls"                // handshake failed: certificate, protocol
	ClassTimeout     Class = "timeout"            // the call took longer than Target.Timeout
	ClassNetwork     Class = "network"            // the connection broke
	ClassProtocol    Class = "protocol"           // what came back is not HTTP, or its header is too large
	ClassBlocked     Class = "blocked"            // the address is private and egress.allow does not open it
	ClassProxy       Class = "proxy"              // the egress proxy made no connection
	ClassCanceled    Class = "canceled"           // the caller's context ended; the call may have arrived
	ClassSecret      Class = "secret_missing"     // a secret is missing, or unfit for where it is put
	ClassToken       Class = "token_missing"      // the token endpoint gives none
	ClassTooLarge    Class = "body_too_large"     // over Target.MaxBody
	ClassInvalid     Class = "invalid_request"    // no request can be made of the call
	ClassMaxResponse Class = "response_too_large" // over Target.MaxResponse; the rest was not read
)

// Result is how a call went.
type Result struct {
	Status  int // of the response; 0 if there was none
	Outcome Outcome
	Class   Class
	// Err says what went wrong, without secrets; nil on Success alone. With
	// DeadLetter it is a *pipeline.PermanentError that has the reason; with
	// NotSent, a *secret.MissingError is in its chain where one is missing.
	Err error
	// RetryAfter is the least time to wait that the destination asked for, at most
	// MaxRetryAfter; 0 if it did not. With NotSent, it is the time after which the
	// token endpoint (ClassToken) or the proxy (ClassProxy) is asked again; with
	// ClassSecret nobody knows.
	RetryAfter time.Duration
	// Response is the beginning of the body where it is text and the status is not
	// 2xx: UTF-8 without secrets, at most MaxKept bytes.
	Response []byte
	Latency  time.Duration // until the response was read, without waiting for an access token
}

// MaxRetryAfter is the longest Retry-After that is honoured.
const MaxRetryAfter = time.Hour

// MaxKept is how many bytes of a response a Result keeps.
const MaxKept = 4 << 10

// verdict is what a status means where the destination does not say otherwise.
func verdict(status int) Outcome {
	switch {
	case status >= 200 && status <= 299:
		return Success
	case status >= 500 && status <= 599:
		return Retry
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return Retry
	case http.StatusUnauthorized, http.StatusForbidden:
		return Pause
	case http.StatusGone:
		return Disable
	}
	return DeadLetter
}

// Meaning is what a response means, by its status and its body.
type Meaning struct {
	Status string            // a status or a class such as "2xx"; empty: any
	Body   func([]byte) bool // says whether the body is one that it is about; nil: each is
	Means  string            // by the names of outcomes
	About  string            // why, for people to read; it holds no secret
}

func (m *Meaning) isAbout(status int) bool {
	return m.Status == "" || m.Status == strconv.Itoa(status) || m.Status == class(status)
}

// class is what the statuses of a hundred are called together.
func class(status int) string { return strconv.Itoa(status/100) + "xx" }

// verdicts are what responses mean to one destination: first what is said about a
// status, then about its class, then what a body says, then what the status means
// anywhere.
type verdicts struct {
	statuses map[string]Outcome
	meanings []Meaning
}

// newVerdicts reads Target.Responses and Target.Meanings.
func newVerdicts(responses map[string]string, meanings []Meaning) (verdicts, error) {
	v := verdicts{map[string]Outcome{}, meanings}
	var errs []error
	for status, name := range responses {
		o, err := outcomeOf(status, name)
		errs = append(errs, err)
		v.statuses[status] = o
	}
	for _, m := range meanings {
		_, err := outcomeOf(m.Status, m.Means)
		errs = append(errs, err)
	}
	return v, errors.Join(errs...)
}

func outcomeOf(status, name string) (Outcome, error) {
	o := Outcome(slices.Index(outcomes(), name))
	if o <= NotSent {
		return 0, fmt.Errorf("responses: %s: %q is no outcome", status, name)
	}
	return o, nil
}

// of says what a status means, and whether the body may say something else.
func (v verdicts) of(status int) (means Outcome, open bool) {
	if o, ok := v.statuses[strconv.Itoa(status)]; ok {
		return o, false
	}
	if o, ok := v.statuses[class(status)]; ok {
		return o, false
	}
	return verdict(status), slices.ContainsFunc(v.meanings, func(m Meaning) bool { return m.isAbout(status) })
}

// read returns the first meaning that fits a response; nil if none does.
func (v verdicts) read(status int, body []byte) (*Meaning, Outcome) {
	for i := range v.meanings {
		if m := &v.meanings[i]; m.isAbout(status) && (m.Body == nil || m.Body(body)) {
			o, _ := outcomeOf(m.Status, m.Means) // newVerdicts has checked it
			return m, o
		}
	}
	return nil, NotSent
}

// retryAfter reads a Retry-After header: seconds or an HTTP date. Anything else,
// and the past, is 0.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.Atoi(value)
		if err != nil || seconds > int(MaxRetryAfter/time.Second) { // too many digits
			return MaxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}
