package sink

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// part is what this sink owns of a lane, and so of the limits of what is on it.
// The zero part is all of it.
type part stream.Owned

// share is how much that is, above 0 and up to 1.
func (p part) share() float64 {
	if len(p.Partitions) == 0 {
		return 1
	}
	return float64(len(p.Partitions)) / float64(p.Of)
}

// calls is how many may be open of those that all sinks may have. Each partition
// has its own, so that over all sinks there are as many as there may be, whoever
// owns what. Where there are fewer than partitions, each sink has its share,
// rounded down, but one at least, or it would never get on.
func (p part) calls(all int) int {
	switch {
	case len(p.Partitions) == 0:
		return all
	case all < p.Of:
		return max(1, all*len(p.Partitions)/p.Of)
	}
	n := 0
	for _, i := range p.Partitions {
		n += (int(i)+1)*all/p.Of - int(i)*all/p.Of
	}
	return n
}

// CheckLanes says what is wrong with patterns of lanes.
func CheckLanes(patterns []string) error {
	var errs []error
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			errs = append(errs, fmt.Errorf("lane pattern %q: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// lanes returns the lanes of a snapshot that this sink serves.
func (s *sink) lanes(defs *definition.Snapshot) []string {
	return slices.DeleteFunc(defs.Lanes(), func(lane string) bool { return !s.serves(lane) })
}

func (s *sink) serves(lane string) bool {
	return len(s.Lanes) == 0 || slices.ContainsFunc(s.Lanes, func(pattern string) bool {
		ok, err := path.Match(pattern, lane)
		return ok && err == nil
	})
}

func (s *sink) laneTopics(lanes []string) []string {
	var topics []string
	for _, lane := range lanes {
		topics = append(topics, s.names.Deliveries(lane), s.names.Redeliveries(lane), s.names.Waiting(lane))
	}
	return topics
}

// waitForLanes waits until there is a lane to serve. The error is ctx's.
func (s *sink) waitForLanes(ctx context.Context) ([]string, error) {
	defs, err := s.defs.At(ctx, 0)
	for err == nil && len(s.lanes(defs)) == 0 {
		defs, err = s.defs.At(ctx, defs.Offset+1)
	}
	if err != nil {
		return nil, err
	}
	return s.lanes(defs), nil
}
