package secret_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/secret"
)

func TestSigningKey(t *testing.T) {
	t.Parallel()
	of := func(n int) string {
		return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, n))
	}
	for text, want := range map[string]string{
		"whsec_" + of(24): "",
		"whsec_" + of(32): "",
		"whsec_" + of(64): "",
		"":                "begins with whsec_",
		of(32):            "begins with whsec_",
		"WHSEC_" + of(32): "begins with whsec_",
		"whsec_":          "a key of 0 bytes, expected 24 to 64",
		"whsec_" + of(23): "a key of 23 bytes",
		"whsec_" + of(65): "a key of 65 bytes",
		"whsec_" + strings.TrimRight(of(32), "="):                          "expected base64",
		"whsec_pl4nted and no base64":                                      "expected base64",
		"whsec_" + strings.ToLower(of(32)) + "!":                           "expected base64",
		"whsec_" + strings.NewReplacer("+", "-", "/", "_").Replace(of(32)): "expected base64",
	} {
		key, err := secret.SigningKey(text)
		switch {
		case want == "" && (err != nil || base64.StdEncoding.EncodeToString(key) != text[6:]):
			t.Errorf("%q: %x, %v", text, key, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, expected %q", text, err, want)
		case err != nil && len(text) > 6 && strings.Contains(err.Error(), text[6:]):
			t.Errorf("the secret is seen in %v", err)
		}
	}
}
