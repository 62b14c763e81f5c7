package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

type logSettings struct {
	Level  string `help:"Log from this level upwards: ${enum}." enum:"debug,info,warn,error" default:"info"`
	Format string `help:"Format of log lines: ${enum}." enum:"text,json" default:"text"`
}

func (l *logSettings) logger(w io.Writer) (*slog.Logger, error) {
	return telemetry.NewLogger(w, l.Level, l.Format)
}

// kafkaSettings are how to reach Kafka and what our names there begin with.
type kafkaSettings struct {
	Brokers []string `help:"Addresses of Kafka brokers. Default ${default}." default:"127.0.0.1:9092" placeholder:"HOST:PORT" group:"kafka"`
	clientSettings
}

// clientSettings are how to talk to a Kafka, wherever it is.
type clientSettings struct {
	Prefix string       `help:"Prefix of every topic, group and transactional id; one prefix is one tenant. Default ${default}." default:"millrace." group:"kafka"`
	TLS    tlsSettings  `embed:"" prefix:"tls-" group:"kafka"`
	SASL   saslSettings `embed:"" prefix:"sasl-" group:"kafka"`
}

type tlsSettings struct {
	Enabled    bool   `name:"enabled" help:"Encrypt the connection to Kafka."`
	CA         string `name:"ca" help:"Certificates to trust instead of the system's, as PEM." placeholder:"FILE"`
	Cert       string `help:"Client certificate, as PEM." placeholder:"FILE"`
	Key        string `help:"Key of the client certificate, as PEM." placeholder:"FILE"`
	ServerName string `help:"Name in the brokers' certificates, if it is not their host name."`
}

type saslSettings struct {
	Mechanism    string `help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none." enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" default:""`
	Username     string `help:"User name."`
	PasswordFile string `help:"File that holds the password; without one, it is taken from MILLRACE_SASL_PASSWORD." placeholder:"FILE"`
}

func (k *kafkaSettings) config(instance string, log *slog.Logger) (stream.Config, error) {
	return k.clientSettings.config(k.Brokers, instance, log)
}

func (k *clientSettings) config(brokers []string, instance string, log *slog.Logger) (stream.Config, error) {
	cfg := stream.Config{
		Brokers: brokers, Names: pipeline.Names(k.Prefix), Instance: instance, Log: log,
		ClientID: "millrace",
	}
	if k.TLS.Enabled || k.TLS.CA != "" || k.TLS.Cert != "" {
		cfg.TLS = &stream.TLSConfig{CA: k.TLS.CA, Cert: k.TLS.Cert, Key: k.TLS.Key, ServerName: k.TLS.ServerName}
	}
	if k.SASL.Mechanism != "" {
		cfg.SASL = &stream.SASLConfig{Mechanism: k.SASL.Mechanism, Username: k.SASL.Username, Password: k.SASL.password}
	}
	if err := cfg.Validate(); err != nil {
		return cfg, &codeError{exitUsage, err}
	}
	return cfg, nil
}

func (s *saslSettings) password() (string, error) {
	return passwordFrom(s.PasswordFile, "MILLRACE_SASL_PASSWORD")
}

// passwordFrom reads a password from a file or, without one, from the
// environment: a flag would show it to everyone on the machine.
func passwordFrom(file, env string) (string, error) {
	if file == "" {
		return os.Getenv(env), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading a password: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// connect makes a configuration for a tool, and asks whether Kafka is there.
func (k *kafkaSettings) connect(ctx context.Context, l *logSettings, w io.Writer) (stream.Config, error) {
	log, err := l.logger(w)
	if err != nil {
		return stream.Config{}, err
	}
	cfg, err := k.config("cli", log)
	if err != nil {
		return cfg, err
	}
	return cfg, cfg.Ping(ctx)
}

// eventSettings name the topics that producers write to.
type eventSettings struct {
	Topics []string `name:"events-topics" help:"Topics that producers write to, or one pattern as regex:…; default <prefix>events, which init creates." placeholder:"TOPIC"`
}

// resolve returns what the filter reads, and whether it is a pattern.
func (e *eventSettings) resolve(names pipeline.Names) (topics []string, regex bool, err error) {
	if len(e.Topics) == 0 {
		return []string{names.Events()}, false, nil
	}
	for _, t := range e.Topics {
		pattern, is := strings.CutPrefix(t, "regex:")
		if !is {
			continue
		}
		if len(e.Topics) > 1 {
			return nil, false, &codeError{exitUsage, fmt.Errorf("events-topics: a pattern (%s) stands alone", t)}
		}
		return []string{"^(?:" + pattern + ")$"}, true, nil
	}
	return e.Topics, false, nil
}

// instanceOf is what tells replicas apart: host name and port, since both stay
// over a restart.
func instanceOf(given, addr string) string {
	if given != "" {
		return given
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		port = addr
	}
	return host + "-" + cmp.Or(port, "0")
}

// loadYAML resolves flags from a configuration file: a map of flag names, which
// may be nested at their dashes (kafka-like "tls: {ca: …}" is --tls-ca).
func loadYAML(r io.Reader) (kong.Resolver, error) {
	var raw map[string]any
	if err := yaml.NewDecoder(r).Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	values := map[string]any{}
	flatten("", raw, values)
	return &fileResolver{values: values}, nil
}

func flatten(prefix string, in, out map[string]any) {
	for k, v := range in {
		name := prefix + strings.NewReplacer(".", "-", "_", "-").Replace(k)
		if nested, ok := v.(map[string]any); ok {
			flatten(name+"-", nested, out)
			continue
		}
		out[name] = v
	}
}

// fileResolver gives the values of a configuration file.
type fileResolver struct{ values map[string]any }

// Validate refuses keys that no command knows: a misspelt setting would
// otherwise be no setting at all.
func (f *fileResolver) Validate(app *kong.Application) error {
	known := map[string]bool{}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, flag := range n.Flags {
			known[flag.Name] = true
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(app.Node)
	for name := range f.values {
		if !known[name] {
			return fmt.Errorf("configuration: no command has a flag --%s", name)
		}
	}
	return nil
}

// Resolve returns the value of a flag, nil if the file has none or the
// environment, which is closer to the process, has one.
func (f *fileResolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	v, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	if list, is := v.([]any); is {
		texts := make([]string, len(list))
		for i, item := range list {
			texts[i] = fmt.Sprint(item)
		}
		return strings.Join(texts, ","), nil
	}
	return fmt.Sprint(v), nil
}
