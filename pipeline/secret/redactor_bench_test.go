package secret_test

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// benchTexts are responses of 4 KiB without a secret.
func benchTexts() map[string]string {
	const size = 4 << 10
	repeat := func(s string) string { return strings.Repeat(s, size/len(s)+1)[:size] }
	return map[string]string{
		"plain":   repeat("The request could not be read: field 17 of the record is not known here. "),
		"json":    repeat(`{"error":{"code":"invalid_request","id":"9f2b7c1d-4e5f-6071","field":"user","at":1789000000}},`),
		"escaped": repeat(`{\"error\":{\"code\":\"M\u00fcller &amp; S\u00f6hne\",\"url\":\"https:\/\/x.example\/a%20b%2Fc\"}},`),
		"base64":  repeat("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9KCP8xT4aYz0qVd2LmNwF7sGh"),
	}
}

func benchRedactor() *secret.Redactor {
	return secret.NewRedactor(
		secret.New("Wm9K-t0ken/of+the=bearer-4f1c2b7a9e"), secret.New("p4ss w0rd&é"),
		secret.New("https://hooks.example.com/services/T0123456/B0123456/Xyz4bcdEfgh1jklMnop2qrs"),
	)
}

func BenchmarkRedact(b *testing.B) {
	for name, text := range benchTexts() {
		benchTo(b, name, text, benchRedactor().Redact)
	}
}

func BenchmarkRedactCut(b *testing.B) {
	for name, text := range benchTexts() {
		benchTo(b, name, text, benchRedactor().RedactCut)
	}
}

// BenchmarkRedactHostile has a response repeat the first letter of a long secret,
// where each letter may be the beginning of it.
func BenchmarkRedactHostile(b *testing.B) {
	text := strings.Repeat("e", 64<<10)
	for name, size := range map[string]int{"4KiB": 4 << 10, "64KiB": 64 << 10} {
		r := secret.NewRedactor(secret.New("eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("Ab3-_", size/5)))
		benchTo(b, name, text, r.RedactCut)
	}
}

func benchTo(b *testing.B, name, text string, redact func(string) string) {
	b.Run(name, func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			redact(text)
		}
	})
}

// BenchmarkNewRedactor includes the first use.
func BenchmarkNewRedactor(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		benchRedactor().Redact("x")
	}
}
