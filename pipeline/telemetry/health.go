package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrStarting is the state of a check that has not been set yet.
var ErrStarting = errors.New("starting")

// Health says whether a process is ready: every named check is.
type Health struct {
	mu     sync.Mutex
	checks map[string]error
}

// NewHealth returns a Health whose checks are not ready: ErrStarting. With no
// names it is ready until a check says otherwise.
func NewHealth(names ...string) *Health {
	h := &Health{checks: map[string]error{}}
	for _, name := range names {
		h.checks[name] = ErrStarting
	}
	return h
}

// SetReady says that a check is ready (nil), or why it isn't. The error is
// shown to whoever can reach the port: it must hold no secrets.
func (h *Health) SetReady(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[name] = err
}

// Err returns nil when all checks are ready, otherwise one line for each that
// isn't, in the order of their names.
func (h *Health) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var not []error
	for _, name := range slices.Sorted(maps.Keys(h.checks)) {
		if err := h.checks[name]; err != nil {
			not = append(not, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(not...)
}

// ServeHTTP answers 200, or 503 with what is not ready and why.
func (h *Health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := h.Err(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		say(w, "not ready\n"+err.Error()+"\n")
		return
	}
	say(w, "ready\n")
}

// NewMux serves /healthz (alive, whatever the checks say: a restart mends no
// missing Kafka), /readyz and /metrics.
func NewMux(t *Telemetry, h *Health) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, "alive\n") })
	mux.Handle("GET /readyz", h)
	mux.Handle("GET /metrics", t.Handler())
	return mux
}

// say writes an answer. If it does not get through, the client has left, and
// there is nobody to tell.
func say(w io.Writer, text string) { _, _ = io.Copy(w, strings.NewReader(text)) }

// shutdownTime is how long Serve waits for answers under way.
const shutdownTime = 5 * time.Second

// Serve answers HTTP on addr until ctx ends, lets answers under way finish, and
// returns nil then. An address that can't be bound is an error at once.
func Serve(ctx context.Context, addr string, handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", addr, err)
	}
	return serve(ctx, listener, handler)
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // a large /metrics over a slow line
		IdleTimeout:       time.Minute,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = errors.Join(fmt.Errorf("ending answers under way on %s: %w", listener.Addr(), err), server.Close())
	}
	if end := <-ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
