package stream

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// lanes is a group of sinks on lanes.
type lanes struct {
	cfg   Config
	lanes []string
	sinks map[string]*Tracked
	runs  map[string]*running
}

const lanePartitions = 3

func (l *lanes) create(t *testing.T, lane string) {
	t.Helper()
	adm := kadm.NewClient(clientOf(t, l.cfg))
	topics := l.topics(lane)
	if _, err := adm.CreateTopics(t.Context(), lanePartitions, 1, nil, topics...); err != nil {
		t.Fatal(err)
	}
	if err := visible(t.Context(), adm, topics); err != nil {
		t.Fatal(err)
	}
	l.lanes = append(l.lanes, lane)
}

func (l *lanes) topics(lane string) []string {
	return []string{l.cfg.Names.Deliveries(lane), l.cfg.Names.Redeliveries(lane), l.cfg.Names.Waiting(lane)}
}

func (l *lanes) join(t *testing.T, name string) {
	t.Helper()
	c := l.cfg
	c.Instance = name
	tc := trackedOn(c, "", &caller{})
	tc.Lanes, tc.Topics = true, nil
	for _, lane := range l.lanes {
		tc.Topics = append(tc.Topics, l.topics(lane)...)
	}
	tr, err := NewTracked(tc)
	if err != nil {
		t.Fatal(err)
	}
	l.sinks[name], l.runs[name] = tr, start(t, tr.Run)
}

// owners is who owns each partition at one moment, and what is wrong with it.
func (l *lanes) owners() (owner map[topicPartition]string, wrong string) {
	for _, tr := range l.sinks {
		tr.mu.Lock()
		defer tr.mu.Unlock()
	}
	owner = map[topicPartition]string{}
	for name, tr := range l.sinks {
		for tp := range tr.owned {
			if other, ok := owner[tp]; ok {
				wrong = fmt.Sprintf("%v belongs to %s and %s", tp, other, name)
			}
			owner[tp] = name
		}
	}
	for tp, name := range owner {
		lane, _ := l.cfg.Names.LaneOf(tp.topic)
		for _, topic := range l.topics(lane) {
			if other, ok := owner[topicPartition{topic, tp.partition}]; ok && other != name {
				wrong = fmt.Sprintf("%v belongs to %s, %s to %s", tp, name, topic, other)
			}
		}
	}
	return owner, wrong
}

// settle waits until everything has an owner and the partitions are spread; at
// no moment may a partition have two, or a lane's partition be split.
func (l *lanes) settle(t *testing.T, when string) {
	t.Helper()
	eventually(t, "settled group: "+when, func() bool {
		owner, wrong := l.owners()
		if wrong != "" {
			t.Fatalf("%s: %s", when, wrong)
		}
		each := map[string]int{}
		for _, name := range owner {
			each[name]++
		}
		all := len(l.lanes) * lanePartitions * 3
		for name := range l.sinks {
			if each[name] < all/len(l.sinks)-3 {
				return false
			}
		}
		return len(owner) == all
	})
}

func TestLanesStayTogether(t *testing.T) {
	t.Parallel()
	l := &lanes{cfg: testConfig(t), sinks: map[string]*Tracked{}, runs: map[string]*running{}}
	l.create(t, "default")
	for i := range 5 {
		l.create(t, fmt.Sprint("lane", i))
	}
	l.join(t, "a")
	l.settle(t, "one member")
	l.join(t, "b")
	l.join(t, "c")
	l.settle(t, "three members")
	l.create(t, "new")
	for _, tr := range l.sinks {
		tr.AddTopics(l.topics("new")...)
	}
	l.settle(t, "a new lane")
	l.runs["a"].stop(t)
	delete(l.sinks, "a")
	l.settle(t, "two members")
	for _, run := range l.runs {
		run.stop(t)
	}
}

func TestFollows(t *testing.T) {
	t.Parallel()
	b := laneBalancer{names: "p."}
	for topic, want := range map[string]bool{
		"p.deliveries.default": false, "p.redeliveries.default": true, "p.waiting.default": true,
		"p.delays.1s": false, "p.matches": false, "redeliveries.default": false, "p.deliveries.": false,
	} {
		if got := b.follows(topic); got != want {
			t.Errorf("%s follows: %v", topic, got)
		}
	}
}
