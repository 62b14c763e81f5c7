package sink

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// secretsEvery is how often it is checked that no secret is missing.
const secretsEvery = 10 * time.Second

// watchSecrets says which destinations lack a secret, before a delivery does and
// after the last one did, and which get no access token, until ctx ends.
func (s *sink) watchSecrets(ctx context.Context) {
	tick := time.NewTicker(secretsEvery)
	defer tick.Stop()
	missing := map[string]string{}
	for {
		s.checkSecrets(missing)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// checkSecrets tells of changes against what was missing, by destination, and
// brings that up to date.
func (s *sink) checkSecrets(missing map[string]string) {
	defs := s.newest()
	for name, def := range defs.Destinations {
		text := ""
		if d := s.destination(name); d != nil && s.serves(def.Lane) && def.Status != definition.Paused {
			if text = d.lacks(); text == "" {
				d.lacksNothing()
			}
		}
		s.tellSecrets(missing, name, text)
	}
	for name := range missing {
		if defs.Destinations[name] == nil {
			s.tellSecrets(missing, name, "")
		}
	}
}

func (s *sink) tellSecrets(missing map[string]string, name, text string) {
	if missing[name] == text {
		return
	}
	missing[name] = text
	var err error
	if text != "" {
		err = errors.New(text)
		s.Log.Warn("deliveries wait for a secret or an access token", telemetry.KeyDestination, name, telemetry.KeyError, text)
	} else {
		delete(missing, name)
		s.Log.Info("no secret or access token is missing any more", telemetry.KeyDestination, name)
	}
	if s.Ready != nil {
		s.Ready("destination "+name, err)
	}
}

// lacksSecret has deliveries wait for a secret that a call by a revision wanted.
func (d *destination) lacksSecret(rev *revision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rev.lacking.CompareAndSwap(false, true) && rev == d.current {
		d.remember(time.Now())
	}
}

// lacksNothing lets deliveries go that wait for a secret: slowly, as after any
// other time in which none went.
func (d *destination) lacksNothing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.current.lacking.CompareAndSwap(true, false) || d.barred() != "" {
		return
	}
	now := time.Now()
	if d.current.isOpen() {
		d.waiting.want(d.name, now)
		d.look()
		d.resume()
		return
	}
	d.comesBack(now)
	d.save(cameBack(now, d.before))
}

// lacks says in one line which secrets of the destination are missing, or why it
// has no access token.
func (d *destination) lacks() string {
	rev := d.revision()
	if rev.sender == nil {
		return ""
	}
	if err := rev.sender.Ready(); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return ""
}
