package pipelinetest_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

func post(t *testing.T, c *http.Client, url, id, body string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("webhook-id", id)
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(strings.NewReader(string(text)))
	return resp, err
}

func TestReceiverRecords(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	before := time.Now()
	for _, id := range []string{"a", "b", "a"} {
		if resp, err := post(t, client, e.URL+"/p?x=1&y=%20", id, "body of "+id); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
	}
	e.Wait(t, 3)
	calls := e.Calls()
	c := calls[1]
	if c.Method != http.MethodPost || c.Path != "/p" || c.Query != "x=1&y=%20" || string(c.Body) != "body of b" ||
		c.ID() != "b" || c.Time.Before(before) || len(calls) != 3 || e.Count() != 3 {
		t.Errorf("recorded %+v of %d", c, len(calls))
	}
	if got := e.IDs(); !maps.Equal(got, map[string]int{"a": 2, "b": 1}) {
		t.Errorf("IDs() = %v", got)
	}
}

func TestReceiverAnswers(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(
		pipelinetest.Answer{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}}, Body: []byte("slow down")},
		pipelinetest.Answer{Reset: true},
		pipelinetest.Answer{Delay: time.Millisecond, Status: http.StatusNoContent},
	)))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := post(t, client, e.URL, "1", "")
	if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("first: %v, %v", resp, err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "slow down" {
		t.Errorf("first: body %q", body)
	}
	if resp, err := post(t, client, e.URL, "2", ""); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("second: %v, %v", resp, err)
	}
	for range 2 {
		if resp, err := post(t, client, e.URL, "3", ""); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("last: %v, %v", resp, err)
		}
	}
}

func TestReceiverRefusesAndComesBack(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	defer client.CloseIdleConnections()
	url := e.URL
	if _, err := post(t, client, url, "1", ""); err != nil {
		t.Fatal(err)
	}
	e.Refuse()
	e.Refuse() // again: no harm
	if _, err := post(t, client, url, "2", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("while it refuses: %v", err)
	}
	e.Accept(t)
	if _, err := post(t, client, url, "3", ""); err != nil || e.URL != url {
		t.Errorf("after it came back: %v, %s", err, e.URL)
	}
	if e.Count() != 2 {
		t.Errorf("Count() = %d", e.Count())
	}
}

// A delayed answer does not hold up the end of the test, nor leave a goroutine.
// Not parallel, since it looks at all goroutines.
func TestReceiverEndsWithCallsUnderWay(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Delay: time.Hour}
	}))
	client := &http.Client{Transport: &http.Transport{}}
	var calls sync.WaitGroup
	for range 5 {
		calls.Go(func() {
			if _, err := post(t, client, e.URL, "1", "x"); err == nil {
				t.Error("a call was answered")
			}
		})
	}
	e.Wait(t, 5)
	e.Refuse()
	calls.Wait()
	client.CloseIdleConnections()
}

func TestCountOnly(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t, pipelinetest.CountOnly())
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var calls sync.WaitGroup
	calls.Go(func() { e.Wait(t, 10) })
	for range 10 {
		if _, err := post(t, client, e.URL, "1", "x"); err != nil {
			t.Error(err)
		}
	}
	calls.Wait()
	if e.Count() != 10 || len(e.Calls()) != 0 {
		t.Errorf("Count() = %d, %d calls kept", e.Count(), len(e.Calls()))
	}
}

// failing is a test that may fail.
type failing struct {
	testing.TB
	failure string
}

func (*failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestWaitGivesUp(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	synctest.Test(t, func(t *testing.T) {
		f := &failing{TB: t}
		var waiting sync.WaitGroup
		waiting.Go(func() { e.Wait(f, 1) })
		waiting.Wait()
		if !strings.Contains(f.failure, "waiting for 1 calls: 0 came") {
			t.Errorf("Wait: %q", f.failure)
		}
	})
}
