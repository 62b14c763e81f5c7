package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/secret"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// keysetSettings say where the keyset of a sink is.
type keysetSettings struct {
	KeysetFile string `help:"File with the keyset that opens sealed secrets (see keys); without one, it is taken from MILLRACE_KEYSET." placeholder:"FILE"`

	own *secret.Keyring // that of `up`, if it has made one
}

// keyring is what opens sealed secrets; nil without a keyset. The keyset is read
// once, so that a wrong setting is told at the start.
func (k *keysetSettings) keyring() (*secret.Keyring, error) {
	if k.own != nil {
		return k.own, nil
	}
	text := os.Getenv("MILLRACE_KEYSET")
	if k.KeysetFile == "" && text == "" {
		return nil, nil
	}
	ring := &secret.Keyring{Load: func() ([]byte, error) {
		if k.KeysetFile != "" {
			return os.ReadFile(k.KeysetFile)
		}
		return []byte(text), nil
	}}
	if _, err := ring.Keys(); err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return ring, nil
}

// warnIfOpen says that others than a group may read the keyset. That may be meant:
// in a container, nobody else is there.
func (k *keysetSettings) warnIfOpen(log *slog.Logger) {
	const others = 0o007
	if info, err := os.Stat(k.KeysetFile); err == nil && info.Mode().Perm()&others != 0 {
		log.Warn("everybody on this machine can read the keyset; chmod 600 keeps it to its owner", "file", k.KeysetFile)
	}
}

// keysetOf returns the keyset of a directory, and makes it first where there is
// none.
func keysetOf(dir string) (*secret.Keyring, error) {
	if dir == "" { // nothing is kept
		keys, err := secret.NewKeys()
		if err != nil {
			return nil, err
		}
		return &secret.Keyring{Load: keys.Reveal}, nil
	}
	path := filepath.Join(dir, "keyset.json")
	if _, err := createKeyset(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	own := keysetSettings{KeysetFile: path}
	return own.keyring()
}

// createKeyset writes a new keyset for nobody but its owner. What is there is
// never overwritten: it would take with it what it has sealed.
func createKeyset(path string) (*secret.Keys, error) {
	keys, err := secret.NewKeys()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating a keyset: %w; --if-missing leaves it as it is, `millrace keys rotate` adds a key to it", err)
	}
	if err != nil {
		return nil, fmt.Errorf("creating a keyset: %w", err)
	}
	if err := errors.Join(writeKeys(f, keys), f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return keys, nil
}

func writeKeys(f *os.File, keys *secret.Keys) error {
	text, err := keys.Reveal()
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("writing a keyset: %w", err)
	}
	return f.Sync()
}

// replaceKeyset puts a keyset in the place of one, in one step: a sink may read
// it at any time. It belongs to whom the old one belonged to, and a link still
// leads there.
func replaceKeyset(path string, keys *secret.Keys) error {
	err := replaceFile(path, keys)
	if err != nil {
		return fmt.Errorf("replacing a keyset: %w", err)
	}
	return nil
}

func replaceFile(path string, keys *secret.Keys) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keyset-*")
	if err != nil {
		return err
	}
	err = errors.Join(giveTo(f, info), f.Chmod(info.Mode().Perm()), writeKeys(f, keys), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func readKeyset(path string) (*secret.Keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a keyset: %w", err)
	}
	keys, err := secret.ReadKeys(text)
	if err != nil {
		if _, public := secret.ReadPublicKeys(text); public == nil {
			err = errors.New("it is the public part of a keyset, which only seals; expected the keyset that the sinks have")
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

func publishKeys(ctx context.Context, cfg stream.Config, keys *secret.Keys, replace bool) error {
	store, err := definition.OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.PublishKeys(ctx, keys.Public(), replace)
}

// keysEvery is how often a sink looks at its keyset and at what is published.
const keysEvery = 2 * time.Second

// offerKeys publishes the public part of a sink's keyset whenever it is newer than
// what is published, until ctx ends. /readyz tells a keyset that is older, or
// another, since what is sealed now can't be opened with it.
func (s *service) offerKeys(ring *secret.Keyring) error {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	told := ""
	for {
		unfit, err := s.offerKeysOnce(ring)
		s.health.SetReady("keyset", unfit)
		text := ""
		if err = errors.Join(unfit, err); err != nil && s.ctx.Err() == nil {
			text = err.Error()
		}
		if text != told && text != "" {
			s.log.Warn("keyset of the sink", telemetry.KeyError, text)
		}
		told = text
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// offerKeysOnce says why the keyset is unfit, or why it could not be published.
func (s *service) offerKeysOnce(ring *secret.Keyring) (unfit, err error) {
	defs, err := s.live.At(s.ctx, 0)
	if err != nil {
		return nil, err
	}
	keys, err := ring.Keys()
	if err != nil {
		return err, nil
	}
	replace, err := defs.CheckKeys(keys.Public())
	if err != nil || !replace {
		return err, nil
	}
	return nil, publishKeys(s.ctx, s.cfg, keys, false)
}
