package httpsend

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// tokens keeps the access token that a set of credentials gives. However many
// calls want one, there is one fetch at a time; one that fails takes nothing
// from a token that still lives. It lasts as long as the Client, so that neither
// a new revision of a destination nor another destination with the same
// credentials asks again, or comes with a refresh token that is used up.
type tokens struct {
	inBody atomic.Bool // the endpoint wants the client's secret in the body

	mu       sync.Mutex
	token    *token        // the newest; nil: none
	refresh  string        // the newest that the endpoint gave; empty: that of the definition
	flight   chan struct{} // closed when the fetch under way ends; nil: there is none
	renewal  bool          // the next token is in the place of one that was refused
	err      error         // of the last fetch
	failures int           // in a row
	again    time.Time     // no fetch before: the last one failed
}

// token is an access token.
type token struct {
	text     string
	got      time.Time
	early    time.Time // fetch another from then on
	expires  time.Time // zero: unknown, so until it is refused
	renewal  bool
	accepted atomic.Bool // by the destination, once at least
}

// grant is what a token endpoint gives.
type grant struct {
	token    string
	refresh  string        // another refresh token; empty: the one before stays
	lifetime time.Duration // 0: unknown
}

// asker asks the token endpoint; refresh is in the place of the definition's
// refresh token where it is not empty. It returns within endpoint.timeout.
type asker func(refresh string) (grant, *tokenError)

// tokenError says why there is no token, without secrets.
type tokenError struct {
	text    string
	refused bool          // by an answer that asking again won't change
	after   time.Duration // as the endpoint asked for
}

func (e *tokenError) Error() string { return e.text }

// The times of tokens.
const (
	maxEarly   = 5 * time.Minute // a new token is fetched that long before the old one expires, or a fifth of its life
	renewEvery = time.Minute     // a new token that was never accepted is not replaced before

	firstPause  = time.Second // after a fetch that failed; twice as long each time
	maxPause    = time.Minute
	refusedTime = 10 * time.Minute // at most, where the endpoint refuses the credentials
)

var (
	errStillRefused = errors.New("a new token is refused too")
	errSlowToken    = errors.New("the token endpoint has not answered in time")
	errLateToken    = errors.New("a new token came, but too late for this call")
	errShortToken   = errors.New("the token that came has expired already")
)

// get returns a token that lives, other than one that the destination refused.
// It waits only where there is none, until ctx ends; what has begun goes on for
// those who come later.
func (t *tokens) get(ctx context.Context, ask asker, refused *token) (*token, error) {
	now := time.Now()
	have, flight, err := t.look(now, ask, refused)
	switch {
	case err != nil:
		return nil, err
	case have.lives(now):
		return have, nil
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return nil, errSlowToken
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.token.lives(time.Now()):
		return t.token, nil
	case t.err != nil:
		return nil, t.err
	}
	return nil, errShortToken
}

// look returns a token that lives, or a fetch to wait for, or why there is
// neither.
func (t *tokens) look(now time.Time, ask asker, refused *token) (*token, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused != nil && refused == t.token {
		if refused.renewal && !refused.accepted.Load() && now.Sub(refused.got) < renewEvery {
			return nil, nil, errStillRefused
		}
		t.token, t.renewal = nil, true
	}
	if !t.token.fresh(now) {
		t.begin(now, ask)
	}
	if !t.token.lives(now) && t.flight == nil {
		return nil, nil, t.err
	}
	return t.token, t.flight, nil
}

// begin starts a fetch, unless one is under way or the last one failed just now.
// Called with mu held.
func (t *tokens) begin(now time.Time, ask asker) {
	if t.flight != nil || now.Before(t.again) {
		return
	}
	t.flight = make(chan struct{})
	refresh := t.refresh
	go func() {
		got, err := ask(refresh)
		t.land(got, err)
	}()
}

// land takes over what a fetch brought.
func (t *tokens) land(got grant, err *tokenError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.flight)
	t.flight = nil
	now := time.Now()
	if err != nil {
		t.failures++
		t.err, t.again = err, now.Add(err.pause(t.failures))
		return
	}
	t.err, t.failures, t.again = nil, 0, time.Time{}
	if got.refresh != "" {
		t.refresh = got.refresh
	}
	t.token = &token{text: got.token, got: now, renewal: t.renewal}
	t.renewal = false
	if got.lifetime > 0 {
		t.token.expires = now.Add(got.lifetime)
		t.token.early = t.token.expires.Add(-min(got.lifetime/5, maxEarly))
	}
}

// pause is how long to leave the endpoint alone after a number of failures.
func (e *tokenError) pause(failures int) time.Duration {
	first, most := firstPause, maxPause
	if e.refused {
		first, most = maxPause, refusedTime
	}
	pause := min(first<<min(failures-1, 10), most)
	return max(pause/2+rand.N(pause/2), e.after, firstPause)
}

// lives says whether the token may be used.
func (k *token) lives(now time.Time) bool {
	return k != nil && (k.expires.IsZero() || now.Before(k.expires))
}

// fresh says whether it is too early to fetch another.
func (k *token) fresh(now time.Time) bool {
	return k != nil && (k.early.IsZero() || now.Before(k.early))
}

// wait is how long it takes until asking again makes sense.
func (t *tokens) wait() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(time.Until(t.again), firstPause)
}

// ready says why there is no token, and asks again, lest that be said for longer
// than it is true. As long as nobody wanted a token, nothing is known.
func (t *tokens) ready(ask asker) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.err == nil || t.token.lives(now) {
		return nil
	}
	t.begin(now, ask)
	return t.err
}
