package httpsend_test

import (
	"bufio"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// planted are secrets, by the place they stand in. Each is awkward in its own
// way, and none is part of another.
var planted = map[string]string{
	"HEADER":   `h34der "quoted" <&> \ end`,
	"QUERY":    "qu3ry+with/slash&more=",
	"PATH":     "p4th%2Fsegment",
	"TOKEN":    "t0ken-of-the-bearer",
	"PASSWORD": "p4ss:w0rd/é",
	"BODY":     `b0dy-"quoted"<&>\end`,
	"URL":      "", // set by the test
}

// fragments are what must not be seen of the secrets.
var fragments = []string{
	"h34der", "qu3ry", "p4th%2Fsegment", "t0ken", "p4ss", "w0rd", "wh0le-segment", "h00k", "b0dy", `quoted\"<&>`,
	base64.RawStdEncoding.EncodeToString([]byte("me:p4ss:w0rd/é")),
}

func leak(text string) string {
	for _, f := range fragments {
		if strings.Contains(text, f) {
			return f
		}
	}
	return ""
}

// shown is everything that may be shown of a result.
func shown(r httpsend.Result) string {
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "result", r, "err", r.Err)
	return fmt.Sprintf("%v %+v %#v %q %s %s", r, r, r.Err, r.Response, r.Response, &log)
}

// echoes are the ways in which a destination, or a proxy before it, tells what
// it was sent.
var echoes = map[string]func(w http.ResponseWriter, sent string){
	"as it is": func(w http.ResponseWriter, sent string) { _, _ = io.WriteString(w, sent) },
	"JSON": func(w http.ResponseWriter, sent string) {
		_ = json.NewEncoder(w).Encode(map[string]string{"error": sent})
	},
	"HTML":   func(w http.ResponseWriter, sent string) { _, _ = io.WriteString(w, "<p>"+html.EscapeString(sent)) },
	"URL":    func(w http.ResponseWriter, sent string) { _, _ = io.WriteString(w, url.QueryEscape(sent)) },
	"path":   func(w http.ResponseWriter, sent string) { _, _ = io.WriteString(w, url.PathEscape(sent)) },
	"quoted": func(w http.ResponseWriter, sent string) { _, _ = fmt.Fprintf(w, "%q", sent) },
	"gzip": func(w http.ResponseWriter, sent string) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, sent)
		_ = z.Close()
	},
	"endless": func(w http.ResponseWriter, sent string) {
		_, _ = io.WriteString(w, strings.Repeat(sent, 1000))
	},
	"UTF-16": func(w http.ResponseWriter, sent string) {
		_, _ = io.WriteString(w, strings.Join(strings.Split(sent, ""), "\x00")+"\x00")
	},
}

// targets plant the secrets in every place that takes one.
func targets(t *testing.T, origin string) map[string]httpsend.Target {
	t.Helper()
	return map[string]httpsend.Target{
		"header": {URL: origin, Headers: []httpsend.Header{{"X-Key", "key ${env:MILLRACE_SECRET_HEADER}"}}},
		"query":  {URL: origin + "/?key=${env:MILLRACE_SECRET_QUERY}"},
		"path":   {URL: origin + "/${env:MILLRACE_SECRET_PATH}/x"},
		"URL":    {URL: "${env:MILLRACE_SECRET_URL}"},
		"bearer": {URL: origin, Auth: httpsend.Bearer{Token: reference(t, "${env:MILLRACE_SECRET_TOKEN}")}},
		"basic":  {URL: origin, Auth: httpsend.Basic{Username: reference(t, "me"), Password: reference(t, "${env:MILLRACE_SECRET_PASSWORD}")}},
		"key":    {URL: origin, Auth: httpsend.InHeader{Name: "X-Key", Value: reference(t, "key ${env:MILLRACE_SECRET_HEADER}")}},
		"body":   {URL: origin, Auth: httpsend.InProperty{Name: "/deep/key", Value: reference(t, "${env:MILLRACE_SECRET_BODY}")}},
		"GET":    {Method: "GET", URL: origin, Auth: httpsend.InProperty{Name: "key", Value: reference(t, "${env:MILLRACE_SECRET_BODY}")}},
		"dynamic": {
			URL: origin + "/{{ event.user }}/${env:MILLRACE_SECRET_PATH}?k=${env:MILLRACE_SECRET_QUERY}",
		},
	}
}

func plantedSender(t *testing.T, place, origin string, maxResponse int) (*httpsend.Sender, httpsend.Call) {
	t.Helper()
	values := map[string]string{}
	for name, v := range planted {
		values[name] = v
	}
	values["URL"] = origin + "/services/h00k-id0/wh0le-segment?sig=wh0le-segment-2"
	target := targets(t, origin)[place]
	target.MaxResponse = maxResponse
	s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(values)}), target)
	if target.Method == http.MethodGet {
		return s, httpsend.Call{ID: "1"}
	}
	return s, httpsend.Call{
		ID: "1", Body: []byte("{}"),
		URL: strings.Replace(target.URL, "{{ event.user }}", "7", 1),
	}
}

// One shared test for every place of a secret and every kind of echo: nothing
// that a result shows holds a piece of it.
func TestResponsesHoldNoSecret(t *testing.T) {
	t.Parallel()
	for place := range targets(t, "") {
		for name, echo := range echoes {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				arrived := make(chan string, 1)
				e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, password, _ := r.BasicAuth()
					body, _ := io.ReadAll(r.Body)
					sent := string(body) + "\n" + r.RequestURI + "\n" + r.URL.Path + "\n" + r.URL.RawQuery + "\n" +
						r.Header.Get("X-Key") + "\n" + r.Header.Get("Authorization") + "\n" + password + "\n"
					select {
					case arrived <- sent:
					default:
					}
					w.WriteHeader(http.StatusBadRequest)
					echo(w, sent)
				}))
				t.Cleanup(e.Close)
				s, call := plantedSender(t, place, e.URL, 0)
				r := s.Send(t.Context(), call)
				if r.Status != http.StatusBadRequest {
					t.Fatalf("%+v", r)
				}
				if leak(<-arrived) == "" {
					t.Error("no secret was sent, so the test shows nothing")
				}
				if f := leak(shown(r)); f != "" {
					t.Errorf("%q is seen in %s", f, shown(r))
				}
			})
		}
	}
}

// Wherever max_response cuts an echo, no beginning of a secret is left over.
func TestResponsesAreCutAroundSecrets(t *testing.T) {
	t.Parallel()
	e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "token "+r.Header.Get("Authorization")+" is wrong")
	}))
	t.Cleanup(e.Close)
	whole := "token Bearer " + planted["TOKEN"]
	for most := 1; most < len(whole); most++ {
		s, call := plantedSender(t, "bearer", e.URL, most)
		r := s.Send(t.Context(), call)
		if got := string(r.Response); !strings.HasPrefix("token Bearer [secret]", got) || r.Class != httpsend.ClassMaxResponse {
			t.Errorf("max_response %d: %q, %+v", most, got, r)
		}
	}
}

// What is no response ends up in the error, which quotes it.
func TestErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	for place := range targets(t, "") {
		for name, format := range map[string]string{
			"status line": "%s",
			"header":      "HTTP/1.1 200 OK\r\n%s\r\n\r\n",
			"version":     "HTTP/9.%s 200 OK\r\n\r\n",
			"length":      "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
			"encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
		} {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				addr := server(t, func(_ int, c net.Conn, r *bufio.Reader) {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					sent := strings.Join([]string{string(body), req.RequestURI, req.Header.Get("X-Key"), req.Header.Get("Authorization")}, " ")
					_, _ = fmt.Fprintf(c, format, sent)
				})
				s, call := plantedSender(t, place, "http://"+addr, 0)
				r := s.Send(t.Context(), call)
				if r.Err == nil {
					t.Fatalf("%+v", r)
				}
				if f := leak(shown(r)); f != "" {
					t.Errorf("%q is seen in %s", f, shown(r))
				}
			})
		}
	}
}

func TestOtherFailuresHoldNoSecret(t *testing.T) {
	t.Parallel()
	for place := range targets(t, "") {
		for origin, want := range map[string]httpsend.Outcome{
			"http://127.0.0.1:1":  httpsend.Retry,
			"http://10.0.0.1":     httpsend.Pause,
			"https://127.0.0.1:1": httpsend.Retry,
		} {
			s, call := plantedSender(t, place, origin, 0)
			r := s.Send(t.Context(), call)
			if r.Outcome != want {
				t.Errorf("%s at %s: %+v", place, origin, r)
			}
			call.Header = []httpsend.Header{{"X", "\n"}}
			for _, r := range []httpsend.Result{r, s.Send(t.Context(), call)} {
				if f := leak(shown(r)); f != "" {
					t.Errorf("%s at %s: %q is seen in %s", place, origin, f, shown(r))
				}
			}
		}
		s, _ := plantedSender(t, place, "http://127.0.0.1:1", 0)
		if f := leak(fmt.Sprintf("%v %+v", s, s)); f != "" {
			t.Errorf("%s: a Sender shows %q", place, f)
		}
	}
}
