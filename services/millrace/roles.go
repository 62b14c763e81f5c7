package main

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/secret"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
	"github.com/millrace-io/millrace/services/filter"
	"github.com/millrace-io/millrace/services/sink"
	"github.com/millrace-io/millrace/services/transform"
)

// serviceSettings are what every long-running role has.
type serviceSettings struct {
	HTTP     string `help:"Address for /healthz, /readyz and /metrics. Default ${default}." default:"127.0.0.1:8080" placeholder:"HOST:PORT" group:"service"`
	Instance string `help:"Name of this replica; must stay the same over restarts. Default: host name and port of --http." group:"service"`

	Traces traceSettings `embed:"" prefix:"traces-" group:"service"`
}

// traceSettings say where traces go.
type traceSettings struct {
	Endpoint string  `help:"Send traces to this receiver of OTLP over HTTP, such as http://collector:4318. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says; without it there are no traces." placeholder:"URL"`
	Sample   float64 `help:"Share, from 0 to 1, of the events without a traceparent that begin a trace; all others do as their producer says. Default ${default}." default:"0.01" placeholder:"SHARE"`
}

// registrySettings say where Avro schemas are.
type registrySettings struct {
	URL          string `help:"Address of the schema registry for events in Avro." placeholder:"URL"`
	Username     string `help:"User name at the schema registry."`
	PasswordFile string `help:"File that holds the password for the schema registry." placeholder:"FILE"`
}

// sinkSettings are what only a sink has.
type sinkSettings struct {
	EgressAllow []string `help:"Private addresses that may be called: CIDRs, addresses, host names." placeholder:"CIDR|HOST"`
	egressProxySettings
	keysetSettings
	SecretsDir string `help:"Directory below which $${file:PATH} is looked up." placeholder:"DIR" type:"path"`
}

// client is what makes every call, of a sink and of `millrace test`. What the ring
// does not open is missing; onFetch is told of access tokens. Both may be nil.
func (s *sinkSettings) client(ring *secret.Keyring, onFetch func(result string)) (*httpsend.Client, error) {
	// net/http quotes there what a destination sends behind its response, which
	// may be a secret that it was sent. We log by slog alone.
	stdlog.SetOutput(io.Discard)
	client, err := httpsend.New(httpsend.Options{
		Secrets: &secret.Resolver{Dir: s.SecretsDir, Keys: ring}, Allow: s.EgressAllow,
		Proxy: s.proxy(), UserAgent: "Millrace/" + version, OnFetch: onFetch,
	})
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return client, nil
}

// warnIfNotThere says that the directory of secrets is missing. It may come: it is
// looked for anew each time.
func (s *sinkSettings) warnIfNotThere(log *slog.Logger) {
	if s.SecretsDir == "" {
		return
	}
	if info, err := os.Stat(s.SecretsDir); err != nil || !info.IsDir() {
		log.Warn("--secrets-dir is no directory that can be read; deliveries that need a secret from it wait", "dir", s.SecretsDir)
	}
}

type filterCmd struct {
	kafkaSettings
	serviceSettings
	eventSettings
	Registry registrySettings `embed:"" prefix:"registry-"`
}

// Help is shown by --help.
func (filterCmd) Help() string {
	return "Example:\n  millrace filter --brokers kafka:9092 --http :8080"
}

// Run runs the role until a signal.
func (f *filterCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	return serve(ctx, l, std, &f.kafkaSettings, &f.serviceSettings, func(s *service) error {
		return s.filter(&f.eventSettings, &f.Registry)
	})
}

type transformCmd struct {
	kafkaSettings
	serviceSettings
}

// Help is shown by --help.
func (transformCmd) Help() string {
	return "Example:\n  millrace transform --brokers kafka:9092 --http :8080"
}

// Run runs the role until a signal.
func (t *transformCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	return serve(ctx, l, std, &t.kafkaSettings, &t.serviceSettings, (*service).transform)
}

type sinkCmd struct {
	kafkaSettings
	serviceSettings
	sinkSettings
	Lanes []string `help:"Lanes to serve, as patterns; default all." placeholder:"GLOB"`
}

// Help is shown by --help.
func (sinkCmd) Help() string {
	return "Examples:\n  millrace sink --brokers kafka:9092 --http :8080\n" +
		"  millrace sink --lanes 'crm-*' --secrets-dir /run/secrets --egress-allow 10.0.0.0/8"
}

// Run runs the role until a signal.
func (c *sinkCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	if err := sink.CheckLanes(c.Lanes); err != nil {
		return &codeError{exitUsage, err}
	}
	return serve(ctx, l, std, &c.kafkaSettings, &c.serviceSettings, func(s *service) error {
		return s.sink(&c.sinkSettings, c.Lanes)
	})
}

// service is one process that runs roles: what they share.
type service struct {
	ctx   context.Context
	group *errgroup.Group
	cfg   stream.Config
	log   *slog.Logger
	*telemetry.Telemetry
	health *telemetry.Health
	live   *definition.Live
}

// serve connects, adds the roles that add starts, and runs them until ctx ends
// or one of them can't go on.
func serve(ctx context.Context, l *logSettings, std streams, k *kafkaSettings, web *serviceSettings, add func(*service) error) error {
	log, err := l.logger(std.err)
	if err != nil {
		return err
	}
	cfg, err := k.config(instanceOf(web.Instance, web.HTTP), log)
	if err != nil {
		return err
	}
	return runService(ctx, cfg, web, add)
}

// quietly drops an error that a signal has brought about while a service starts:
// to end was what was wanted.
func quietly(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func runService(ctx context.Context, cfg stream.Config, web *serviceSettings, add func(*service) error) error {
	tel, err := telemetry.New(ctx, telemetry.Config{
		Service: "millrace", Version: version, Instance: cfg.Instance,
		Traces: telemetry.TraceConfig{Endpoint: web.Traces.Endpoint, Sample: web.Traces.Sample, Log: cfg.Log},
	})
	if err != nil {
		return &codeError{exitUsage, err}
	}
	// Last of all: nobody waits for traces but the process itself.
	defer func() {
		if err := tel.Shutdown(context.WithoutCancel(ctx)); err != nil {
			cfg.Log.Warn("ending", telemetry.KeyError, err)
		}
	}()
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		return err
	}
	if cfg, err = cfg.Sized(ctx); err != nil {
		return quietly(ctx, err)
	}
	s := &service{
		cfg: cfg, log: cfg.Log, Telemetry: tel, health: telemetry.NewHealth("definitions"),
		live: definition.NewLive(cfg, builtin),
	}
	s.group, s.ctx = errgroup.WithContext(ctx)
	if err := add(s); err != nil {
		return err
	}
	s.group.Go(func() error { return s.live.Run(s.ctx) })
	s.group.Go(func() error { return s.watchDefinitions() })
	s.group.Go(func() error { return telemetry.Serve(s.ctx, web.HTTP, telemetry.NewMux(tel, s.health)) })
	err = s.group.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		s.log.Info("stopped")
		return nil
	}
	return err
}

// watchDefinitions shows the offset in force, and what of it can't be used.
func (s *service) watchDefinitions() error {
	offset := int64(0)
	for {
		defs, err := s.live.At(s.ctx, offset)
		if err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		s.health.SetReady("definitions", nil)
		s.Metrics.DefinitionsOffset.Set(defs.Offset, "all")
		s.Metrics.DefinitionsBroken.Set(int64(len(defs.Broken)), "all")
		for k, err := range defs.Broken {
			s.log.Error("definition can't be used", "definition", k.String(), telemetry.KeyError, err)
		}
		offset = defs.Offset + 1
	}
}

// observer counts what a runner does and says whether it is ready.
func (s *service) observer(role string) stream.Observer {
	s.health.SetReady(role, telemetry.ErrStarting)
	return stream.Observer{
		Transaction: func(role string, committed bool, records int) {
			if !committed {
				s.Metrics.Transactions.Add(1, role, "aborted")
				return
			}
			s.Metrics.Transactions.Add(1, role, "committed")
			s.Metrics.TransactionRecords.Record(float64(records), role)
		},
		Rebuilt:    func(role string) { s.Metrics.StageRebuilds.Add(1, role) },
		DeadLetter: func(role string, reason pipeline.Reason) { s.Metrics.DeadLetters.Add(1, role, string(reason)) },
		Ready:      func(err error) { s.health.SetReady(role, err) },
	}
}

func (s *service) filter(events *eventSettings, registry *registrySettings) error {
	topics, regex, err := events.resolve(s.cfg.Names)
	if err != nil {
		return err
	}
	reg, err := registry.open()
	if err != nil {
		return &codeError{exitUsage, err}
	}
	cfg := filter.Config{
		Stream: s.cfg, Topics: topics, Regex: regex, Definitions: s.live, Registry: reg,
		Metrics: s.Metrics, Tracer: s.Tracer, Observer: s.observer(filter.Role),
	}
	s.group.Go(func() error { return filter.Run(s.ctx, cfg) })
	return nil
}

func (s *service) transform() error {
	cfg := transform.Config{
		Stream: s.cfg, Definitions: s.live,
		Metrics: s.Metrics, Tracer: s.Tracer, Observer: s.observer(transform.Role),
	}
	s.group.Go(func() error { return transform.Run(s.ctx, cfg) })
	return nil
}

func (s *service) sink(settings *sinkSettings, lanes []string) error {
	ring, err := settings.keyring()
	if err != nil {
		return err
	}
	client, err := settings.client(ring, func(result string) { s.Metrics.TokenFetches.Add(1, result) })
	if err != nil {
		return err
	}
	cfg := sink.Config{
		Stream: s.cfg, Definitions: s.live, Lanes: lanes, Client: client,
		Metrics: s.Metrics, Tracer: s.Tracer, Log: s.log, Observer: s.observer,
		Ready: s.health.SetReady,
	}
	s.group.Go(func() error { return sink.Run(s.ctx, cfg) })
	settings.warnIfNotThere(s.log)
	if ring != nil {
		settings.warnIfOpen(s.log)
		s.health.SetReady("keyset", telemetry.ErrStarting)
		s.group.Go(func() error { return s.offerKeys(ring) })
	}
	return nil
}

// open returns the registry; nil if there is none.
func (r *registrySettings) open() (event.Registry, error) {
	if r.URL == "" {
		return nil, nil
	}
	return stream.NewRegistry(stream.RegistryConfig{
		URLs: []string{r.URL}, Username: r.Username, Password: func() (string, error) {
			return passwordFrom(r.PasswordFile, "MILLRACE_REGISTRY_PASSWORD")
		},
	})
}
