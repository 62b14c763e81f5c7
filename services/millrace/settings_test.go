package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
)

func TestKafkaConfig(t *testing.T) {
	t.Parallel()
	k := kafkaSettings{Brokers: []string{"a:1", "b:2"}, clientSettings: clientSettings{
		Prefix: "mine.",
		TLS:    tlsSettings{CA: "ca.pem", Cert: "cert.pem", Key: "key.pem", ServerName: "kafka"},
		SASL:   saslSettings{Mechanism: stream.ScramSHA512, Username: "u", PasswordFile: tempFile(t, "password", "s3cret\r\n")},
	}}
	cfg, err := k.config("me", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.Brokers, []string{"a:1", "b:2"}) || cfg.Names != "mine." || cfg.Instance != "me" {
		t.Errorf("config is %+v", cfg)
	}
	if want := (stream.TLSConfig{CA: "ca.pem", Cert: "cert.pem", Key: "key.pem", ServerName: "kafka"}); *cfg.TLS != want {
		t.Errorf("TLS is %+v", cfg.TLS)
	}
	if password, err := cfg.SASL.Password(); err != nil || password != "s3cret" || cfg.SASL.Mechanism != stream.ScramSHA512 || cfg.SASL.Username != "u" {
		t.Errorf("SASL is %+v with password %q, %v", cfg.SASL, password, err)
	}
}

func TestKafkaConfigPlain(t *testing.T) {
	t.Parallel()
	k := kafkaSettings{Brokers: []string{"a:1"}}
	if cfg, err := k.config("me", nil); err != nil || cfg.TLS != nil || cfg.SASL != nil {
		t.Errorf("config is %+v, %v", cfg, err)
	}
	k.TLS.Enabled = true
	if cfg, err := k.config("me", nil); err != nil || cfg.TLS == nil {
		t.Errorf("with TLS, config is %+v, %v", cfg, err)
	}
}

func TestKafkaConfigProblems(t *testing.T) {
	t.Parallel()
	for says, k := range map[string]kafkaSettings{
		"host:port": {Brokers: []string{"a"}},
		"prefix":    {Brokers: []string{"a:1"}, clientSettings: clientSettings{Prefix: "a b"}},
		"username":  {Brokers: []string{"a:1"}, clientSettings: clientSettings{SASL: saslSettings{Mechanism: stream.Plain}}},
		"cert":      {Brokers: []string{"a:1"}, clientSettings: clientSettings{TLS: tlsSettings{Cert: "cert.pem"}}},
	} {
		_, err := k.config("me", nil)
		c, ok := errors.AsType[*codeError](err)
		if !ok || c.code != exitUsage || !strings.Contains(err.Error(), says) {
			t.Errorf("expected %q, got %v", says, err)
		}
	}
}

func TestPasswordFrom(t *testing.T) {
	t.Setenv("MILLRACE_SASL_PASSWORD", "from the environment")
	if p, err := passwordFrom("", "MILLRACE_SASL_PASSWORD"); err != nil || p != "from the environment" {
		t.Errorf("got %q, %v", p, err)
	}
	if p, err := passwordFrom(tempFile(t, "p", "from a file\n"), "MILLRACE_SASL_PASSWORD"); err != nil || p != "from a file" {
		t.Errorf("got %q, %v", p, err)
	}
	if _, err := passwordFrom(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestResolveEventTopics(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		given, want []string
		regex       bool
		says        string
	}{
		{nil, []string{"p.events"}, false, ""},
		{[]string{"a", "b"}, []string{"a", "b"}, false, ""},
		{[]string{`regex:a\..*|b`}, []string{`^(?:a\..*|b)$`}, true, ""},
		{[]string{"a", "regex:b"}, nil, false, "stands alone"},
	} {
		e := eventSettings{Topics: test.given}
		topics, regex, err := e.resolve(pipeline.Names("p."))
		if !slices.Equal(topics, test.want) || regex != test.regex || (err != nil) != (test.says != "") {
			t.Errorf("%q gives %q, %v, %v", test.given, topics, regex, err)
		}
	}
}

func TestInstanceOf(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range [][3]string{
		{"mine", ":8080", "mine"},
		{"", "127.0.0.1:8081", host + "-8081"},
		{"", ":8080", host + "-8080"},
		{"", "", host + "-0"},
	} {
		if got := instanceOf(test[0], test[1]); got != test[2] {
			t.Errorf("instanceOf(%q, %q) = %q, expected %q", test[0], test[1], got, test[2])
		}
	}
}

// TestConfigFile reads settings from a file: brokers that are not there are
// named by the error.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	addr := pipelinetest.FreeAddr(t)
	for name, text := range map[string]string{
		"list":    "brokers: [" + addr + "]\nlog-level: error\n",
		"nested":  "brokers: " + addr + "\nlog:\n  level: error\n",
		"unquote": "brokers: " + addr + "\nlog_level: error\nsasl:\n  mechanism: PLAIN\n  username: 7\n",
	} {
		file := tempFile(t, "millrace.yaml", text)
		if r := commandLine(t, "", "list", "--config", file); r.code != exitFailed || !strings.Contains(r.err, "no Kafka at "+addr) {
			t.Errorf("%s: %d, %s", name, r.code, r.err)
		}
		other := pipelinetest.FreeAddr(t)
		commandLine(t, "", "list", "--config", file, "--brokers", other).fails(t, exitFailed, "no Kafka at "+other)
	}
	for says, text := range map[string]string{
		"no command has a flag --brokerz": "brokerz: a:1\n",
		"--tls-cat":                       "tls:\n  cat: x\n",
		"reading the configuration":       "a: [\n",
		"loud":                            "log-level: loud\n",
	} {
		commandLine(t, "", "list", "--config", tempFile(t, "millrace.yaml", text)).fails(t, exitUsage, says)
	}
	commandLine(t, "", "list", "--config", filepath.Join(t.TempDir(), "none")).fails(t, exitUsage, "none")
	commandLine(t, "", "check", "-", "--config", tempFile(t, "empty.yaml", "")).must(t)
}

func TestEnvironment(t *testing.T) {
	addr := pipelinetest.FreeAddr(t)
	t.Setenv("MILLRACE_BROKERS", addr)
	commandLine(t, "", "list").fails(t, exitFailed, "no Kafka at "+addr)
	file := tempFile(t, "millrace.yaml", "brokers: 127.0.0.1:1\n")
	commandLine(t, "", "list", "--config", file).fails(t, exitFailed, "no Kafka at "+addr)
	t.Setenv("MILLRACE_VERSION", "1") // set by many a build system, and no flag
	commandLine(t, "", "list").fails(t, exitFailed, "no Kafka at "+addr)
	t.Setenv("MILLRACE_LOG_LEVEL", "loud")
	commandLine(t, "", "list").fails(t, exitUsage, "loud")
}

func TestLogger(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"text": "level=WARN msg=hello", "json": `"msg":"hello"`} {
		var b strings.Builder
		log, err := (&logSettings{Level: "warn", Format: format}).logger(&b)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("quiet")
		log.Warn("hello")
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "quiet") {
			t.Errorf("%s: it logs %s", format, b.String())
		}
	}
	if _, err := (&logSettings{Level: "loud", Format: "text"}).logger(io.Discard); err == nil {
		t.Error("the level loud is accepted")
	}
}
