package secret_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

func parse(t testing.TB, text string) secret.Reference {
	t.Helper()
	r, err := secret.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "heap", "token"), "tok\n")
	write(t, filepath.Join(dir, "crlf"), "tok\r\n")
	write(t, filepath.Join(dir, "two"), "tok\n\n")
	// As Kubernetes mounts them: token -> ..data/token, ..data -> ..2026.
	write(t, filepath.Join(dir, "..2026", "mounted"), "swapped")
	symlink(t, "..2026", filepath.Join(dir, "..data"))
	symlink(t, filepath.Join("..data", "mounted"), filepath.Join(dir, "mounted"))
	r := &secret.Resolver{Dir: dir, Env: environment(map[string]string{"MILLRACE_SECRET_A": "a b"})}
	for text, want := range map[string]string{
		"":                                       "",
		"literal":                                "literal",
		"Bearer ${file:heap/token}":              "Bearer tok",
		"${file:crlf}":                           "tok",
		"${file:two}":                            "tok\n",
		"${file:mounted}":                        "swapped",
		"${env:MILLRACE_SECRET_A}":               "a b",
		"x${env:MILLRACE_SECRET_A}y${file:crlf}": "xa bytok",
	} {
		v, err := r.Resolve(parse(t, text))
		if err != nil || v.Reveal() != want {
			t.Errorf("Resolve(%q) = %q, %v, want %q", text, v.Reveal(), err, want)
		}
	}
}

func symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func TestResolveMissing(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, filepath.Join(outside, "token"), planted)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "\n")
	write(t, filepath.Join(dir, "large"), strings.Repeat("x", secret.MaxSize+1))
	symlink(t, filepath.Join(outside, "token"), filepath.Join(dir, "absolute"))
	symlink(t, filepath.Join("..", filepath.Base(outside), "token"), filepath.Join(dir, "relative"))
	symlink(t, outside, filepath.Join(dir, "folder"))
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &secret.Resolver{Dir: dir, Env: environment(map[string]string{"MILLRACE_SECRET_EMPTY": ""})}
	for text, want := range map[string]string{
		"${env:MILLRACE_SECRET_GONE}":  "secret ${env:MILLRACE_SECRET_GONE} is missing: the environment variable is not set",
		"${env:MILLRACE_SECRET_EMPTY}": "it is empty",
		"${file:gone}":                 "secret ${file:gone} is missing",
		"${file:empty}":                "it is empty",
		"${file:large}":                "larger than 65536 bytes",
		"${file:.}":                    "not a regular file",
		"${file:pipe}":                 "not a regular file",
		"${file:absolute}":             "escapes",
		"${file:relative}":             "escapes",
		"${file:folder/token}":         "escapes",
	} {
		v, err := r.Resolve(parse(t, text))
		missing, ok := errors.AsType[*secret.MissingError](err)
		if !ok || !strings.Contains(err.Error(), want) || missing.Placeholder != text || v.Reveal() != "" {
			t.Errorf("Resolve(%q) = %q, %v, want %q", text, v.Reveal(), err, want)
		}
	}
}

func TestResolveNamesEveryMissingSecretAndNoValue(t *testing.T) {
	t.Parallel()
	r := &secret.Resolver{Env: environment(map[string]string{"MILLRACE_SECRET_A": planted})}
	_, err := r.Resolve(parse(t, "${env:MILLRACE_SECRET_A}${env:MILLRACE_SECRET_B}${file:c}"))
	if err == nil || strings.Contains(err.Error(), planted) ||
		!strings.Contains(err.Error(), "MILLRACE_SECRET_B") || !strings.Contains(err.Error(), "${file:c}") {
		t.Errorf("Resolve: %v", err)
	}
}

func TestResolveReadsTheEnvironment(t *testing.T) {
	t.Setenv("MILLRACE_SECRET_TEST", planted)
	v, err := new(secret.Resolver).Resolve(parse(t, "${env:MILLRACE_SECRET_TEST}"))
	if err != nil || v.Reveal() != planted {
		t.Errorf("Resolve = %q, %v", v.Reveal(), err)
	}
}

func TestResolveFollowsRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "old")
	ref := parse(t, "${file:token}")
	synctest.Test(t, func(t *testing.T) {
		r := &secret.Resolver{Dir: filepath.Dir(path)}
		want := func(want string) {
			t.Helper()
			if v, err := r.Resolve(ref); err != nil || v.Reveal() != want {
				t.Errorf("Resolve = %q, %v, want %q", v.Reveal(), err, want)
			}
		}
		want("old")
		write(t, path, "new")
		want("old")              // still fresh
		time.Sleep(secret.Fresh) // the bubble's clock
		want("new")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(secret.Fresh)
		if _, err := r.Resolve(ref); err == nil {
			t.Error("Resolve gives a secret that was removed")
		}
		write(t, path, "back") // missing is not remembered
		want("back")
	})
}
