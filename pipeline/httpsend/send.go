package httpsend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// Call is what differs from call to call of one destination.
type Call struct {
	ID string // of the delivery: webhook-id and Idempotency-Key
	// URL is the destination's URL with its expressions filled in; references to
	// secrets still stand in it. It is used where Target.URL has expressions, and
	// only its path and query: a call never leaves the target's origin.
	URL    string
	Query  []byte    // a=b&c=d, escaped; appended to the URL's own query
	Body   []byte    // JSON, unless the target sets another Content-Type
	At     time.Time // of the attempt; zero: now
	Header []Header  // more headers, such as traceparent; canonical names
}

// Send makes one call and reads the response. It returns within Target.Timeout,
// whatever the other side does, and keeps neither Body nor Query. When
// caller ends, so does the call, as a Retry of ClassCanceled.
func (s *Sender) Send(caller context.Context, call Call) Result {
	p := s.current(time.Now())
	if p.err != nil {
		return Result{Outcome: NotSent, Class: ClassSecret, Err: p.err}
	}
	ctx, cancel := context.WithTimeout(caller, s.timeout)
	defer cancel()
	if p.endpoint != nil {
		return s.sendWithToken(caller, ctx, p, &call)
	}
	return s.attempt(caller, ctx, p, &call)
}

// attempt makes one request. ctx is caller with the timeout.
func (s *Sender) attempt(caller, ctx context.Context, p *prepared, call *Call) Result {
	start := time.Now()
	req, failed := s.request(p, call, start)
	if failed != nil {
		return *failed
	}
	result := s.roundTrip(caller, ctx, req, p)
	result.Latency = time.Since(start)
	return result
}

// request makes the request of a call, or the result if there can be none.
func (s *Sender) request(p *prepared, call *Call, now time.Time) (*http.Request, *Result) {
	if p.property != nil {
		with, err := s.withProperty(p.property, *call)
		if err != nil {
			return nil, dead(ClassInvalid, pipeline.InvalidRequest, err)
		}
		call = &with
	}
	if size := len(call.Body) + len(call.Query); size > s.maxBody {
		err := fmt.Errorf("body of %d bytes is larger than the destination's max_body of %d", size, s.maxBody)
		return nil, dead(ClassTooLarge, pipeline.TooLarge, err)
	}
	u, err := s.callURL(p, call)
	if err != nil {
		return nil, dead(ClassInvalid, pipeline.InvalidRequest, fmt.Errorf("url: %w", err))
	}
	h, err := s.callHeader(p, call, now)
	if err != nil {
		return nil, dead(ClassInvalid, pipeline.InvalidRequest, err)
	}
	req := &http.Request{
		Method: s.method, URL: u, Host: u.Host, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody,
	}
	if len(call.Body) > 0 {
		req.ContentLength = int64(len(call.Body))
		// For when a kept connection turns out to be closed before a byte was
		// written: net/http then takes another. See once, too.
		body := call.Body
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	}
	return req, nil
}

func (s *Sender) withProperty(p *property, call Call) (Call, error) {
	var err error
	if s.method == http.MethodGet {
		call.Query = p.inQuery(call.Query)
	} else {
		call.Body, err = p.inBody(call.Body)
	}
	return call, err
}

func dead(class Class, reason pipeline.Reason, err error) *Result {
	return &Result{Outcome: DeadLetter, Class: class, Err: pipeline.Permanent(reason, err)}
}

var errNoURL = errors.New("the destination's URL has expressions, but the delivery was made when it had none")

func (s *Sender) callURL(p *prepared, call *Call) (*url.URL, error) {
	u := p.url
	if s.dynamic {
		var err error
		if u, err = s.filledURL(p, call.URL); err != nil {
			return nil, err
		}
	}
	if len(call.Query) == 0 {
		return u, nil
	}
	if slices.ContainsFunc(call.Query, func(c byte) bool { return notInQuery(rune(c)) }) {
		return nil, errors.New("the query holds white space or control characters")
	}
	with := *u
	if with.RawQuery != "" {
		with.RawQuery += "&"
	}
	with.RawQuery += string(call.Query)
	return &with, nil
}

// filledURL is a URL whose expressions are filled in, at the origin that the
// destination has now: a delivery may have been made for an earlier one, which
// must not get today's secrets.
func (s *Sender) filledURL(p *prepared, text string) (*url.URL, error) {
	if text == "" {
		return nil, errNoURL
	}
	if strings.Contains(text, "${") {
		text = s.resealed(text)
		if err := s.checkNames(text); err != nil {
			return nil, err
		}
		text = p.fill.Replace(text)
	}
	u, err := parseURL(text)
	if err != nil {
		return nil, err
	}
	u.Scheme, u.Host = p.url.Scheme, p.url.Host
	return u, nil
}

var sealed = regexp.MustCompile(`\$\{sealed:[^}]*\}`)

// resealed puts the sealed secrets that the target's URL has now into the places
// of those that a call's URL was made with. Each apply of a secret that is written
// out seals it anew, and what waits meanwhile is to be sent as well.
func (s *Sender) resealed(text string) string {
	if !strings.Contains(text, "${sealed:") {
		return text
	}
	now := sealed.FindAllString(s.wholeURL, -1)
	if len(now) != len(sealed.FindAllString(text, -1)) {
		return text // checkNames refuses those that it does not know
	}
	return sealed.ReplaceAllStringFunc(text, func(string) string {
		next := now[0]
		now = now[1:]
		return next
	})
}

// checkNames refuses placeholders that the target's URL does not have: they
// came from data, or from another revision.
func (s *Sender) checkNames(text string) error {
	ref, err := secret.Parse(text)
	if err != nil {
		return err
	}
	for i, name := range ref.Placeholders() {
		if !slices.Contains(s.urlSecrets, name) {
			return fmt.Errorf("%s is not in the destination's URL", ref.Names()[i])
		}
	}
	return nil
}

var jsonType = []string{"application/json"}

func (s *Sender) callHeader(p *prepared, call *Call, now time.Time) (http.Header, error) {
	const ours = 4
	h := make(http.Header, len(p.header)+len(call.Header)+ours)
	maps.Copy(h, p.header)
	if len(call.Body) > 0 && !s.typed {
		h["Content-Type"] = jsonType
	}
	for _, more := range call.Header {
		if !validHeaderValue(more.Value) {
			return nil, fmt.Errorf("header %q holds control characters", more.Name)
		}
		h[more.Name] = []string{more.Value}
	}
	if !validHeaderValue(call.ID) {
		return nil, errors.New("the delivery's id holds control characters")
	}
	at := call.At
	if at.IsZero() {
		at = now
	}
	values := [...]string{call.ID, strconv.FormatInt(at.Unix(), 10)}
	h[headerID], h[headerIdempotencyKey], h[headerTimestamp] = values[:1:1], values[:1:1], values[1:]
	if len(p.keys) > 0 {
		h[headerSignature] = []string{signatures(p.keys, values[0], values[1], call.Body)}
	}
	return h, nil
}

func (s *Sender) roundTrip(caller, ctx context.Context, req *http.Request, p *prepared) Result {
	r := p.redactor
	// The transport, and not an http.Client: redirects are not followed, and its
	// errors don't quote the URL.
	req = req.WithContext(ctx)
	if req.Method == http.MethodGet {
		req = once(req)
	}
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return failure(classify(caller, ctx, err), err, r)
	}
	defer resp.Body.Close()
	means, open := s.verdicts.of(resp.StatusCode)
	result := Result{Status: resp.StatusCode, Outcome: means}
	if resp.StatusCode == http.StatusSwitchingProtocols { // its body has no end
		result.Err = refusal(resp.StatusCode, result.Outcome, "")
		return result
	}
	body, err := s.read(resp, open || result.Outcome != Success)
	switch {
	case errors.Is(err, errMaxResponse):
		result.Class = ClassMaxResponse
	case err != nil:
		result.Class = classify(caller, ctx, err)
	}
	about := ""
	if open {
		m, o := s.verdicts.read(resp.StatusCode, body)
		switch {
		case m != nil:
			result.Outcome, about = o, m.About
		case err != nil && result.Class != ClassMaxResponse: // which it would be again
			result.Outcome, about = Retry, "its body, which says what that means, did not come whole"
		}
	}
	if result.Outcome == Success {
		return result
	}
	result.Err = refusal(resp.StatusCode, result.Outcome, about)
	result.Response = kept(resp, body, err != nil, r)
	if result.Outcome == Retry {
		result.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return result
}

var errBroke = fmt.Errorf("the connection, which was kept from another call, broke before an answer came: %w", io.ErrUnexpectedEOF)

// once keeps net/http from making a request twice. It repeats what it takes for
// idempotent, as a GET, when a kept connection breaks, over every connection it
// has kept; but before that it asks GetBody for the body once more. So the
// request gets a body, if an empty one, that is there again only as long as
// nothing was written.
func once(req *http.Request) *http.Request {
	var conn *countedConn
	var before int64
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		conn = got.Conn.(*countedConn) //nolint:forcetypeassert // our transport dials no other
		before = conn.written.Load()
	}}))
	body := req.GetBody
	if body == nil {
		body = func() (io.ReadCloser, error) { return emptyBody{}, nil }
		req.TransferEncoding = []string{"identity"} // else net/http looks whether there is something in it
	}
	req.GetBody = func() (io.ReadCloser, error) {
		if conn.written.Load() > before {
			return nil, errBroke
		}
		return body()
	}
	req.Body, _ = body()
	return req
}

// emptyBody is no body, but not http.NoBody, which net/http does not ask for
// again.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }

func (emptyBody) Close() error { return nil }

// failure is the result of a call that got no response.
func failure(class Class, err error, r *secret.Redactor) Result {
	result := Result{Outcome: Retry, Class: class}
	var proxy *proxyError
	switch {
	case class == ClassBlocked:
		result.Outcome = Pause
	case class == ClassProxy && errors.As(err, &proxy):
		result.Outcome = proxy.means
	}
	if result.Outcome == NotSent {
		result.RetryAfter = loginPause
	}
	// The cause is not wrapped: it may quote what was sent.
	result.Err = fmt.Errorf("%s: %s", class, oneLine(r.RedactCut(plainly(err))))
	return result
}

// refusal is the error of a response that is no success; about says what more is
// known of it.
func refusal(status int, means Outcome, about string) error {
	text := strings.TrimSpace(fmt.Sprintf("destination responded %d %s", status, http.StatusText(status)))
	if about != "" {
		text += ": " + about
	}
	err := errors.New(text)
	if means == DeadLetter {
		return pipeline.Permanent(pipeline.FinalResponse, err)
	}
	return err
}

var errMaxResponse = errors.New("response is larger than max_response")

// read reads the body to its end, so that the connection can be used again, but
// no further than max_response. What was read is returned if it is to be kept.
func (s *Sender) read(resp *http.Response, keep bool) ([]byte, error) {
	limited := &io.LimitedReader{R: resp.Body, N: int64(s.maxResponse) + 1}
	var body []byte
	var err error
	if keep {
		body, err = io.ReadAll(limited)
	} else {
		_, err = io.Copy(io.Discard, limited)
	}
	if err == nil && limited.N == 0 {
		err = errMaxResponse
	}
	return body, err
}

// kept is what a result shows of a body: nothing if it is compressed or not
// text, since secrets could not be found in it.
func kept(resp *http.Response, body []byte, cut bool, r *secret.Redactor) []byte {
	if resp.Header.Get("Content-Encoding") != "" || bytes.IndexByte(body, 0) >= 0 {
		return nil
	}
	text := string(body)
	if cut {
		text = r.RedactCut(text)
	} else {
		text = r.Redact(text)
	}
	return []byte(cutText(strings.ToValidUTF8(text, "\uFFFD"), MaxKept))
}
