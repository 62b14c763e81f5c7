package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMissingSecretsAreNamed has destinations that lack a secret: that is told
// before anything is sent to them, and until they have it or are gone.
func TestMissingSecretsAreNamed(t *testing.T) {
	text := hooked("crm", "") + hooked("idle", "") + hooked("sleeping", "status: paused") + hooked("elsewhere", "lane: other")
	test(t, text, func(t *testing.T, h *house) {
		var mu sync.Mutex
		told := map[string]string{}
		changes := 0
		h.Lanes = []string{"default"}
		h.Ready = func(name string, err error) {
			mu.Lock()
			defer mu.Unlock()
			changes++
			told[name] = fmt.Sprint(err)
		}
		expect := func(n int, want map[string]string) {
			t.Helper()
			time.Sleep(secretsEvery)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !maps.Equal(told, want) || changes != n {
				t.Errorf("after %d changes, told is %v; expected %d: %v", changes, told, n, want)
			}
		}
		lack := func(name string, err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.missing[name] = err
		}
		lack("idle", errors.Join(errors.New("secret ${env:A} is missing"), errors.New("secret ${file:b} is missing")))
		lack("sleeping", errors.New("not asked for"))
		lack("elsewhere", errors.New("not ours to say"))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); h.watchSecrets(ctx) }()
		both := "secret ${env:A} is missing; secret ${file:b} is missing"
		expect(1, map[string]string{"destination idle": both})
		expect(1, map[string]string{"destination idle": both})
		lack("crm", errors.New("gone"))
		expect(2, map[string]string{"destination idle": both, "destination crm": "gone"})
		lack("crm", nil)
		expect(3, map[string]string{"destination idle": both, "destination crm": "<nil>"})
		h.live.replace(t, hooked("crm", ""))
		expect(4, map[string]string{"destination idle": "<nil>", "destination crm": "<nil>"})
		stop()
		<-ended
	})
}

func TestCheckLanes(t *testing.T) {
	t.Parallel()
	if err := CheckLanes([]string{"default", "crm-*", "[a-c]?"}); err != nil {
		t.Error(err)
	}
	if err := CheckLanes([]string{"ok", "[", "a["}); err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 2 {
		t.Errorf("two patterns are wrong: %v", err)
	}
}

func TestLanes(t *testing.T) {
	test(t, hooked("a", "lane: crm-1")+hooked("b", "lane: crm-2")+hooked("c", "lane: other")+hooked("d", ""), func(t *testing.T, h *house) {
		for patterns, want := range map[string]string{
			"":        "[crm-1 crm-2 default other]",
			"default": "[default]",
			"crm-*":   "[crm-1 crm-2]",
			"none":    "[]",
		} {
			h.Lanes = nil
			if patterns != "" {
				h.Lanes = []string{patterns}
			}
			if got := fmt.Sprint(h.lanes(h.live.Snapshot())); got != want {
				t.Errorf("%q serves %s, expected %s", patterns, got, want)
			}
		}
		h.Lanes = []string{"late-*"}
		found := make(chan []string)
		go func() {
			lanes, err := h.waitForLanes(t.Context())
			if err != nil {
				t.Error(err)
			}
			found <- lanes
		}()
		synctest.Wait()
		h.live.apply(t, hooked("e", "lane: late-1"))
		if got := fmt.Sprint(<-found); got != "[late-1]" {
			t.Errorf("it waited for %s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h.Lanes = []string{"never"}
		if _, err := h.waitForLanes(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting ended with %v", err)
		}
	})
}
