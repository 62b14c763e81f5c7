package telemetry

import (
	"strings"
	"testing"
)

func TestNewLogger(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, level, format, want, err string }{
		{"text", "info", "text", `level=WARN msg=slow role=sink` + "\n", ""},
		{"json", "info", "json", `"level":"WARN","msg":"slow","role":"sink"}` + "\n", ""},
		{"below the level", "error", "text", "", ""},
		{"no such level", "loud", "text", "", `reading log level "loud": it is debug, info, warn or error`},
		{"no such format", "info", "xml", "", `reading log format "xml": it is text or json`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			log, err := NewLogger(&out, test.level, test.format)
			if err != nil {
				if err.Error() != test.err {
					t.Fatalf("error %q, want %q", err, test.err)
				}
				return
			}
			log.Warn("slow", KeyRole, "sink")
			if test.err != "" || (test.want == "") != (out.Len() == 0) || !strings.HasSuffix(out.String(), test.want) {
				t.Errorf("wrote %q, want %q at its end", out.String(), test.want)
			}
		})
	}
}
