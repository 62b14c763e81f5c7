package definition_test

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
)

// BenchmarkSnapshot compiles what a large installation has, as every role does
// when it starts.
func BenchmarkSnapshot(b *testing.B) {
	const webhooks = 10_000
	records := []pipeline.Record{put(definition.KindDestination, "crm", `{"request":{"url":"https://crm.example/track"}}`)}
	for i := range webhooks {
		records = append(records, put(definition.KindWebhook, fmt.Sprintf("hook-%d", i), fmt.Sprintf(
			`{"event":"smart_walk_thru.goal_reached","condition":"props[\"walk_thru_id\"] == %d","destination":"crm","properties":[`+
				`{"from":"wm.euid","as":"identity"},{"from":"goal_name"},{"from":"ctx.title"},{"name":"app_id","value":"11"}]}`, i)))
	}
	base := empty(b)
	for b.Loop() {
		s := base.With(records, 1)
		if len(s.Webhooks) != webhooks {
			b.Fatalf("%d webhooks are in force", len(s.Webhooks))
		}
	}
}
