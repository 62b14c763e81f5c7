package httpsend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fetches is a token endpoint in synthetic time: it takes a second, and gives
// tokens that are numbered, or an error.
type fetches struct {
	count    atomic.Int64
	lifetime time.Duration
	fails    atomic.Pointer[tokenError]

	mu      sync.Mutex
	refresh []string // that came
}

func (f *fetches) ask(refresh string) (grant, *tokenError) {
	n := f.count.Add(1)
	f.mu.Lock()
	f.refresh = append(f.refresh, refresh)
	f.mu.Unlock()
	<-time.After(time.Second)
	if err := f.fails.Load(); err != nil {
		return grant{}, err
	}
	return grant{token: fmt.Sprint("t", n), refresh: fmt.Sprint("r", n), lifetime: f.lifetime}, nil
}

// many asks for a token n times at once and returns what came, one of each.
func many(t *testing.T, tk *tokens, f *fetches, n int, refused *token) map[string]int {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	came := map[string]int{}
	for range n {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			got, err := tk.get(ctx, f.ask, refused)
			text := fmt.Sprint(err)
			if err == nil {
				text = got.text
			}
			mu.Lock()
			defer mu.Unlock()
			came[text]++
		})
	}
	all.Wait()
	return came
}

func expectTokens(t *testing.T, got map[string]int, want string, f *fetches, fetched int64) {
	t.Helper()
	if fmt.Sprint(got) != want || f.count.Load() != fetched {
		t.Errorf("%v after %d fetches, expected %v after %d", got, f.count.Load(), want, fetched)
	}
}

func TestTokensAreFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk, f := &tokens{}, &fetches{lifetime: 100 * time.Second}
		expectTokens(t, many(t, tk, f, 64, nil), "map[t1:64]", f, 1)
		time.Sleep(79 * time.Second)
		expectTokens(t, many(t, tk, f, 64, nil), "map[t1:64]", f, 1)
		time.Sleep(time.Second) // a fifth of its life is left: another is fetched, and nobody waits
		start := time.Now()
		came := many(t, tk, f, 64, nil)
		synctest.Wait()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("calls waited %v", waited)
		}
		expectTokens(t, came, "map[t1:64]", f, 2)
		time.Sleep(2 * time.Second)
		expectTokens(t, many(t, tk, f, 64, nil), "map[t2:64]", f, 2)
		time.Sleep(time.Hour) // nobody wanted one while it lived
		expectTokens(t, many(t, tk, f, 64, nil), "map[t3:64]", f, 3)
		if got := fmt.Sprint(f.refresh); got != "[ r1 r2]" {
			t.Errorf("refresh tokens %s", got)
		}
	})
}

func TestTokensLiveWhileTheEndpointIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk, f := &tokens{}, &fetches{lifetime: 1000 * time.Second}
		expectTokens(t, many(t, tk, f, 1, nil), "map[t1:1]", f, 1)
		f.fails.Store(&tokenError{text: "down"})
		lives := 0
		for range 999 { // a call a second, until it expires
			time.Sleep(time.Second)
			lives += many(t, tk, f, 1, nil)["t1"]
		}
		if lives != 999 {
			t.Errorf("%d of 999 calls had a token", lives)
		}
		// In the last 200 s it was tried after 1, 2, 4, … 60 s, give or take.
		if n := f.count.Load(); n < 7 || n > 14 {
			t.Errorf("%d fetches", n)
		}
		time.Sleep(time.Second)
		before := f.count.Load()
		many(t, tk, f, 64, nil)
		if n := f.count.Load(); n > before+1 {
			t.Errorf("%d fetches for 64 calls", n-before)
		}
		if err := tk.ready(f.ask, nil); err == nil || err.Error() != "down" {
			t.Errorf("ready: %v", err)
		}
		if wait := tk.wait(tk.err); wait < firstPause || wait > maxPause {
			t.Errorf("wait %v", wait)
		}
		f.fails.Store(nil)
		for range 62 { // nothing is sent meanwhile: it is found out nevertheless
			time.Sleep(time.Second)
			_ = tk.ready(f.ask, nil)
		}
		if err := tk.ready(f.ask, nil); err != nil {
			t.Errorf("ready: %v", err)
		}
		n := f.count.Load()
		expectTokens(t, many(t, tk, f, 64, nil), fmt.Sprintf("map[t%d:64]", n), f, n)
	})
}

// Credentials that are refused are tried less often, and as the endpoint says.
func TestTokensLeaveTheEndpointAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			err         tokenError
			least, most int64 // fetches in an hour of calls
		}{
			"down":    {tokenError{}, 60, 130},
			"refused": {tokenError{refused: true}, 6, 20},
			"told to": {tokenError{after: 30 * time.Minute}, 2, 2},
		} {
			tk, f := &tokens{}, &fetches{}
			c.err.text = name
			f.fails.Store(&c.err)
			for range 3600 {
				many(t, tk, f, 1, nil)
				time.Sleep(time.Second)
			}
			if n := f.count.Load(); n < c.least || n > c.most {
				t.Errorf("%s: %d fetches in an hour, expected %d to %d", name, n, c.least, c.most)
			}
		}
	})
}

func TestTokensAreRenewedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk, f := &tokens{}, &fetches{}
		expectTokens(t, many(t, tk, f, 64, nil), "map[t1:64]", f, 1)
		first := tk.token
		expectTokens(t, many(t, tk, f, 64, first), "map[t2:64]", f, 2)
		expectTokens(t, many(t, tk, f, 64, first), "map[t2:64]", f, 2) // the others are late to say so
	})
}

// Who was refused waits for another token. The others go on with theirs, also
// when there is no other to be had.
func TestTokensAreTakenFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk, f := &tokens{}, &fetches{lifetime: time.Hour}
		expectTokens(t, many(t, tk, f, 1, nil), "map[t1:1]", f, 1)
		f.fails.Store(&tokenError{text: "down"})
		refused, start := tk.token, time.Now()
		var waits sync.WaitGroup
		waits.Go(func() { expectTokens(t, many(t, tk, f, 64, refused), "map[down:64]", f, 2) })
		synctest.Wait()
		expectTokens(t, many(t, tk, f, 64, nil), "map[t1:64]", f, 2)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("calls waited %v", waited)
		}
		waits.Wait()
		expectTokens(t, many(t, tk, f, 64, nil), "map[t1:64]", f, 2)
		expectTokens(t, many(t, tk, f, 64, refused), "map[down:64]", f, 2)
		if mine, others := tk.ready(f.ask, refused), tk.ready(f.ask, nil); mine == nil || others != nil {
			t.Errorf("ready: %v, and for others %v", mine, others)
		}
		f.fails.Store(nil)
		time.Sleep(maxPause)
		expectTokens(t, many(t, tk, f, 64, refused), "map[t3:64]", f, 3)
	})
}

// A destination that refuses tokens whatever they are has one fetched now and
// then, after 1, 2, 4 … 60 s, until it leaves them alone for a while.
func TestTokensAreNotRenewedTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk, f := &tokens{}, &fetches{}
		many(t, tk, f, 1, nil)
		refuse := func(d time.Duration) int64 {
			before := f.count.Load()
			for range d / time.Second {
				time.Sleep(time.Second)
				if _, err := tk.get(t.Context(), f.ask, tk.token); errors.Is(err, errRenewed) && tk.wait(err) > maxPause {
					t.Errorf("wait %v", tk.wait(err))
				}
			}
			return f.count.Load() - before
		}
		if n := refuse(time.Minute); n < 6 || n > 7 {
			t.Errorf("%d fetches in the first minute", n)
		}
		if n := refuse(time.Hour); n < 55 || n > 61 {
			t.Errorf("%d fetches in the next hour", n)
		}
		time.Sleep(2*maxPause + time.Second)
		if n := refuse(time.Minute); n < 6 || n > 7 {
			t.Errorf("%d fetches in the first minute after a quiet one", n)
		}
	})
}

// A fetch that brings no token may bring another refresh token: the one before is
// used up then.
func TestTokensKeepWhatAFailedFetchBrought(t *testing.T) {
	t.Parallel()
	tk := &tokens{flight: make(chan struct{})}
	tk.land(grant{refresh: "r2"}, &tokenError{text: "no token"})
	if tk.refresh != "r2" || tk.token != nil || tk.err == nil || tk.failures != 1 {
		t.Errorf("refresh token %q, %v after %d failures", tk.refresh, tk.err, tk.failures)
	}
}

func TestTokensGiveUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tk, f := &tokens{}, &fetches{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := tk.get(ctx, f.ask, nil); !errors.Is(err, errSlowToken) {
			t.Errorf("%v", err)
		}
		expectTokens(t, many(t, tk, f, 64, nil), "map[t1:64]", f, 1) // the fetch went on
		f.lifetime = time.Nanosecond
		f.count.Store(0)
		tk = &tokens{}
		if got := many(t, tk, f, 1, nil); got["t1"] != 1 && got[errShortToken.Error()] != 1 {
			t.Errorf("%v", got)
		}
	})
}
