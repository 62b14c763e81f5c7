package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
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
// it at any time. Whoever could read the old one can read the new one.
func replaceKeyset(path string, keys *secret.Keys) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replacing a keyset: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keyset-*")
	if err != nil {
		return fmt.Errorf("replacing a keyset: %w", err)
	}
	err = errors.Join(f.Chmod(info.Mode().Perm()), writeKeys(f, keys), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replacing a keyset: %w", err), os.Remove(f.Name()))
	}
	return nil
}

func readKeyset(path string) (*secret.Keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a keyset: %w", err)
	}
	return secret.ReadKeys(text)
}

// publicKeySettings are for whoever seals.
type publicKeySettings struct {
	PublicKeysetFile string `help:"Seal secrets with this public keyset (see keys public), and not with the one that the sinks have published." placeholder:"FILE"`
}

// keys are those of the file; nil without one.
func (p *publicKeySettings) keys() (*secret.PublicKeys, error) {
	if p.PublicKeysetFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(p.PublicKeysetFile)
	if err != nil {
		return nil, fmt.Errorf("reading a public keyset: %w", err)
	}
	return secret.ReadPublicKeys(text)
}

// keysCmd makes keysets.
type keysCmd struct {
	Create  createKeysCmd  `cmd:"" help:"Make a keyset for the sinks."`
	Rotate  rotateKeysCmd  `cmd:"" help:"Add a key that seals from now on; the old ones still open."`
	Public  publicKeysCmd  `cmd:"" help:"Print the public part, which only seals."`
	Publish publishKeysCmd `cmd:"" help:"Tell those who apply definitions the public part, as sinks do by themselves."`
}

type createKeysCmd struct {
	File      string `arg:"" help:"File to create; it can be read by its owner alone." placeholder:"FILE"`
	IfMissing bool   `help:"Leave a keyset that is there as it is, and say so."`
}

// Help is shown by --help.
func (createKeysCmd) Help() string {
	return "Give the file to all sinks, as --keyset-file or in MILLRACE_KEYSET, and to nobody else: whoever has it can open\n" +
		"what was sealed. Keep a copy: without it, all secrets have to be written again. A file that is there is never\n" +
		"overwritten.\n\n" +
		"Example:\n  millrace keys create /etc/millrace/keyset.json"
}

// Run makes a keyset.
func (c *createKeysCmd) Run(std streams) error {
	keys, err := createKeyset(c.File)
	if c.IfMissing && errors.Is(err, fs.ErrExist) {
		if keys, err = readKeyset(c.File); err == nil {
			fmt.Fprintf(std.out, "%s is there, its key %d seals\n", c.File, keys.Public().Primary())
		}
		return err
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s has been made, with the key %d\n", c.File, keys.Public().Primary())
	return nil
}

type rotateKeysCmd struct {
	File string `arg:"" help:"File with the keyset." placeholder:"FILE"`
}

// Help is shown by --help.
func (rotateKeysCmd) Help() string {
	return "Give the new file to all sinks; each uses it within a few seconds, and the first one publishes the new key. What a\n" +
		"sink can't open yet waits. Secrets that were sealed before stay as they are; to seal one with the new key, write\n" +
		"it again.\n\n" +
		"Example:\n  millrace keys rotate /etc/millrace/keyset.json"
}

// Run adds a key.
func (c *rotateKeysCmd) Run(std streams) error {
	keys, err := readKeyset(c.File)
	if err != nil {
		return err
	}
	was := keys.Public().Primary()
	if keys, err = keys.Rotated(); err != nil {
		return err
	}
	if err := replaceKeyset(c.File, keys); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s: the key %d seals now; %d keys open, the last was %d\n", c.File, keys.Public().Primary(), len(keys.Public().IDs()), was)
	return nil
}

type publicKeysCmd struct {
	File string `arg:"" help:"File with the keyset." placeholder:"FILE"`
}

// Help is shown by --help.
func (publicKeysCmd) Help() string {
	return "What it prints is no secret: --public-keyset-file of apply and seal takes it.\n\n" +
		"Example:\n  millrace keys public keyset.json > public.json"
}

// Run prints the public part.
func (c *publicKeysCmd) Run(std streams) error {
	keys, err := readKeyset(c.File)
	if err != nil {
		return err
	}
	return json.NewEncoder(std.out).Encode(keys.Public())
}

type publishKeysCmd struct {
	kafkaSettings
	File    string `arg:"" help:"File with the keyset." placeholder:"FILE"`
	Replace bool   `help:"Replace a published key that the keyset does not have: what only that one opens has to be written again."`
}

// Help is shown by --help.
func (publishKeysCmd) Help() string {
	return "Needed where sinks may not write to the definitions, or where a keyset was lost.\n\n" +
		"Examples:\n  millrace keys publish keyset.json\n  millrace keys publish new.json --replace"
}

// Run publishes the public part.
func (c *publishKeysCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	keys, err := readKeyset(c.File)
	if err != nil {
		return err
	}
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	if err := publishKeys(ctx, cfg, keys, c.Replace); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "secrets are sealed with the key %d\n", keys.Public().Primary())
	return nil
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

type sealCmd struct {
	kafkaSettings
	publicKeySettings
	Destination string   `arg:"" help:"Name of the destination."`
	Field       string   `arg:"" help:"Where the secret will stand, such as auth.token, signing.secret, request.headers.X-Key or request.url."`
	File        []string `short:"f" help:"Take the destination from files or directories." placeholder:"PATH"`
}

// Help is shown by --help.
func (sealCmd) Help() string {
	return "Reads a secret from standard input and prints it sealed, to be put into a file: a line end behind it is left out.\n" +
		"It can be opened for this field of this destination alone, and as long as its scheme, host, port and token_url\n" +
		"stay. In request.url, what is printed may stand anywhere behind the host. With -f and --public-keyset-file, no\n" +
		"Kafka is needed.\n\n" +
		"Examples:\n  millrace seal crm auth.token < token.txt\n  millrace seal slack request.url -f slack.yaml < path.txt"
}

// Run seals a secret.
func (c *sealCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	if slices.Contains(c.File, "-") {
		return &codeError{exitUsage, errors.New("seal: standard input is the secret, so -f can't be -")}
	}
	text, err := io.ReadAll(io.LimitReader(std.in, secret.MaxSize+2))
	if err != nil {
		return fmt.Errorf("reading the secret: %w", err)
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	defs, err := c.definitions(ctx, l, std, keys == nil)
	if err != nil {
		return err
	}
	if keys == nil {
		keys = defs.Keys
	}
	sealed, err := defs.Seal(c.Destination, c.Field, strings.TrimRight(string(text), "\r\n"), keys)
	if err != nil {
		return err
	}
	fmt.Fprintln(std.out, sealed)
	return nil
}

// definitions are those in force or, over them, those of the files.
func (c *sealCmd) definitions(ctx context.Context, l *logSettings, std streams, needKeys bool) (*definition.Snapshot, error) {
	base, err := c.inForce(ctx, l, std, needKeys)
	if err != nil || len(c.File) == 0 {
		return base, err
	}
	files, err := readFiles(c.File, std.in)
	if err != nil {
		return nil, err
	}
	defs, problems := definition.Parse(files...).Check(base)
	printProblems(std.err, problems)
	return defs, nil // what is wrong may be the secret that is to be sealed
}

// inForce reads what is in force, unless the files and a public keyset will do.
func (c *sealCmd) inForce(ctx context.Context, l *logSettings, std streams, needKeys bool) (*definition.Snapshot, error) {
	if !needKeys && len(c.File) > 0 {
		builtin, err := event.BuiltinCatalog()
		if err != nil {
			return nil, err
		}
		return definition.NewSnapshot(builtin), nil
	}
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return nil, err
	}
	return current(ctx, cfg)
}
