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
//
// A destination that refuses a token takes it from nobody: who was refused waits
// for another one, and the others go on.
type tokens struct {
	inBody atomic.Bool // the endpoint wants the client's secret in the body

	mu        sync.Mutex
	token     *token        // the newest; nil: none
	refresh   string        // the newest that the endpoint gave; empty: that of the definition
	flight    chan struct{} // closed when the fetch under way ends; nil: there is none
	err       error         // of the last fetch
	failures  int           // in a row
	again     time.Time     // no fetch before: the last one failed
	renewals  int           // fetches because a token was refused, with no quiet minute between
	renewable time.Time     // no other such fetch before: the token is new
}

// token is an access token.
type token struct {
	text    string
	early   time.Time // fetch another from then on
	expires time.Time // zero: unknown, so until it is refused
}

// doubt is that a destination refused a token when there was no other to be had.
// It is over when the destination takes one.
type doubt struct {
	token *token // not sent again before then, if it can be helped
	until time.Time
}

// grant is what a token endpoint gives.
type grant struct {
	token    string
	refresh  string        // another refresh token; empty: the one before stays
	lifetime time.Duration // 0: unknown
}

// asker asks the token endpoint; refresh is in the place of the definition's
// refresh token where it is not empty. It returns within endpoint.timeout. With
// an error, another refresh token may come all the same.
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
	maxEarly  = 5 * time.Minute // a new token is fetched that long before the old one expires, or a fifth of its life
	minLife   = time.Second     // a token with less is none: each call would fetch one
	doubtTime = time.Minute     // how long a doubt lasts

	// After a fetch that failed, and after one because a token was refused; twice
	// as long each time.
	firstPause  = time.Second
	maxPause    = time.Minute
	refusedTime = 10 * time.Minute // at most, where the endpoint refuses the credentials
)

var (
	errRenewed    = errors.New("the destination refuses a token that was fetched just now because one was refused")
	errSlowToken  = errors.New("it has not answered in time")
	errLateToken  = errors.New("a new token came, but too late for this call")
	errShortToken = errors.New("the token that came has expired already")
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
	case t.token != refused && t.token.lives(time.Now()):
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
	have := t.token
	var err error
	switch {
	case !have.fresh(now):
		t.begin(now, ask)
	case have == refused:
		err = t.renew(now, ask)
	}
	if have == refused {
		have = nil
	}
	if err == nil && !have.lives(now) && t.flight == nil {
		err = t.err
	}
	return have, t.flight, err
}

// renew starts a fetch in the place of a token that was refused, if that is not
// too soon after the last such fetch: it may not be the token that is wrong, and
// a destination that says 401 to some calls and takes others is no reason to
// fetch a token for each. Called with mu held.
func (t *tokens) renew(now time.Time, ask asker) error {
	switch {
	case t.flight != nil || now.Before(t.again):
		return nil
	case now.Before(t.renewable):
		return errRenewed
	case now.Sub(t.renewable) > maxPause:
		t.renewals = 0
	}
	t.renewable = now.Add(min(firstPause<<min(t.renewals, 10), maxPause))
	t.renewals++
	t.begin(now, ask)
	return nil
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
	if got.refresh != "" {
		t.refresh = got.refresh
	}
	if err != nil {
		t.failures++
		t.err, t.again = err, now.Add(err.pause(t.failures))
		t.renewable = t.again // the token is not new, after all
		return
	}
	t.err, t.failures, t.again = nil, 0, time.Time{}
	t.token = &token{text: got.token}
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

// wait is how long it takes, after an error of get, until asking again makes
// sense.
func (t *tokens) wait(err error) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.again
	if errors.Is(err, errRenewed) {
		at = t.renewable
	}
	return max(time.Until(at), firstPause)
}

// ready says why there is no token, other than one that the destination refused,
// and asks again, lest that be said for longer than it is true. As long as nobody
// wanted a token, nothing is known.
func (t *tokens) ready(ask asker, refused *token) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.err == nil || t.token != refused && t.token.lives(now) {
		return nil
	}
	t.begin(now, ask)
	return t.err
}
