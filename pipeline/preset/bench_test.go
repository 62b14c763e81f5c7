package preset_test

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/preset"
)

// BenchmarkCheck has what a contract adds to each delivery.
func BenchmarkCheck(b *testing.B) {
	heap := preset.Builtin()["heap"].Contract
	body := []byte(`{"app_id":"11","identity":"u-10427","event":"Walk-Thru Goal Reached","idempotency_key":"c65f8edf2704336602afab521362ae0f","timestamp":"2026-05-04T10:00:00.000Z",` +
		`"properties":{"goal":"Invoice sent","step":3,"comment":"` + strings.Repeat("x", 270) + `"}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := heap.Check(body); err != nil {
			b.Fatal(err)
		}
	}
}
