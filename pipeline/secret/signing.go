package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// SigningPrefix begins every secret that calls are signed with, as the Standard
// Webhooks specification has it.
const SigningPrefix = "whsec_"

// The sizes of a key that the specification asks for, in bytes.
const (
	minSigningKey = 24
	maxSigningKey = 64
)

// SigningKey reads a secret that calls are signed with: SigningPrefix, then the
// key in base64. The error does not show it.
func SigningKey(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, SigningPrefix)
	if !ok {
		return nil, errors.New("expected a secret that begins with " + SigningPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("expected base64 after " + SigningPrefix)
	}
	if len(key) < minSigningKey || len(key) > maxSigningKey {
		return nil, fmt.Errorf("found a key of %d bytes, expected %d to %d", len(key), minSigningKey, maxSigningKey)
	}
	return key, nil
}
