package sink

import (
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
)

// platform is a destination that takes so many calls a second and not one more,
// counted by the second, as many do. It keeps what was offered to it.
type platform struct {
	*house
	name     string
	capacity int
	mu       sync.Mutex
	down     bool
	second   int64
	taken    int // in this second
	offers   []offer
}

// offer is one call.
type offer struct {
	at     time.Time
	number int     // of the delivery
	line   float64 // calls a second that the slow start allowed then; +Inf without one
	taken  bool
}

const platformLatency = 20 * time.Millisecond

func (p *platform) endpoint(c httpsend.Call) httpsend.Result {
	<-time.After(platformLatency)
	d := p.destination(p.name)
	now := time.Now()
	d.mu.Lock()
	line := d.pace.at(now)
	if d.pace.active() && !d.pace.step.Add(paceStep).After(now) {
		line = d.pace.line // the step ends in this instant
	}
	d.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := now.Unix(); s != p.second {
		p.second, p.taken = s, 0
	}
	number, err := strconv.ParseInt(c.ID, 16, 64)
	if err != nil {
		p.t.Error(err)
	}
	taken := !p.down && p.taken < p.capacity
	p.offers = append(p.offers, offer{now, int(number), line, taken})
	if !taken {
		return failed(503, "", 0)
	}
	p.taken++
	return httpsend.Result{Status: 200, Outcome: httpsend.Success, Latency: platformLatency}
}

func (p *platform) breaks(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// since returns what was offered since a time.
func (p *platform) since(at time.Time) []offer {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.offers {
		if !o.at.Before(at) {
			return p.offers[i:]
		}
	}
	return nil
}

// belowTheLine checks that no more calls are made than the slow start allows, in
// any stretch of a second.
func belowTheLine(t *testing.T, offers []offer) {
	t.Helper()
	from := 0
	for i, o := range offers {
		for o.at.Sub(offers[from].at) >= time.Second {
			from++
		}
		line := 0.0
		for _, other := range offers[from : i+1] {
			line = math.Max(line, other.line)
		}
		// Beside the line, there are the bucket of the limiter and the rounding.
		if n := float64(i - from + 1); n > line*(1+paceBurst.Seconds())+2 {
			t.Fatalf("%v after the first call, %v calls were made within a second, the slow start allows %.1f",
				o.at.Sub(offers[0].at), n, line)
		}
	}
}

// doublings checks that the rate begins at 5% of the rate before and doubles
// every five seconds, at most.
func doublings(t *testing.T, offers []offer, before float64) {
	t.Helper()
	for _, o := range offers {
		steps := math.Floor(o.at.Sub(offers[0].at).Seconds()/paceStep.Seconds()) + 1
		if most := before * paceShare * math.Pow(2, steps) * 1.05; o.line > most && o.line < before {
			t.Fatalf("%v after the first call the slow start allows %.1f/s, expected at most %.1f/s", o.at.Sub(offers[0].at), o.line, most)
		}
	}
}

// live feeds live deliveries, so many a second for so long.
func (w *works) live(webhook string, each, seconds int) {
	for range seconds * 10 {
		w.put(webhook, each/10)
		<-time.After(100 * time.Millisecond)
	}
}

func TestReturnToABacklog(t *testing.T) { returnToABacklog(t, 5_000) }

func TestReturnToALongBacklog(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_LONG") == "" {
		t.Skip("takes minutes with -race: set MILLRACE_TEST_LONG")
	}
	returnToABacklog(t, 50_000)
}

// returnToABacklog has a destination that comes back, from an outage or from a
// pause, to deliveries that have waited, while there are as many live ones as it
// can take.
func returnToABacklog(t *testing.T, backlog int) {
	t.Parallel()
	const capacity = 100
	for name, c := range map[string]struct{ leave, back func(*platform) }{
		"outage": {
			leave: func(p *platform) { p.breaks(true) },
			back:  func(p *platform) { p.breaks(false) },
		},
		"pause": {
			leave: func(p *platform) {
				p.someone("crm", func(s state.State) (state.State, bool) {
					s.Status, s.By, s.Reason = state.Paused, "ada", state.Operator
					return s, true
				})
			},
			back: func(p *platform) { p.someone("crm", resume) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", "retry: {attempts: 100}")+hooked("another", ""), func(t *testing.T, h *house) {
				log := &logText{}
				h.Log = logTo(log)
				p := &platform{house: h, name: "crm", capacity: capacity}
				h.answer("crm", p.endpoint)
				w := h.works(4 * backlog)
				w.live("crm", 80, 30)
				c.leave(p)
				w.put("crm", backlog)
				time.Sleep(3 * time.Minute)
				trips := strings.Count(log.String(), "breaker opened")
				c.back(p)
				returned := time.Now()
				const seconds = 120
				w.live("crm", capacity, seconds)
				offers := p.since(returned)
				for len(offers) > 0 && !offers[0].taken {
					offers = offers[1:]
				}
				belowTheLine(t, offers)
				doublings(t, offers[1:], 80)
				if n := strings.Count(log.String(), "breaker opened"); n != trips {
					t.Errorf("the breaker opened %d times more", n-trips)
				}
				report(t, offers, backlog+80*30, capacity, seconds)
				if got := h.runtimeOf("crm").before; got < 75 || got > 85 {
					t.Errorf("the rate before was taken to be %.1f/s, it was 80", got)
				}
				w.stop() // what is still on its way is given back, calls end
				time.Sleep(time.Second)
				synctest.Wait()
			})
		})
	}
}

// report checks, over all calls since the return, the share of live deliveries,
// and that the destination is made use of.
func report(t *testing.T, offers []offer, old, capacity, seconds int) {
	t.Helper()
	live, taken := 0, 0
	for _, o := range offers {
		if o.number > old {
			live++
		}
		if o.taken {
			taken++
		}
	}
	t.Logf("%d calls, %d of live deliveries (%.1f%%), %d taken (%.0f%% of what it can take)", len(offers), live,
		100*float64(live)/float64(len(offers)), taken, 100*float64(taken)/float64(capacity*seconds))
	if float64(live) < 0.8*float64(len(offers)) {
		t.Errorf("of %d calls, %d were of live deliveries", len(offers), live)
	}
	if live == len(offers) || taken < capacity*seconds/3 {
		t.Errorf("%d of %d calls were of live deliveries; %d were taken", live, len(offers), taken)
	}
}
