package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/secret"
)

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
