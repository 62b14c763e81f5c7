package secret_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

func TestKeyringFollowsItsFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyset.json")
	first := newKeys(t)
	save := func(k *secret.Keys) {
		text, err := k.Reveal()
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, string(text))
	}
	second := rotated(t, first)
	old, late := seal(t, first, "old", here), seal(t, second, "late", here)
	save(first)
	synctest.Test(t, func(t *testing.T) {
		ring := &secret.Keyring{Load: func() ([]byte, error) { return os.ReadFile(path) }}
		r := &secret.Resolver{Keys: ring}
		want := func(ref secret.Reference, want string) {
			t.Helper()
			v, err := r.Resolve(ref)
			if err != nil && !strings.Contains(err.Error(), want) || err == nil && v.Reveal() != want {
				t.Errorf("it opens as %q, %v, expected %q", v.Reveal(), err, want)
			}
		}
		want(old, "old")
		want(late, "the keyset has no key")
		save(second)
		want(late, "the keyset has no key") // still fresh
		time.Sleep(secret.Fresh)            // the bubble's clock
		want(late, "late")
		want(old, "old")
		was, err := ring.Keys()
		time.Sleep(secret.Fresh)
		if is, _ := ring.Keys(); err != nil || is != was {
			t.Error("a file that stays the same makes new keys")
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(secret.Fresh)
		want(old, "reading the keyset: open")
		save(second)
		time.Sleep(secret.Fresh)
		want(old, "old")
	})
}
