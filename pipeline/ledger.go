package pipeline

import (
	"encoding/json"
	"fmt"
	"strconv"
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

// One is the count of a single delivery, by the time that it was matched at.
func One(webhook string, matched time.Time, e Ending, deliveryID string) Count {
	return Count{webhook, matched.UTC().Truncate(time.Hour), e, 1, idSum(deliveryID)}
}

// idSum is the number that the first 16 digits of an id write; 0 for what is no
// id of ours.
func idSum(id string) uint64 {
	if len(id) < 16 {
		return 0
	}
	sum, err := strconv.ParseUint(id[:16], 16, 64)
	if err != nil {
		return 0
	}
	return sum
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

// Records returns the tally as records for the ledger topic, in the order in
// which their first counts came, and empties it. The key is the webhook and the
// hour.
func (t *Tally) Records(topic string) []Record {
	out := make([]Record, 0, len(t.keys))
	for _, k := range t.keys {
		c := t.sums[k]
		value, err := json.Marshal(c)
		if err != nil { // text, integers and a time of the years 1 to 9999 have a form
			panic(err)
		}
		key := fmt.Appendf(nil, "%s/%s", c.Webhook, c.Hour.Format(time.RFC3339))
		out = append(out, Record{Topic: topic, Key: key, Value: value})
	}
	t.sums, t.keys = nil, nil
	return out
}
