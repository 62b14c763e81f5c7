package sink

import (
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// destination is one destination at run time: what is queued for it, how many
// calls are open, and its limits. It lasts as long as the definition's name is
// there; what a new definition changes is its revision.
type destination struct {
	*sink
	name    string
	created int64 // revision at which its definition came into being; 0: not known

	mu       sync.Mutex
	gone     bool // its definition is
	rests    bool // nothing runs any more
	current  *revision
	live     queue // from the deliveries of the lane
	back     queue // from its redeliveries
	turn     int   // counts calls taken while both have some
	open     int   // workers, each with a call
	entering int   // of those whose calls the guard has not let through yet
	most     int   // of those: our share of limits.concurrency
	ours     part
	limiter  *rate.Limiter
	alarm    *time.Timer   // rings when the rate allows the next call; nil: not set
	room     chan struct{} // closed when a call may fit in; nil: nobody waits for that
	slot     time.Time     // the last one that nextSlot gave
	latency  time.Duration // of calls that were answered, smoothed

	status   state.State // as it is, or will be when it is written
	unsaved  int         // changes of it that are not written yet
	answered meter
	before   float64   // calls a second that it took, from all sinks, before it failed or was paused
	pace     pace      // since it came back
	called   time.Time // the last call that ended
	adopted  time.Time // until when the breaker was open that we took over last, or opened
	restored bool      // it is open since another sink had opened it
	returned time.Time // when it came back last
	watch    *time.Timer
	seek     time.Duration // after which it is looked again whether the probe has come
}

// revision is what follows from a destination's definition. A new one starts
// with the gate open and the breaker closed.
type revision struct {
	*guard
	def     *definition.Destination
	sender  sender      // nil: no calls can be prepared
	lacking atomic.Bool // a secret is missing
}

// says says whether the definition says what a status means.
func (r *revision) says(status int) bool {
	_, one := r.def.Responses[strconv.Itoa(status)]
	_, class := r.def.Responses[strconv.Itoa(status/100)+"xx"]
	return one || class
}

// firstLatency is what calls are taken to last before one was answered.
const firstLatency = 100 * time.Millisecond

func newDestination(s *sink, name string, rev *revision, ours part) *destination {
	d := &destination{
		sink: s, name: name, created: created(s.known.Load(), name), current: rev, ours: ours,
		limiter: rate.NewLimiter(rate.Inf, 1), latency: firstLatency,
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit()
	d.emptyAt(s.ownedAt)
	d.inherit(s.stateOf(name))
	return d
}

// newRevision prepares calls. Where that fails, though the definition passed its
// checks, another version of Millrace wrote it.
func (s *sink) newRevision(def *definition.Destination) *revision {
	rev := &revision{guard: newGuard(def, s.Log, s.Metrics), def: def}
	made, err := s.newSender(def)
	if err != nil {
		s.Log.Error("destination can't be used", telemetry.KeyDestination, def.Name, telemetry.KeyError, err)
		return rev
	}
	rev.sender = made
	return rev
}

func target(def *definition.Destination) httpsend.Target {
	t := httpsend.Target{
		Method: def.Request.Method, URL: def.Request.URL, SecretParts: def.URLSecrets(), Place: def.SecretPlace(""), Responses: def.Responses,
		Timeout:        time.Duration(def.Limits.Timeout),
		ConnectTimeout: time.Duration(def.Limits.ConnectTimeout),
		MaxBody:        int(def.Limits.MaxBody), MaxResponse: int(def.Limits.MaxResponse),
		TLS: httpsend.TLS{
			CA: def.TLS.CA.Reference, Cert: def.TLS.Cert.Reference, Key: def.TLS.Key.Reference,
			ServerName: def.TLS.ServerName, PartialChain: def.TLS.PartialChain,
		},
	}
	for name, value := range def.Request.Headers {
		t.Headers = append(t.Headers, httpsend.Header{Name: name, Value: value.String()})
	}
	for i := range def.Meanings {
		m := &def.Meanings[i]
		t.Meanings = append(t.Meanings, httpsend.Meaning{Status: m.Status, Body: m.Is, Means: m.Means, About: m.About})
	}
	t.Auth = authentication(&def.Auth)
	t.Signing = httpsend.Signing{Secret: def.Signing.Secret.Reference, Previous: def.Signing.PreviousSecret.Reference}
	return t
}

func authentication(a *definition.Auth) httpsend.Auth {
	switch a.Type {
	case definition.AuthBearer:
		return httpsend.Bearer{Token: a.Token.Reference}
	case definition.AuthBasic:
		return httpsend.Basic{Username: a.Username.Reference, Password: a.Password.Reference}
	case definition.AuthOAuth2:
		return httpsend.OAuth2{
			TokenURL: a.TokenURL, ClientID: a.ClientID.Reference, ClientSecret: a.ClientSecret.Reference,
			Scopes: a.Scopes, Audience: a.Audience, RefreshToken: a.RefreshToken.Reference,
		}
	case definition.AuthHeader:
		return httpsend.InHeader{Name: a.Name, Value: a.Value.Reference}
	case definition.AuthProperty:
		return httpsend.InProperty{Name: a.Name, Value: a.Value.Reference}
	}
	return nil
}

func (d *destination) revision() *revision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

func (d *destination) definition() *definition.Destination { return d.revision().def }

// revise puts a new definition in force, also for what is queued. Calls under
// way still tell the old breaker how they went.
func (d *destination) revise(rev *revision, ours part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	was := d.barred()
	open := d.current.isOpen() || !d.status.OpenUntil.IsZero()
	away := d.current.isOpen() || was != ""
	d.current.retire()
	d.current = rev
	d.adopted, d.restored = d.status.OpenUntil, false
	if open { // or the next outage would be taken for this one
		d.save(closeBreaker(now))
	}
	d.slot = time.Time{}
	d.ours = ours
	switch barred := d.barred(); {
	case barred == "" && away:
		d.comesBack(now)
		d.save(cameBack(now, d.before))
	case barred == "":
		d.waiting.want(d.name, now)
		d.look()
	case was == "":
		d.remember(now)
	}
	d.limit()
	d.resume()
}

// retire is for a destination that is gone: what is queued for it ends without
// a call, and need not keep to a rate.
func (d *destination) retire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current.retire()
	d.gone = true
	d.stopWatch()
	d.limit()
	d.resume()
}

// setPart sets the part of the limits that this sink may use. Who has used them
// up to now, nobody knows: what a bucket of the rate limit holds is forgotten.
func (d *destination) setPart(ours part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pace.scale(ours.share() / d.ours.share())
	d.ours = ours
	d.limit()
	d.emptyAt(time.Now())
	d.resume()
}

// limit applies our share of the limits, and the pace. Called with mu held.
func (d *destination) limit() {
	l := d.current.def.Limits
	d.most = d.ours.calls(l.Concurrency)
	most, burst := d.limitAt(time.Now()), 1
	switch {
	case d.pace.active():
		burst = int(float64(most) * paceBurst.Seconds())
	case l.Rate > 0:
		burst = int(float64(l.Burst) * d.ours.share())
	}
	d.limiter.SetLimit(most)
	d.limiter.SetBurst(max(1, burst))
}

// paceBurst is for how long calls may be made up for while the pace bounds them.
const paceBurst = 20 * time.Millisecond

// limitAt is how many calls a second may be made at a time that is not far away.
// Called with mu held.
func (d *destination) limitAt(at time.Time) rate.Limit {
	most := rate.Inf
	if l := d.current.def.Limits; l.Rate > 0 {
		most = rate.Limit(l.Rate * d.ours.share())
	}
	if d.gone {
		return rate.Inf
	}
	if d.pace.active() {
		most = min(most, rate.Limit(d.pace.at(at)))
	}
	return most
}

// emptyAt has the bucket of the rate limit filled since then only. Called with mu
// held.
func (d *destination) emptyAt(since time.Time) {
	now, limit := time.Now(), d.limiter.Limit()
	if limit == rate.Inf {
		return
	}
	filled := math.Min(float64(limit)*now.Sub(since).Seconds(), float64(d.limiter.Burst()))
	if n := int(d.limiter.TokensAt(now) - filled); n > 0 {
		d.limiter.ReserveN(now, n)
	}
}

// measure takes the latency of a call that was answered into the average. How
// fast a destination fails says nothing about how many calls it can take. Called
// with mu held.
func (d *destination) measure(latency time.Duration) {
	d.latency += (latency - d.latency) / 8
}

// each is the time between two calls when the destination is kept busy, at some
// time. Called with mu held.
func (d *destination) each(at time.Time) time.Duration {
	each := d.latency / time.Duration(d.most)
	if limit := d.limitAt(at); limit != rate.Inf {
		each = max(each, time.Duration(float64(time.Second)/float64(limit)))
	}
	return max(each, time.Microsecond)
}

// maxLine is how far ahead slots are given out in order. Whoever is further back
// asks again: limits may have changed by then.
const maxLine = time.Hour

// nextSlot is when a delivery that can't be sent before a time may come back.
// Each gets a slot of its own, at the pace at which the destination takes calls:
// so what was put off together does not come back together, nor more often than
// it could be sent.
func (d *destination) nextSlot(from time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	each := d.each(time.Now())
	// The first comes back when half of what is queued now has been sent.
	half := time.Duration(len(d.live)+len(d.back)) * each / 2
	if first := time.Now().Add(max(half, time.Second)); from.Before(first) {
		from = first
	}
	slot := d.slot.Add(d.each(d.slot))
	if slot.Before(from) {
		slot = from
	}
	if slot.Sub(from) > maxLine {
		return from.Add(maxLine - rand.N(maxLine/2))
	}
	d.slot = slot
	return slot
}

// putOff holds a delivery back until a slot that is not before a time.
func (d *destination) putOff(c *call, from time.Time, why string) {
	d.hold(c, d.nextSlot(from), why)
}
