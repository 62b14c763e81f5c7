package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyset.json")
	commandLine(t, "", "keys", "rotate", path).fails(t, exitFailed, "reading a keyset: open")
	made := commandLine(t, "", "keys", "create", path).must(t)
	text := readText(t, path)
	if mode(t, path) != 0o600 || !strings.Contains(made.out, "has been made, with the key ") {
		t.Errorf("mode %v, it says %s", mode(t, path), made.out)
	}
	commandLine(t, "", "keys", "create", path).fails(t, exitFailed, "file exists; --if-missing leaves it as it is")
	there := commandLine(t, "", "keys", "create", path, "--if-missing").must(t)
	if readText(t, path) != text || !strings.Contains(there.out, "is there, its key ") {
		t.Errorf("a keyset that is there was overwritten; it says %s", there.out)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	turned := commandLine(t, "", "keys", "rotate", path).must(t)
	keys, err := readKeyset(path)
	if err != nil || len(keys.Public().IDs()) != 2 || mode(t, path) != 0o640 || !strings.Contains(turned.out, "2 keys open") {
		t.Errorf("after a rotation: %v, mode %v, it says %s", err, mode(t, path), turned.out)
	}
	public := commandLine(t, "", "keys", "public", path).must(t)
	if p, err := secret.ReadPublicKeys([]byte(public.out)); err != nil || p.Primary() != keys.Public().Primary() {
		t.Errorf("%v in %s", err, public.out)
	}
	_, private, _ := strings.Cut(text, `"value":"`)
	private, _, _ = strings.Cut(private, `"`)
	private = private[max(0, len(private)-40):] // the end is the private key
	for _, said := range []string{made.out, there.out, turned.out, public.out} {
		if len(private) < 40 || strings.Contains(said, private) {
			t.Errorf("the private key is seen in %s", said)
		}
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestKeysetThatEverybodyCanRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyset.json")
	commandLine(t, "", "keys", "create", path).must(t)
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o601: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		var log logBuffer
		(&keysetSettings{KeysetFile: path}).warnIfOpen(slog.New(slog.NewTextHandler(&log, nil)))
		if got := strings.Contains(log.String(), "everybody on this machine"); got != want {
			t.Errorf("mode %v: %s", mode, &log)
		}
	}
}

func TestSecretsDirThatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"": false, dir: false, file: true, filepath.Join(dir, "none"): true} {
		var log logBuffer
		(&sinkSettings{SecretsDir: path}).warnIfNotThere(slog.New(slog.NewTextHandler(&log, nil)))
		if got := strings.Contains(log.String(), "is no directory that can be read"); got != want {
			t.Errorf("%q: %s", path, &log)
		}
	}
}

func TestKeysetsThatDontFit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, public, none := filepath.Join(dir, "keyset.json"), filepath.Join(dir, "public.json"), filepath.Join(dir, "none")
	commandLine(t, "", "keys", "create", path).must(t)
	for name, text := range map[string]string{public: commandLine(t, "", "keys", "public", path).must(t).out, none: "{s3cr3t"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hook := filepath.Join(dir, "hook.yaml")
	if err := os.WriteFile(hook, []byte(destinationOf("crm", "https://crm.example/in", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"it has no private keys":                                                       {"test", "-f", hook, "--keyset-file", public},
		"it is none in tink's JSON format":                                             {"test", "-f", hook, "--keyset-file", none},
		"reading the keyset: open":                                                     {"test", "-f", hook, "--keyset-file", none + "such"},
		"it is none in tink's JSON format, or it holds private":                        {"seal", "crm", "auth.token", "-f", hook, "--public-keyset-file", path},
		"sealing: there is no destination \"crn\" that can be used; did you mean crm?": {"seal", "crn", "auth.token", "-f", hook, "--public-keyset-file", public},
		public + ": it is the public part of a keyset":                                 {"keys", "rotate", public},
		none + ": reading a keyset: it is none":                                        {"keys", "rotate", none},
		"sealing: \"auth.tokens\" holds no secrets":                                    {"seal", "crm", "auth.tokens", "-f", hook, "--public-keyset-file", public},
	} {
		got := commandLine(t, "geheim", args...)
		if got.code == exitOK || !strings.Contains(got.err, want) || strings.Contains(got.err, "s3cr3t") || strings.Contains(got.err, "geheim") {
			t.Errorf("%v says %s, expected %s", args, got.err, want)
		}
	}
	commandLine(t, "", "seal", "crm", "auth.token", "-f", hook, "--public-keyset-file", public).fails(t, exitFailed, "the secret is empty")
	commandLine(t, "x", "seal", "crm", "auth.token", "-f", "-", "--public-keyset-file", public).fails(t, exitUsage, "standard input is the secret")

	sealed := strings.TrimSpace(commandLine(t, "geheim\r\n", "seal", "crm", "auth.token", "-f", hook, "--public-keyset-file", public).must(t).out)
	bearer := destinationOf("crm", "https://crm.example/in", "auth: {type: bearer, token: \""+sealed+"\"}\n")
	commandLine(t, bearer, "check", "-").must(t)
	for keyset, code := range map[string]int{path: exitOK, "": exitOK} { // without a keyset it is noted: the sink has one
		got := commandLine(t, bearer, "test", "-f", "-", "--keyset-file", keyset)
		if missing := strings.Contains(got.out, "there is no keyset to open it with"); got.code != code || missing != (keyset == "") || strings.Contains(got.out, "geheim") {
			t.Errorf("with the keyset %q, test says\n%s%s", keyset, got.out, got.err)
		}
	}
}

func destinationOf(name, url, lines string) string {
	return "kind: Destination\nname: " + name + "\nrequest:\n  url: " + url + "\n" + lines +
		"---\nkind: Webhook\nname: " + name + "\nevent: tick\ndestination: " + name + "\n"
}

// `millrace up` makes a keyset of its own beside its data, and keeps it.
func TestUpHasAKeyset(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	dir := filepath.Join(t.TempDir(), "data")
	hook := filepath.Join(t.TempDir(), "hook.yaml")
	if err := os.WriteFile(hook, []byte(destinationOf("crm", r.URL, "auth: {type: bearer, token: pl4nted}\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	kafka := pipelinetest.FreeAddr(t)
	args := []string{"up", "--data", dir, "--kafka", kafka, "--http", pipelinetest.FreeAddr(t)}
	up := startProcess(t, append(args, "--definitions", hook)...)
	up.Ready(t)
	send := func(n int) {
		t.Helper()
		commandLine(t, `{"type":"tick","user":"u"}`, "send", "-", "--brokers", kafka).must(t)
		r.Wait(t, n)
		if got := r.Calls()[n-1].Header.Get("Authorization"); got != "Bearer pl4nted" {
			t.Errorf("sent was %q", got)
		}
	}
	send(1)
	keyset := filepath.Join(dir, "keyset.json")
	text := readText(t, keyset)
	if mode(t, keyset) != 0o600 {
		t.Errorf("the keyset has the mode %v", mode(t, keyset))
	}
	up.Stop(t)
	up = startProcess(t, args...)
	up.Ready(t)
	if readText(t, keyset) != text {
		t.Error("another keyset is made")
	}
	send(2)
	up.Stop(t)
}
