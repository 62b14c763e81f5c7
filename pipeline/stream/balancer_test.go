package stream

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
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

// joining is a group's way to an assignment, without a broker: the leader spreads
// the partitions, and each member reads what it was given.
type joining struct {
	members    map[string]laneBalancer
	owned      map[string]map[string][]int32
	rejoins    map[string]bool
	generation int32
}

const (
	joinTopic      = "p.deliveries.default"
	joinPartitions = 6
)

func newJoining() *joining {
	return &joining{members: map[string]laneBalancer{}, owned: map[string]map[string][]int32{}, rejoins: map[string]bool{}}
}

// only lets the group consist of these members, new ones and old.
func (j *joining) only(ids ...string) {
	maps.DeleteFunc(j.members, func(id string, _ laneBalancer) bool { return !slices.Contains(ids, id) })
	for _, id := range ids {
		if _, ok := j.members[id]; !ok {
			j.members[id] = newLaneBalancer("p.", func() { j.rejoins[id] = true })
		}
	}
}

func (j *joining) round(t *testing.T) {
	t.Helper()
	clear(j.rejoins)
	j.generation++
	var members []kmsg.JoinGroupResponseMember
	for _, id := range slices.Sorted(maps.Keys(j.members)) {
		m := kmsg.NewJoinGroupResponseMember()
		m.MemberID, m.ProtocolMetadata = id, j.members[id].JoinGroupMetadata([]string{joinTopic}, j.owned[id], j.generation-1)
		members = append(members, m)
	}
	leader := j.members[members[0].MemberID]
	balancer, _, err := leader.MemberBalancer(members)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := balancer.(kgo.GroupMemberBalancerOrError).BalanceOrError(map[string]int32{joinTopic: joinPartitions})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range plan.IntoSyncAssignment() {
		all, err := j.members[a.MemberID].ParseSyncAssignment(a.MemberAssignment)
		if err != nil {
			t.Fatal(err)
		}
		given := leading(leader, all)
		if !within(j.owned[a.MemberID], given) {
			j.rejoins[a.MemberID] = true // as the client does once it has let them go
		}
		j.owned[a.MemberID] = given
	}
}

// settle lets them join until nobody wants to again, and wants every partition
// to have one owner, and all owners to have as many.
func (j *joining) settle(t *testing.T) {
	t.Helper()
	last := j.generation + 5
	for j.round(t); len(j.rejoins) > 0; j.round(t) {
		if j.generation == last {
			t.Fatal("the group does not come to rest")
		}
	}
	var all []int32
	for id := range j.members {
		owned := j.owned[id][joinTopic]
		all = append(all, owned...)
		if len(owned) != joinPartitions/len(j.members) {
			t.Errorf("%s has %v of %d", id, owned, joinPartitions)
		}
	}
	slices.Sort(all)
	if !slices.Equal(all, []int32{0, 1, 2, 3, 4, 5}) {
		t.Errorf("owned are %v", all)
	}
}

// Members that lost their broker ask for what they had. What the leader means
// for somebody else must not stay without an owner.
func TestClaimsFromMemory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, after []string }{
		"the same members":         {[]string{"a", "b"}, []string{"a", "b"}},
		"one more than before":     {[]string{"a", "b"}, []string{"a", "b", "c"}},
		"two more than before":     {[]string{"a"}, []string{"a", "b", "c"}},
		"one less than before":     {[]string{"a", "b", "c"}, []string{"a", "c"}},
		"another one than before":  {[]string{"a", "b"}, []string{"b", "c"}},
		"a single one, then three": {[]string{"c"}, []string{"a", "b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJoining()
			j.only(c.before...)
			j.settle(t)
			clear(j.owned) // the loss
			j.only(c.after...)
			j.settle(t)
		})
	}
}

// A loss in the middle of a handover: what one member was about to let go has
// no owner yet.
func TestLossWithinAHandover(t *testing.T) {
	t.Parallel()
	j := newJoining()
	j.only("b")
	j.settle(t)
	j.only("a", "b")
	j.round(t)
	if !j.rejoins["b"] {
		t.Fatal("b has nothing to let go")
	}
	clear(j.owned)
	j.settle(t)
}

// A member that joins in vain sees generations go by in which it had nothing: its
// claim is as old as before, and does not count as much as that of an owner.
func TestClaimAfterAFailedSync(t *testing.T) {
	t.Parallel()
	j := newJoining()
	j.only("a")
	j.settle(t)
	a, last := j.members["a"], j.generation
	clear(j.owned)
	j.only("b")
	j.settle(t)
	j.generation++
	a.JoinGroupMetadata([]string{joinTopic}, nil, last) // and no assignment comes
	j.members["a"] = a
	j.round(t)
	if owned := j.owned["a"][joinTopic]; len(owned) > 0 {
		t.Errorf("a was given %v, which b had not let go", owned)
	}
	j.settle(t)
}
