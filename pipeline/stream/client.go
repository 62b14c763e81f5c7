// Package stream is Millrace on Kafka: the runners that carry records through
// stages exactly once, the topics and their settings, the log of definitions,
// and a broker to embed. No other package knows the Kafka client.
package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/pipeline"
)

// DefaultMaxEventBytes is the largest batch of events that a topic takes where
// nothing else is set: Kafka's own default of max.message.bytes.
const DefaultMaxEventBytes = 1<<20 + 12

// What init adds to the size of the events for the topics further down, so
// that an event that came in always fits there together with its envelope.
const (
	workHeadroom       = 64 << 10
	deadLetterHeadroom = 128 << 10
)

// Config says which Kafka to use, and as whom. It is a value: copies are
// cheap, and each runner makes clients of its own.
type Config struct {
	// Brokers are the addresses to start from, as host:port. One that answers
	// is enough; the others are learned from it.
	Brokers []string

	// Names is the prefix of every topic, group and transactional id.
	Names pipeline.Names

	// Instance tells replicas of a role apart and must stay the same over
	// restarts: a replica that returns under another name leaves readers
	// standing until its last transaction times out.
	Instance string

	// TLS encrypts the connection; nil means plain text.
	TLS *TLSConfig

	// SASL authenticates; nil means that Kafka asks for nobody's name.
	SASL *SASLConfig

	// ClientID is what Kafka's logs, metrics and quotas call this program.
	// Default "millrace".
	ClientID string

	// Compression of what is written: "lz4" (the default) or "none". In
	// batches of 1,000 alike events lz4 takes less CPU than it saves, on the
	// loopback too: 1.1 µs for each to write and 0.8 to read, and 1.7 and 1.1
	// without. Small batches are never compressed. "none" is for batches that
	// do not compress.
	Compression string

	// MaxEventBytes is max.message.bytes of the event topics. The sizes of all
	// other topics and of the batches sent there follow from it. Default
	// DefaultMaxEventBytes. Sized reads it from the cluster.
	MaxEventBytes int32

	// Log gets changes of state, and what the client warns about. Default
	// slog.Default().
	Log *slog.Logger
}

// TLSConfig names the files that a TLS connection needs; all in PEM.
type TLSConfig struct {
	CA         string // roots to trust; empty for the system's
	Cert, Key  string // this client's, if the brokers ask for one; read again at each handshake
	ServerName string // the name in the brokers' certificates, if it is not their host name
}

// The SASL mechanisms that can be used.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// SASLConfig is how to log in.
type SASLConfig struct {
	Mechanism string
	Username  string
	// Password is asked for at each new connection, so that a rotated one is
	// found, and so that it stands in no struct that might be printed.
	Password func() (string, error)
}

// Validate returns every problem of the configuration, not just the first.
func (c Config) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Brokers) == 0 {
		add("brokers: at least one address is needed, as host:port")
	}
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			add("brokers: %q is not host:port", b)
		}
	}
	if !validTopicPart(string(c.Names)) {
		add("prefix: %q may hold letters, digits, '.', '_' and '-', and is at most %d long", c.Names, maxPrefix)
	}
	switch c.Compression {
	case "", "lz4", "none":
	default:
		add("compression: %q is neither lz4 nor none", c.Compression)
	}
	if c.MaxEventBytes != 0 && (c.MaxEventBytes < 1024 || c.MaxEventBytes > 64<<20) {
		add("events.max_bytes: %d is not between 1 KiB and 64 MiB", c.MaxEventBytes)
	}
	if c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == "") {
		add("tls: cert and key are needed together")
	}
	if s := c.SASL; s != nil {
		switch s.Mechanism {
		case Plain, ScramSHA256, ScramSHA512:
		default:
			add("sasl: mechanism %q is none of %s, %s, %s", s.Mechanism, Plain, ScramSHA256, ScramSHA512)
		}
		if s.Username == "" || s.Password == nil {
			add("sasl: username and password are needed")
		}
	}
	return errors.Join(errs...)
}

// maxPrefix leaves room for "redeliveries." and a lane of 63 in the 249
// characters of a topic's name.
const maxPrefix = 150

func validTopicPart(s string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
		default:
			return false
		}
	}
	return len(s) <= maxPrefix
}

func (c Config) log() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.Default()
}

// eventBytes is the size of the event topics.
func (c Config) eventBytes() int32 {
	if c.MaxEventBytes > 0 {
		return c.MaxEventBytes
	}
	return DefaultMaxEventBytes
}

// maxBytes is max.message.bytes of a topic, and so how large a batch for it may be.
func (c Config) maxBytes(topic string) int32 {
	if _, ok := c.Names.LaneOf(topic); ok {
		return c.eventBytes() + workHeadroom
	}
	switch {
	case topic == c.Names.DeadLetters():
		return c.eventBytes() + deadLetterHeadroom
	case topic == c.Names.Matches(), strings.HasPrefix(topic, c.Names.Delays(pipeline.Tier{})):
		return c.eventBytes() + workHeadroom
	case topic == c.Names.Attempts(), topic == c.Names.Ledger(),
		topic == c.Names.Definitions(), topic == c.Names.Changes(), topic == c.Names.States(), topic == c.Names.OperatorEvents():
		return DefaultMaxEventBytes
	}
	return c.eventBytes()
}

// client makes a Kafka client. Later options win over those set here.
func (c Config) client(opts ...kgo.Opt) (*kgo.Client, error) {
	base, err := c.options()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	return cl, nil
}

func (c Config) options() ([]kgo.Opt, error) {
	id := c.ClientID
	if id == "" {
		id = "millrace"
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(id),
		kgo.WithLogger(&clientLog{to: c.log()}),
		// Kafka may answer the first produce after an End with
		// CONCURRENT_TRANSACTIONS, which is tried again only after a refresh
		// of the metadata; and a new lane shall be found at once.
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.UnknownTopicRetries(-1),
		kgo.ProducerBatchMaxBytesFn(c.maxBytes),
		kgo.ProducerLinger(0),
		c.compression(),
		// A position that no longer exists is an error for people to look at,
		// never a reason to start over with two weeks of old events.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.DisableClientMetrics(),
	}
	if c.TLS != nil {
		t, err := c.TLS.load()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.SASL != nil {
		m, err := c.SASL.mechanism()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

func (t *TLSConfig) load() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CA of Kafka: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the CA of Kafka: no certificate in %s", t.CA)
		}
	}
	if t.Cert == "" {
		return out, nil
	}
	get := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate for Kafka: %w", err)
		}
		return &cert, nil
	}
	if _, err := get(nil); err != nil { // now rather than at the first connection
		return nil, err
	}
	out.GetClientCertificate = get
	return out, nil
}

func (s *SASLConfig) mechanism() (sasl.Mechanism, error) {
	asScram := func(context.Context) (scram.Auth, error) {
		pass, err := s.Password()
		return scram.Auth{User: s.Username, Pass: pass}, err
	}
	switch s.Mechanism {
	case Plain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := s.Password()
			return plain.Auth{User: s.Username, Pass: pass}, err
		}), nil
	case ScramSHA256:
		return scram.Sha256(asScram), nil
	case ScramSHA512:
		return scram.Sha512(asScram), nil
	}
	return nil, fmt.Errorf("SASL mechanism %q is not known", s.Mechanism)
}

// pingTimeout bounds a look at whether Kafka is there.
const pingTimeout = 5 * time.Second

// Ping asks whether Kafka is there and lets us in. Its error says what to do.
func (c Config) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	cl, err := c.client(kgo.WithLogger(nil)) // the error says it all
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		return c.explain(err)
	}
	return nil
}

func (c Config) explain(err error) error {
	where := strings.Join(c.Brokers, ", ")
	if errors.Is(err, kerr.SaslAuthenticationFailed) {
		return fmt.Errorf("Kafka at %s refused the user name or password: %w", where, err)
	}
	if c.SASL != nil && errors.Is(err, io.EOF) {
		return fmt.Errorf("Kafka at %s closed the connection at the login: it may want TLS, another mechanism, or another user: %w", where, err)
	}
	return fmt.Errorf("no Kafka at %s: %w; start one with `millrace broker` or pass --brokers", where, err)
}

// transactionVersion returns the cluster's finalized transaction.version. From
// 2 on, late writes of an ended transaction are fenced, and adding offsets to
// a transaction needs no AddOffsetsToTxn. 0 where it has no such feature.
func transactionVersion(ctx context.Context, cl *kgo.Client) (int16, error) {
	resp, err := askVersions(ctx, cl)
	if err != nil {
		return 0, err
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel, nil
		}
	}
	return 0, nil
}

// askVersions asks for the requests and the features that the cluster knows.
func askVersions(ctx context.Context, cl *kgo.Client) (*kmsg.ApiVersionsResponse, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "millrace", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for its versions: %w", err)
	}
	return resp, nil
}

// clientLog hands on what the client warns about, and no more: the same line
// once in a while, since a client that can't connect says so many times a second.
type clientLog struct {
	to *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time
}

const sayAgain = 10 * time.Second

func (*clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if !l.due(msg) {
		return
	}
	at := slog.LevelWarn
	if level == kgo.LogLevelError {
		at = slog.LevelError
	}
	l.to.With(keyvals...).Log(context.Background(), at, "kafka client", "says", msg)
}

func (l *clientLog) due(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.said[msg]) < sayAgain {
		return false
	}
	if l.said == nil {
		l.said = map[string]time.Time{}
	}
	l.said[msg] = now
	return true
}
