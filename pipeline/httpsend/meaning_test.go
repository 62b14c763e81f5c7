package httpsend_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// A body may say something else than the status, unless the destination itself
// says what that means; and the error says what.
func TestMeanings(t *testing.T) {
	t.Parallel()
	has := func(text string) func([]byte) bool {
		return func(body []byte) bool { return bytes.Contains(body, []byte(text)) }
	}
	meanings := []httpsend.Meaning{
		{Status: "2xx", Body: has("no"), Means: "dead_letter", About: "it took nothing"},
		{Status: "2xx", Body: has("no, later"), Means: "retry", About: "never asked"},
		{Status: "404", Body: has("gone"), Means: "disable", About: "it is no longer there"},
		{Status: "409", Means: "success", About: "it had it already"},
		{Body: has("busy"), Means: "retry", About: "it is busy"},
	}
	for _, c := range []struct {
		status int
		body   string
		own    string // what the destination's responses say of the status, or of its class
		want   httpsend.Outcome
		about  string
	}{
		{status: 200, body: "yes", want: httpsend.Success},
		{status: 200, body: "no, later", want: httpsend.DeadLetter, about: ": it took nothing"},
		{status: 201, body: "no", want: httpsend.DeadLetter, about: ": it took nothing"},
		{status: 200, body: "no", own: "success", want: httpsend.Success},
		{status: 404, body: "gone", want: httpsend.Disable, about: ": it is no longer there"},
		{status: 404, body: "what?", want: httpsend.DeadLetter},
		{status: 404, body: "gone", own: "retry", want: httpsend.Retry},
		{status: 400, body: "gone", want: httpsend.DeadLetter},
		{status: 409, body: "", want: httpsend.Success},
		{status: 400, body: "busy", want: httpsend.Retry, about: ": it is busy"},
		{status: 200, body: strings.Repeat("x", 100) + "busy", want: httpsend.Success}, // beyond max_response
	} {
		for _, key := range []string{fmt.Sprint(c.status), fmt.Sprint(c.status/100) + "xx"} {
			e := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(pipelinetest.Answer{Status: c.status, Body: []byte(c.body)})))
			target := httpsend.Target{URL: e.URL, Meanings: meanings, MaxResponse: 50}
			if c.own != "" {
				target.Responses = map[string]string{key: c.own}
			}
			r := sender(t, client(t, httpsend.Options{Allow: local}), target).Send(t.Context(), httpsend.Call{Body: []byte("{}")})
			if r.Outcome != c.want || (r.Err == nil) != (c.want == httpsend.Success) {
				t.Errorf("%+v: %+v", c, r)
			}
			if text := fmt.Sprintf("destination responded %d %s%s", c.status, http.StatusText(c.status), c.about); r.Err != nil && !strings.HasSuffix(r.Err.Error(), text) {
				t.Errorf("%+v: %v", c, r.Err)
			}
			if kept := string(r.Response); c.want != httpsend.Success && kept != c.body || c.want == httpsend.Success && kept != "" {
				t.Errorf("%+v: kept is %q", c, kept)
			}
		}
	}
}
