package stream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/secret"
)

const (
	registryTimeout = 5 * time.Second
	// unknownFor is how long an id that the registry does not have is not asked
	// for again: a producer with the wrong registry would ask for each record.
	unknownFor = 10 * time.Second
	// maxUnknown bounds what is remembered of such ids, which anyone can make up.
	maxUnknown = 10_000
)

// RegistryConfig says where the schema registry is.
type RegistryConfig struct {
	// URLs of one registry; the next is tried when one does not answer.
	URLs []string
	// Username and Password are for basic authentication; the password is asked
	// for with each request, so that a rotated one is found.
	Username string
	Password func() (string, error)
}

// Registry reads Avro schemas from a registry that speaks Confluent's API. It
// keeps what it has read, since schemas never change under their id. It is safe
// for concurrent use.
type Registry struct {
	client *sr.Client
	config RegistryConfig

	mu      sync.Mutex
	schemas map[int]string
	unknown map[int]time.Time // when it was last asked for
}

var _ event.Registry = (*Registry)(nil)

// NewRegistry returns a registry; nothing is asked yet.
func NewRegistry(c RegistryConfig) (*Registry, error) {
	if len(c.URLs) == 0 { // the client would ask localhost
		return nil, errors.New("the schema registry needs an address")
	}
	opts := []sr.ClientOpt{
		sr.URLs(c.URLs...),
		sr.UserAgent("millrace"),
		sr.HTTPClient(&http.Client{Timeout: registryTimeout}),
	}
	if c.Username != "" {
		opts = append(opts, sr.PreReq(c.login))
	}
	client, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("making a client of the schema registry: %w", err)
	}
	return &Registry{client: client, config: c, schemas: map[int]string{}, unknown: map[int]time.Time{}}, nil
}

func (c RegistryConfig) login(r *http.Request) error {
	password, err := c.password()
	if err != nil {
		return err
	}
	r.SetBasicAuth(c.Username, password)
	return nil
}

func (c RegistryConfig) password() (string, error) {
	if c.Password == nil {
		return "", nil
	}
	return c.Password()
}

// withoutPassword is an error as it may be shown: a registry, or a proxy before
// it, may quote what it was sent.
func (c RegistryConfig) withoutPassword(err error) error {
	password, failed := c.password()
	if failed != nil || password == "" {
		return err
	}
	pair := base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + password))
	return errors.New(secret.NewRedactor(secret.New(password), secret.New(strings.TrimRight(pair, "="))).RedactCut(err.Error()))
}

// Schema implements event.Registry.
func (r *Registry) Schema(ctx context.Context, id int) (string, error) {
	schema, known, missing := r.remembered(id)
	switch {
	case known:
		return schema, nil
	case missing:
		return "", event.ErrSchemaUnknown
	}
	s, err := r.client.SchemaByID(ctx, id)
	switch {
	case isUnknown(err):
		r.remember(id, "", false)
		return "", event.ErrSchemaUnknown
	case err != nil:
		return "", fmt.Errorf("reading schema %d: %w", id, r.config.withoutPassword(err))
	case s.Type != sr.TypeAvro || len(s.References) > 0:
		r.remember(id, "", false)
		return "", fmt.Errorf("%w: it is %v with %d references", event.ErrSchemaUnknown, s.Type, len(s.References))
	}
	r.remember(id, s.Schema, true)
	return s.Schema, nil
}

func (r *Registry) remembered(id int) (schema string, known, missing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	schema, known = r.schemas[id]
	asked, ok := r.unknown[id]
	return schema, known, ok && time.Since(asked) < unknownFor
}

func (r *Registry) remember(id int, schema string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known {
		r.schemas[id] = schema
		delete(r.unknown, id)
		return
	}
	if len(r.unknown) >= maxUnknown {
		clear(r.unknown)
	}
	r.unknown[id] = time.Now()
}

// isUnknown tells the registry's "no such schema" from everything that may pass,
// such as a proxy's 404.
func isUnknown(err error) bool {
	e, ok := errors.AsType[*sr.ResponseError](err)
	return ok && e.StatusCode == http.StatusNotFound && e.ErrorCode == sr.ErrSchemaNotFound.Code
}
