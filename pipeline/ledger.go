package pipeline

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Ending is how a match ended, or, for Matched, that there is one.
type Ending string

// Every match ends as exactly one of these, Matched apart, which counts them.
const (
	Matched      Ending = "matched"
	Delivered    Ending = "delivered"
	DeadLettered Ending = "dead_letter"
	Expired      Ending = "expired"
	Removed      Ending = "removed"
)

// Count is one entry of the ledger: how many matches of a webhook, by the hour
// they were matched in, ended in one way, and the sum of their delivery ids. A
// loss and a repeat leave the count as it was, but not the sum.
type Count struct {
	Webhook string    `json:"webhook"`
	Hour    time.Time `json:"hour"` // UTC, truncated to the hour
	Ending  Ending    `json:"ending"`
	N       int64     `json:"count"`
	Sum     uint64    `json:"sum,string"` // modulo 2^64, of the first 8 bytes of each id
}

// One is the count of a single delivery.
func One(webhook string, matched time.Time, e Ending, deliveryID string) Count {
	return Count{webhook, matched.UTC().Truncate(time.Hour), e, 1, idSum(deliveryID)}
}

func idSum(id string) uint64 {
	var b [8]byte
	if len(id) < 16 {
		return 0
	}
	if _, err := hex.Decode(b[:], []byte(id[:16])); err != nil {
		return 0
	}
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// Tally adds counts up, so that a transaction writes one record for each
// webhook, hour and ending. The zero value is ready.
type Tally struct {
	sums map[tallyKey]*Count
	keys []tallyKey // in the order they came
}

type tallyKey struct {
	webhook string
	hour    int64
	ending  Ending
}

// Add adds one count.
func (t *Tally) Add(c Count) {
	k := tallyKey{c.Webhook, c.Hour.Unix(), c.Ending}
	if have := t.sums[k]; have != nil {
		have.N += c.N
		have.Sum += c.Sum
		return
	}
	if t.sums == nil {
		t.sums = map[tallyKey]*Count{}
	}
	t.sums[k] = &c
	t.keys = append(t.keys, k)
}

// Records returns the tally as records for the ledger topic, and empties it.
func (t *Tally) Records(topic string) []Record {
	out := make([]Record, 0, len(t.keys))
	for _, k := range t.keys {
		c := t.sums[k]
		value, err := json.Marshal(c)
		if err != nil { // a struct of text, time and integers
			panic(err)
		}
		key := fmt.Appendf(nil, "%s/%s", c.Webhook, c.Hour.Format(time.RFC3339))
		out = append(out, Record{Topic: topic, Key: key, Value: value})
	}
	t.sums, t.keys = nil, nil
	return out
}
