package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// TestTestAsks: at a terminal, --send asks, and anything but yes is no.
func TestTestAsks(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	file := tempFile(t, "crm.yaml", strings.ReplaceAll(bothYAML, "https://crm.example.com", e.URL))
	for answer, calls := range map[string]int{"y\n": 1, "YES\n": 1, "\n": 0, "no\n": 0} {
		before := e.Count()
		term := openTerminal(t, 80)
		if _, err := term.master.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"test", "-f", file, "--send", "--egress-allow", "127.0.0.1"}, streams{term.file, &out, &errs})
		if got := e.Count() - before; got != calls || (code == exitOK) != (calls == 1) {
			t.Errorf("%q: exit code %d, %d calls\n%s%s", answer, code, got, &out, &errs)
		}
		if !strings.Contains(errs.String(), "Send it? [y/N]") || calls == 0 && !strings.Contains(errs.String(), "nothing was sent") {
			t.Errorf("%q: it says %s", answer, &errs)
		}
	}
}
