package httpsend

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Signing has calls signed as the Standard Webhooks specification says: with
// webhook-signature beside webhook-id and webhook-timestamp. What is signed is
// the body; with GET, there is none.
type Signing struct {
	Secret secret.Reference // "whsec_" and base64; empty: calls are not signed
	// Previous is the secret before, during a rotation: calls are signed with
	// both, so that they verify with either. May be empty.
	Previous secret.Reference
}

func (s Signing) references() (all []secret.Reference) {
	for _, ref := range []secret.Reference{s.Secret, s.Previous} {
		if ref.String() != "" {
			all = append(all, ref)
		}
	}
	return all
}

// sign looks up the keys to sign with.
func (b *builder) sign(s Signing) (keys [][]byte) {
	for _, ref := range s.references() {
		before := len(b.errs)
		text := b.resolve(ref)
		if len(b.errs) > before {
			continue
		}
		key, err := secret.SigningKey(text)
		if err != nil {
			b.errs = append(b.errs, fmt.Errorf("signing with %s: %w", strings.Join(ref.Names(), ", "), err))
			continue
		}
		b.secrets = append(b.secrets, secret.New(text), secret.New(strings.TrimRight(strings.TrimPrefix(text, secret.SigningPrefix), "=")))
		keys = append(keys, key)
	}
	return keys
}

// signatures makes the value of webhook-signature: one for each key.
func signatures(keys [][]byte, id, timestamp string, body []byte) string {
	var out strings.Builder
	for i, key := range keys {
		mac := hmac.New(sha256.New, key)
		for _, part := range [...][]byte{[]byte(id), []byte("."), []byte(timestamp), []byte("."), body} {
			mac.Write(part)
		}
		if i > 0 {
			out.WriteByte(' ')
		}
		out.WriteString("v1,")
		out.WriteString(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return out.String()
}
