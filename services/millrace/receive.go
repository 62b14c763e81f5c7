package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

type receiveCmd struct {
	Listen     string        `help:"Address to listen on." default:"127.0.0.1:9099" placeholder:"HOST:PORT"`
	Status     string        `help:"What to answer: a status; a list, given in turn, the last one for ever (503,503,200); or shares by chance (503:20%,429:5%), the rest 200." default:"200"`
	Delay      time.Duration `help:"Wait before each answer." placeholder:"DURATION"`
	RetryAfter time.Duration `help:"Send Retry-After with 429 and 503." placeholder:"DURATION"`
	Count      int           `help:"End after that many calls." placeholder:"N"`
	JSON       bool          `help:"Print each call as a line of JSON, with its headers."`
	Quiet      bool          `help:"Print only the totals at the end."`
}

// Help is shown by --help.
func (receiveCmd) Help() string {
	return "Shows each call: when it came, what was answered, and the delivery's id; a call whose id came before is marked.\n" +
		"The values of Authorization and Cookie are never shown.\n\n" +
		"Examples:\n  millrace receive\n  millrace receive --status 503,503,200 --retry-after 5s\n" +
		"  millrace receive --status 500:10% --json | jq .body"
}

// Run answers calls until a signal.
func (c *receiveCmd) Run(ctx context.Context, std streams) error {
	answer, err := parseAnswers(c.Status)
	if err != nil {
		return &codeError{exitUsage, fmt.Errorf("receive: --status: %w", err)}
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("receiving calls: %w", err)
	}
	r := &receiver{answer: answer, delay: c.Delay, retryAfter: c.RetryAfter, limit: c.Count, show: c.printer(std.out)}
	if !c.JSON {
		fmt.Fprintf(std.out, "listening on http://%s\n", l.Addr())
	}
	err = r.serve(ctx, l)
	if !c.JSON {
		fmt.Fprintf(std.out, "%d %s, %d of them repeated\n", r.calls, plural(r.calls, "call", "calls"), r.repeated)
	}
	return err
}

// printer returns what shows a call.
func (c *receiveCmd) printer(w io.Writer) func(*received) {
	s := newScreen(w)
	switch {
	case c.Quiet:
		return func(*received) {}
	case c.JSON:
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return func(call *received) { _ = e.Encode(call.object()) } // whoever read it has gone
	case s.isTerminal():
		return func(call *received) {
			_ = s.line(call.cells())
			_ = call.writeBody(s)
		}
	}
	return func(call *received) { _ = s.line(call.cells(), plain(call.oneLine())) }
}

// drainTime is how long calls under way may take when the receiver ends.
const drainTime = 5 * time.Second

// serve answers calls on l until ctx ends or the limit is reached.
func (r *receiver) serve(ctx context.Context, l net.Listener) error {
	ctx, r.enough = context.WithCancel(ctx)
	defer r.enough()
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("receiving calls: %w", err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := server.Shutdown(late)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
