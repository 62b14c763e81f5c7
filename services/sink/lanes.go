package sink

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/millrace-io/millrace/pipeline/definition"
)

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
