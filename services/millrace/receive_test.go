package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

func TestParseAnswers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"200":             "200 200 200 200",
		"503,503,200":     "503 503 200 200",
		" 500 , 404":      "500 404 404 404",
		"503:100%":        "503 503 503 503",
		"503:0%":          "200 200 200 200",
		"503:0%,429:100%": "429 429 429 429",
		"404:50%,410:50%": "4xx 4xx 4xx 4xx",
	} {
		answer, err := parseAnswers(text)
		if err != nil {
			t.Errorf("parseAnswers(%q): %v", text, err)
			continue
		}
		var got []string
		for n := range 4 {
			got = append(got, fmt.Sprint(answer(n)))
		}
		if !regexp.MustCompile(strings.ReplaceAll(want, "xx", `\d\d`)).MatchString(strings.Join(got, " ")) {
			t.Errorf("%q answers %v, expected %s", text, got, want)
		}
	}
	for text, says := range map[string]string{
		"":                "no status",
		"199":             "no status",
		"600":             "no status",
		"200,":            "no status",
		"ok":              "no status",
		"500:x":           "",
		"500:60%,404:50%": "more than 100%",
		"500:10%,200":     "mixes",
	} {
		if _, err := parseAnswers(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("parseAnswers(%q): %v, expected %q", text, err, says)
		}
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	shares := []share{{503, 0.25}, {429, 0.25}}
	for x, want := range map[float64]int{0: 503, 0.24: 503, 0.25: 429, 0.49: 429, 0.5: 200, 0.99: 200} {
		if got := pick(shares, x); got != want {
			t.Errorf("pick(%v) = %d, expected %d", x, got, want)
		}
	}
}

func TestRecently(t *testing.T) {
	t.Parallel()
	const least = 1000
	s := recently{least: least}
	if s.add("a") != 1 || s.add("b") != 1 || s.add("a") != 2 {
		t.Error("counts are wrong")
	}
	for i := range least {
		s.add(fmt.Sprint(i))
	}
	if n := s.add("a"); n != 3 {
		t.Errorf("after %d others an id counts %d", least, n)
	}
	for i := range 2 * least {
		s.add(fmt.Sprint("x", i))
	}
	if n := s.add("b"); n != 1 {
		t.Errorf("an id of long ago counts %d", n)
	}
	if len(s.now)+len(s.before) > 2*least {
		t.Errorf("%d ids are kept", len(s.now)+len(s.before))
	}
}

// receiving starts `millrace receive` and returns where it listens, and what
// ends it and gives the result.
func receiving(t *testing.T, args ...string) (addr string, end func() result) {
	t.Helper()
	addr = pipelinetest.FreeAddr(t)
	out, errs := newOutput(), newOutput()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"receive", "--listen", addr}, args...), streams{strings.NewReader(""), out, errs})
		out.end()
	}()
	end = func() result {
		cancel()
		code := <-ended
		ended <- code
		return result{code, out.String(), errs.String()}
	}
	t.Cleanup(func() { end() })
	eventually(t, "it listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr, end
}

// call makes one call and returns the response.
func call(t testing.TB, method, url, body string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func TestReceive(t *testing.T) {
	t.Parallel()
	addr, end := receiving(t, "--status", "503,200", "--retry-after", "1500ms")
	secret := []string{"Authorization", "Bearer s3cret", "webhook-id", "id-1"}
	if r := call(t, "POST", "http://"+addr+"/a?b=c", "{\n \"x\": 1}", secret...); r.StatusCode != 503 || r.Header.Get("Retry-After") != "2" {
		t.Errorf("the first answer is %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
	}
	if r := call(t, "POST", "http://"+addr+"/a?b=c", "{\n \"x\": 1}", secret...); r.StatusCode != 200 || r.Header.Get("Retry-After") != "" {
		t.Errorf("the second answer is %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
	}
	call(t, "PUT", "http://"+addr+"/%1b", "a\x00b")
	r := end().must(t)
	got := regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{3}`).ReplaceAllString(strings.ReplaceAll(r.out, addr, "ADDRESS"), "TIME")
	golden(t, "receive", got)
}

func TestReceiveJSON(t *testing.T) {
	t.Parallel()
	addr, end := receiving(t, "--json")
	call(t, "POST", "http://"+addr+"/", `{"n":12345678901234567890,"html":"<b>"}`,
		"Authorization", "Bearer s3cret", "Cookie", "session=s3cret", "Proxy-Authorization", "s3cret", "webhook-id", "id-1", "X-Other", "seen")
	call(t, "GET", "http://"+addr+"/?a=1", "")
	text := end().must(t).out
	if strings.Contains(text, "s3cret") || !strings.Contains(text, `"body":{"n":12345678901234567890,"html":"<b>"}`) {
		t.Errorf("it prints %s", text)
	}
	o := objects(t, text)
	headers := o[0]["headers"].(map[string]any)
	if len(o) != 2 || fmt.Sprint(headers["Authorization"], headers["Cookie"], headers["X-Other"]) != "[Bearer ***] [***] [seen]" ||
		o[0]["webhook_id"] != "id-1" || o[0]["status"] != 200.0 || o[1]["target"] != "/?a=1" || o[1]["body"] != nil {
		t.Errorf("it prints %v", o)
	}
}

func TestReceiveCount(t *testing.T) {
	t.Parallel()
	addr, end := receiving(t, "--count", "2", "--quiet")
	for range 2 {
		call(t, "POST", "http://"+addr+"/", "", "webhook-id", "same")
	}
	if r, want := end().must(t), "listening on http://"+addr+"\n2 calls, 1 of them repeated\n"; r.out != want {
		t.Errorf("it prints %q, expected %q", r.out, want)
	}
}

// TestReceiveEndsByItself: what the count does, without anybody ending it.
func TestReceiveEndsByItself(t *testing.T) {
	t.Parallel()
	r := &receiver{answer: func(int) int { return 204 }, limit: 1, show: func(*received) {}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.serve(context.Background(), l) }()
	if resp := call(t, "POST", "http://"+l.Addr().String(), ""); resp.StatusCode != 204 {
		t.Errorf("answered with %d", resp.StatusCode)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, ok := r.take(&received{}); ok {
		t.Error("it takes calls beyond its limit")
	}
}

func TestReceiveAddressInUse(t *testing.T) {
	t.Parallel()
	addr, _ := receiving(t)
	commandLine(t, "", "receive", "--listen", addr).fails(t, exitFailed, addr)
}

func TestReceiveOnTerminal(t *testing.T) {
	t.Parallel()
	tty := openTerminal(t, 80)
	show := (&receiveCmd{}).printer(tty.file)
	show(&received{time: then, method: "POST", target: "/", status: 503, id: "id", times: 2, body: []byte(`{"a":[1,"` + "\u202e" + `"]}`)})
	show(&received{time: then, method: "POST", target: "/", status: 200, body: []byte("a=1\r\nb")})
	want := "\x1b[2m2026-01-31 08:00:00  \x1b[0mPOST  /  \x1b[31m503  \x1b[0m\x1b[33mid repeat (2)\x1b[0m\r\n" +
		"    {\r\n      \"a\": [\r\n        1,\r\n        \"�\"\r\n      ]\r\n    }\r\n" +
		"\x1b[2m2026-01-31 08:00:00  \x1b[0mPOST  /  \x1b[32m200  \x1b[0m\x1b[2mno webhook-id\x1b[0m\r\n    a=1\r\n    b\r\n"
	got := tty.text(t)
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		want = regexp.MustCompile("\x1b\\[\\d*m").ReplaceAllString(want, "")
	}
	if got != want {
		t.Errorf("got\n%q\nexpected\n%q", got, want)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if !wait(t.Context(), time.Hour) || time.Since(begin) != time.Hour {
			t.Error("it does not wait")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if wait(ctx, time.Hour) || time.Since(begin) != time.Hour+time.Minute {
			t.Error("it waits for longer than the context")
		}
	})
}
