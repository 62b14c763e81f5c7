package stream

import (
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
)

// laneBalancer gives the deliveries, the redeliveries and the waiting of a lane's
// partition to one member: limits, breaker and order of a destination are local
// to it.
// The balancer inside spreads the deliveries topics; the others follow them
// when a member reads its assignment.
type laneBalancer struct {
	kgo.GroupBalancer
	names  pipeline.Names
	had    *claim
	rejoin func() // makes this member join the group once more
}

// claim is what a member was given last. A member that Kafka lost sight of has
// nothing any more; asking for the same again spares the calls whose endings it
// still holds (see kept). Whoever was given a partition since then asks with a
// later generation, and wins.
type claim struct {
	partitions map[string][]int32
	generation int32 // in which it had them
	given      bool  // just now, so that the next join tells the generation
	fromMemory bool  // of what Kafka lost sight of
}

func newLaneBalancer(names pipeline.Names, rejoin func()) laneBalancer {
	return laneBalancer{GroupBalancer: kgo.CooperativeStickyBalancer(), names: names, had: &claim{}, rejoin: rejoin}
}

// ProtocolName is part of the group's protocol: members that follow other rules
// can't be in the same group.
func (laneBalancer) ProtocolName() string { return "millrace-lanes" }

// follows says that a topic is not balanced by itself.
func (b laneBalancer) follows(topic string) bool {
	lane, ok := b.names.LaneOf(topic)
	return ok && topic != b.names.Deliveries(lane)
}

// JoinGroupMetadata tells the leader what this member has of the deliveries.
func (b laneBalancer) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	if len(current) > 0 {
		b.had.partitions = leading(b, current)
	}
	b.had.fromMemory = len(current) == 0 && len(b.had.partitions) > 0
	// While a member joins in vain, generations go by in which others are given
	// what it claims.
	if generation >= 0 && b.had.given {
		b.had.generation = generation
	}
	b.had.given = false
	return b.GroupBalancer.JoinGroupMetadata(topics, b.had.partitions, b.had.generation)
}

// settle notes what a member was given. What it claimed from memory and was not
// given is withheld from everybody until it has let that go; having nothing to
// let go, it has to say so by itself.
func (b laneBalancer) settle(given map[string][]int32) {
	withheld := b.had.fromMemory && !within(b.had.partitions, given)
	b.had.partitions, b.had.given, b.had.fromMemory = maps.Clone(given), true, false
	if withheld {
		b.rejoin()
	}
}

// within says that b has every partition that a has.
func within(a, b map[string][]int32) bool {
	for topic, partitions := range a {
		for _, p := range partitions {
			if !slices.Contains(b[topic], p) {
				return false
			}
		}
	}
	return true
}

// leading leaves out the topics that follow.
func leading[V any](b laneBalancer, all map[string]V) map[string]V {
	out := map[string]V{}
	for topic, v := range all {
		if !b.follows(topic) {
			out[topic] = v
		}
	}
	return out
}

// ParseSyncAssignment adds to each deliveries partition those that follow it.
func (b laneBalancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	given, err := b.GroupBalancer.ParseSyncAssignment(assignment)
	if err != nil {
		return nil, err
	}
	b.settle(given)
	all := map[string][]int32{}
	for topic, partitions := range given {
		all[topic] = partitions
		if lane, ok := b.names.LaneOf(topic); ok {
			all[b.names.Redeliveries(lane)] = slices.Clone(partitions)
			all[b.names.Waiting(lane)] = slices.Clone(partitions)
		}
	}
	return all, nil
}

// MemberBalancer makes the leader's balancer, which sees deliveries alone.
func (b laneBalancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	inner, topics, err := b.GroupBalancer.MemberBalancer(members)
	if err != nil {
		return nil, nil, err
	}
	spread, ok := inner.(kgo.GroupMemberBalancerOrError)
	if !ok {
		return nil, nil, errors.New("balancer can't report errors")
	}
	return deliveriesOnly{spread, b}, topics, nil
}

type deliveriesOnly struct {
	kgo.GroupMemberBalancerOrError
	lanes laneBalancer
}

// BalanceOrError spreads the deliveries topics.
func (d deliveriesOnly) BalanceOrError(topics map[string]int32) (kgo.IntoSyncAssignment, error) {
	return d.GroupMemberBalancerOrError.BalanceOrError(leading(d.lanes, topics))
}
