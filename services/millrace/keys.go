package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/millrace-io/millrace/pipeline/definition"
)

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
	return printJSON(std.out, keys.Public())
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
	err = publishKeys(ctx, cfg, keys, c.Replace)
	if _, other := errors.AsType[*definition.OtherKeysError](err); other {
		err = fmt.Errorf("%w; --replace puts this one in its place, and then what only the other opens has to be written again", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "secrets are sealed with the key %d\n", keys.Public().Primary())
	return nil
}
