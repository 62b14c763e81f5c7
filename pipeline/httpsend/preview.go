package httpsend

import (
	"cmp"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Request is what a call sends, for people to look at: secrets are shown by
// their names, and what may be one without a name not at all.
type Request struct {
	Method string
	URL    string
	Header []Header // in the order of their names
	Body   []byte
}

// Preview shows what Send would send. It looks nothing up and calls nobody, so
// it shows a request also where secrets are missing.
func (s *Sender) Preview(call Call) (Request, error) {
	shown := &prepared{header: http.Header{}}
	for _, h := range s.headers {
		for _, v := range h.values {
			shown.header[h.name] = append(shown.header[h.name], showHeader(h.name, v))
		}
	}
	if s.auth != nil && s.auth.header() != "" {
		shown.header[s.auth.header()] = []string{s.auth.show()}
	}
	if keys := showSigning(s.signing); keys != "" {
		shown.header[headerSignature] = []string{keys}
	}
	in, inBody := s.auth.(InProperty)
	if inBody {
		var err error
		if call, err = s.withProperty(in.shown(), call); err != nil {
			return Request{}, err
		}
	}
	now := call.At
	if now.IsZero() {
		now = time.Now()
	}
	all, err := s.callHeader(shown, &call, now)
	if err != nil {
		return Request{}, err
	}
	r := Request{Method: s.method, URL: s.showURL(&call), Body: call.Body}
	for name, values := range all {
		for _, v := range values {
			r.Header = append(r.Header, Header{name, v})
		}
	}
	if len(call.Body) > 0 && !inBody { // how long a secret is, nobody needs to know
		r.Header = append(r.Header, Header{"Content-Length", strconv.Itoa(len(call.Body))})
	}
	slices.SortStableFunc(r.Header, func(a, b Header) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), strings.Compare(a.Value, b.Value))
	})
	return r, nil
}

// Check says why Send would make no call: a secret is missing, or no request can
// be made. It calls nobody.
func (s *Sender) Check(call Call) error {
	now := time.Now()
	p := s.current(now)
	if p.err != nil {
		return p.err
	}
	if _, failed := s.request(p, &call, now); failed != nil {
		return failed.Err
	}
	return nil
}

func (s *Sender) showURL(call *Call) string {
	text := s.wholeURL
	if s.dynamic {
		text = call.URL
	}
	text = s.hideParts(text)
	if ref, err := secret.Parse(text); err == nil {
		text = ref.Short()
	}
	switch {
	case len(call.Query) == 0:
		return text
	case strings.Contains(text, "?"):
		return text + "&" + string(call.Query)
	}
	return text + "?" + string(call.Query)
}

// hideParts puts a mask into the place of each secret that is written out in the
// URL. What an event has filled in leaves the text around it as it was, and has
// no & or / in it to be taken for that.
func (s *Sender) hideParts(text string) string {
	var b strings.Builder
	rest, from := text, 0
	for _, part := range s.secretParts {
		before := s.wholeURL[from:part[0]]
		if i := strings.LastIndex(before, "}}"); i >= 0 {
			before = before[i+len("}}"):]
		}
		plain := before + s.wholeURL[part[0]:part[1]]
		i := strings.Index(rest, plain)
		if i < 0 {
			continue
		}
		b.WriteString(rest[:i] + before + secret.Mask)
		rest, from = rest[i+len(plain):], part[1]
	}
	return b.String() + rest
}

// telling are parts of the names of headers and parameters whose values are
// secrets. Not so in author and keyword; pass, pwd and sig are words of their own.
var telling = regexp.MustCompile(`(?i:cookie|password|passwd|passcode|passphrase|secret|token|signature|credential` +
	`|key(?:$|[^w])|auth(?:$|[^o]|o(?:$|[^r])|ori[sz])|(?:^|[^a-z])(?:pass|pwd|sig)(?:$|[^a-z]))` +
	`|[a-z0-9](?:Pass|Pwd|Sig)(?:$|[^a-z])`)

// SecretHeader says whether the name of a header says that its value is a
// secret.
func SecretHeader(name string) bool {
	return !strings.EqualFold(name, headerIdempotencyKey) && telling.MatchString(name)
}

// SecretParameter says so of the name of a parameter in a query.
func SecretParameter(name string) bool { return telling.MatchString(name) }

// showHeader shows a value with its secrets by name. A literal is shown unless
// the header is one for secrets.
func showHeader(name string, v secret.Reference) string {
	if SecretHeader(name) {
		return v.Masked()
	}
	return v.Short()
}

// shown is the property with the name of its secret.
func (i InProperty) shown() *property {
	text := i.Value.Masked()
	p := newProperty(i.Name, text)
	p.pair = []byte(url.QueryEscape(i.Name) + "=" + text)
	return p
}

// showSigning is the value of webhook-signature; empty where calls are not signed.
func showSigning(s Signing) string {
	var keys []string
	for _, ref := range s.references() {
		keys = append(keys, "v1,hmac("+ref.Masked()+")")
	}
	return strings.Join(keys, " ")
}
