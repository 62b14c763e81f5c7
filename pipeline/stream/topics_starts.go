package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// starts commits where the filter begins and reports it.
func (in *initializer) starts(ctx context.Context) error {
	if len(in.eventNames) == 0 {
		return nil
	}
	topics, err := describe(ctx, in.adm, in.eventNames)
	if err != nil {
		return err
	}
	group := in.cfg.Names.Group("filter")
	have, err := committed(ctx, in.adm, group)
	if err != nil {
		return fmt.Errorf("asking where group %q is: %w", group, err)
	}
	begin, err := in.begin(ctx)
	if err != nil {
		return err
	}
	var todo kadm.Offsets
	for _, name := range in.eventNames {
		s := TopicStart{name, topics[name].ID, map[int32]int64{}}
		for p := range int32(topics[name].Partitions) {
			if at, ok := have.Lookup(name, p); ok && at.Err == nil && at.At >= 0 {
				s.Partitions[p] = at.At
				continue
			}
			at, ok := begin.Lookup(name, p)
			if !ok || at.Err != nil {
				return fmt.Errorf("asking for the offsets of %s/%d: %w", name, p, errors.Join(at.Err, kerr.UnknownTopicOrPartition))
			}
			s.Partitions[p] = at.Offset
			todo.AddOffset(name, p, at.Offset, -1)
		}
		in.report.Starts = append(in.report.Starts, s)
	}
	return in.commit(ctx, group, todo)
}

// committed is what a group has committed; nothing if there is no such group.
func committed(ctx context.Context, adm *kadm.Client, group string) (out kadm.OffsetResponses, err error) {
	err = patiently(ctx, func(ctx context.Context) (err error) {
		out, err = adm.FetchOffsets(ctx, group)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil
		}
		return err
	})
	return out, err
}

// begin lists the offsets to start from: a topic that Init created is empty.
func (in *initializer) begin(ctx context.Context) (kadm.ListedOffsets, error) {
	list := in.adm.ListEndOffsets
	if in.o.Start == Earliest {
		list = in.adm.ListStartOffsets
	}
	return list(ctx, in.eventNames...)
}

// commit writes the offsets into the filter's group while nobody is in it:
// Kafka refuses that of anybody outside a running group.
func (in *initializer) commit(ctx context.Context, group string, todo kadm.Offsets) error {
	if len(todo) == 0 {
		return nil
	}
	var groups kadm.DescribedGroups
	err := patiently(ctx, func(ctx context.Context) (err error) {
		groups, err = in.adm.DescribeGroups(ctx, group)
		return err
	})
	if err != nil {
		return fmt.Errorf("describing group %q: %w", group, err)
	}
	if len(groups[group].Members) > 0 {
		in.report.Notes = append(in.report.Notes, fmt.Sprintf(
			"the filter is running and has not been told where to begin in %s: stop it and run init again",
			strings.Join(slices.Sorted(maps.Keys(todo)), ", "),
		))
		return nil
	}
	err = patiently(ctx, func(ctx context.Context) error { return in.adm.CommitAllOffsets(ctx, group, todo) })
	if err != nil {
		return fmt.Errorf("committing where group %q begins: %w", group, err)
	}
	return nil
}
