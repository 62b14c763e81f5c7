package event

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// A dead letter that a stage makes once more, since its transaction was aborted,
// is told as before; one that comes back later is another.
func TestAlerts(t *testing.T) {
	t.Parallel()
	var a Alerts
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, step := range []struct {
		after          time.Duration
		delivery, from string
		count          int64  // 0: nothing is told
		detail         string // that is told
	}{
		{0, "d-1", "p@1", 1, "d-1 of step 0"},
		{time.Second, "d-1", "p@1", 1, "d-1 of step 0"},
		{time.Second, "d-1", "p@2", 0, ""}, // the event was sent again
		{time.Second, "d-1", "", 0, ""},    // nothing is made again where there is no from
		{AlertPause, "d-1", "", 3, "d-1 of step 4"},
		{time.Second, "d-1", "", 0, ""},
		{2 * AlertPause, "d-2", "p@1", 2, "d-2 of step 6"},
	} {
		at = at.Add(step.after)
		detail := step.delivery + " of step " + string(rune('0'+i))
		var out pipeline.Output
		a.Tell(pipeline.DefaultPrefix, Operator{At: at, Destination: "crm", Delivery: step.delivery, Detail: detail}, step.from, &out)
		var got struct {
			Properties struct {
				Count  int64
				Detail string
			}
		}
		if len(out.Records) > 0 {
			if err := json.Unmarshal(out.Records[0].Value, &got); err != nil {
				t.Fatal(err)
			}
		}
		if got.Properties.Count != step.count || got.Properties.Detail != step.detail {
			t.Errorf("step %d: told is %+v", i, got.Properties)
		}
	}
}
