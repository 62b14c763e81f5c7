package stream

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestTrimmerDue(t *testing.T) {
	t.Parallel()
	one := topicPartition{"t", 1}
	type commit struct {
		minute int
		offset int64
	}
	tests := []struct {
		name    string
		commits []commit
		want    map[int]int64 // by minute, what is deleted
	}{
		{"an hour later", []commit{{0, 10}}, map[int]int64{61: 10}},
		{"each in its time", []commit{{0, 10}, {5, 20}}, map[int]int64{61: 10, 66: 20}},
		{"the last of a minute", []commit{{0, 10}, {0, 12}, {0, 15}}, map[int]int64{61: 15}},
		{"nothing new, nothing again", []commit{{0, 10}, {90, 10}}, map[int]int64{61: 10, 151: 10}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := newTrimmer(Config{})
			base := time.Unix(0, 0)
			got := map[int]int64{}
			for minute := range 200 {
				if o, ok := tr.due(base.Add(time.Duration(minute)*time.Minute)).Lookup(one.topic, one.partition); ok {
					got[minute] = o.At
				}
				for _, c := range tt.commits {
					if c.minute == minute {
						tr.committed(one, c.offset)
					}
				}
			}
			if len(got) != len(tt.want) {
				t.Fatalf("deletes %v, want %v", got, tt.want)
			}
			for minute, offset := range tt.want {
				if got[minute] != offset {
					t.Errorf("deletes %v, want %v", got, tt.want)
				}
			}
			if len(tr.marks) > 0 {
				t.Errorf("still holds %v", tr.marks)
			}
		})
	}
}

func TestTrimmerDeletesAnHourLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTrimmer(Config{Log: slog.New(slog.DiscardHandler)})
		deleted := make(chan int64, 10)
		tr.delete = func(_ context.Context, os kadm.Offsets) error {
			o, _ := os.Lookup("t", 0)
			deleted <- o.At
			return errors.New("which makes no difference")
		}
		stop := tr.start(t.Context())
		tr.committed(topicPartition{"t", 0}, 7)
		time.Sleep(30 * time.Minute)
		tr.committed(topicPartition{"t", 0}, 9)
		time.Sleep(20 * time.Minute)
		if n := len(deleted); n > 0 {
			t.Errorf("deleted %d times too early", n)
		}
		time.Sleep(time.Hour)
		stop()
		close(deleted)
		if got := slices.Collect(each(deleted)); !slices.Equal(got, []int64{7, 9}) {
			t.Errorf("deleted %v", got)
		}
	})
}

// each yields what is left in a channel.
func each[T any](c <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for v := range c {
			if !yield(v) {
				return
			}
		}
	}
}

func TestTrimmerOnABroker(t *testing.T) {
	t.Parallel()
	cfg := withTopics(t, testConfig(t), 1)
	numbers(t, cfg, firstTopic(cfg), 0, 20)
	s := newStageRunner(stageOf(cfg, forward(secondTopic(cfg))))
	run := start(t, s.run)
	watch(t, cfg, secondTopic(cfg)).wait(t, 20)
	run.stop(t)
	if at := s.trim.last[topicPartition{firstTopic(cfg), 0}]; at != 20 {
		t.Fatalf("committed up to %d", at)
	}
	tr, err := NewTracked(trackedOn(cfg, secondTopic(cfg), &caller{}))
	if err != nil {
		t.Fatal(err)
	}
	run = start(t, tr.Run)
	watch(t, cfg, cfg.Names.Attempts()).wait(t, 20)
	run.stop(t)
	if at := tr.trim.last[topicPartition{secondTopic(cfg), 0}]; at < 20 {
		t.Fatalf("committed up to %d", at)
	}
	s.trim.due(time.Now())
	s.trim.look(t.Context(), time.Now().Add(2*trimAfter))
	starts, err := kadm.NewClient(clientOf(t, cfg)).ListStartOffsets(t.Context(), firstTopic(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := starts.Lookup(firstTopic(cfg), 0); o.Offset != 20 {
		t.Errorf("the log begins at %d", o.Offset)
	}
}
