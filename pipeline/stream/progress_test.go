package stream

import "testing"

// What has ended is known from outside, above the oldest open record too.
func TestProgress(t *testing.T) {
	t.Parallel()
	cfg := withTopics(t, testConfig(t), 1)
	read := func() *Progress {
		t.Helper()
		p, err := ReadProgress(t.Context(), cfg, "sink", "nobody")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	topic := firstTopic(cfg)
	if read().Ended(topic, 0, 0) {
		t.Error("before anything was committed, a record has ended")
	}
	numbers(t, cfg, topic, 0, 3)
	h := &holder{caller: caller{atOnce: true}, held: make(chan *Ticket, 1)}
	run := startTracked(t, trackedOf(cfg, h))
	watch(t, cfg, cfg.Names.Attempts()).wait(t, 2)
	held := <-h.held
	eventually(t, "all but one have ended", func() bool { // Kafka shows a commit partition by partition
		p, n := read(), 0
		for offset := range int64(4) {
			if p.Ended(topic, 0, offset) {
				n++
			}
		}
		return n == 2 && !p.Ended(topic, 0, held.Record.Offset) && !p.Ended(topic, 0, 3)
	})
	held.Release()
	run.stop(t)
}
