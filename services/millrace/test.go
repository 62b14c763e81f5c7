package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/secret"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/services/sink"
)

type testCmd struct {
	kafkaSettings
	sinkSettings
	Webhook string   `arg:"" optional:"" help:"Name of a webhook that is in force, or, with -f, of one in the files; default all in the files."`
	File    []string `short:"f" help:"Take the webhook from files or directories (- for standard input); no Kafka is needed." placeholder:"PATH"`
	Event   string   `help:"Test with this event, in Event JSON (- for standard input), and not with a generated one." placeholder:"FILE"`
	Send    bool     `help:"Make the call, to the real platform."`
	Yes     bool     `help:"Don't ask before --send."`
	JSON    bool     `help:"Print as JSON, one object for each webhook."`
}

// Help is shown by --help.
func (testCmd) Help() string {
	return "Shows, for a generated event or yours, whether the webhook fires and, clause by clause, why (a - stands before what\n" +
		"was not looked at, since the answer was known); the exact request, with secrets by their names; and what is wrong\n" +
		"with it. --send makes the call as the sink does: mind that the\n" +
		"platform takes the generated data for real. Exit code 0 if the webhook fires and a request can be made (with\n" +
		"--send: was taken), else 1.\n\n" +
		"Examples:\n" +
		"  millrace test -f definitions/heap.yaml\n" +
		"  millrace test walk-thru-goal-to-heap --event goal.json\n" +
		"  millrace test walk-thru-goal-to-heap --send --secrets-dir /run/secrets\n" +
		"  millrace tail events --json --count 1 | jq .event | millrace test -f heap.yaml --event - --json"
}

// Run tests webhooks.
func (c *testCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	if err := c.check(std); err != nil {
		return &codeError{exitUsage, fmt.Errorf("test: %w", err)}
	}
	given, err := c.given(std.in)
	if err != nil {
		return err
	}
	defs, states, names, err := c.load(ctx, l, std)
	if err != nil {
		return err
	}
	ring, err := c.keyring()
	if err != nil {
		return err
	}
	client, err := c.client(ring, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	failed := false
	for i, name := range names {
		t := &trial{testCmd: c, defs: defs, states: states, webhook: defs.Webhooks[name], client: client, given: given, std: std}
		passed, err := t.run(ctx)
		if err != nil {
			return fmt.Errorf("testing webhook %q: %w", name, err)
		}
		failed = failed || !passed
		if i < len(names)-1 && !c.JSON {
			fmt.Fprintln(std.out)
		}
	}
	if failed {
		return errSaid
	}
	return nil
}

// check refuses flags that don't go together.
func (c *testCmd) check(std streams) error {
	switch {
	case c.Webhook == "" && len(c.File) == 0:
		return errors.New("nothing to test; name a webhook that is in force, or give -f")
	case c.Event == "-" && slices.Contains(c.File, "-"):
		return errors.New("--event and -f can't both come from standard input")
	case c.Send && !c.Yes && !canAsk(std):
		return errors.New("--send sends data to the real platform, and there is no terminal to ask whether it may: add --yes")
	}
	return nil
}

// given reads the event of --event; nil if one is to be generated.
func (c *testCmd) given(stdin io.Reader) (text []byte, err error) {
	switch c.Event {
	case "":
		return nil, nil
	case "-":
		text, err = io.ReadAll(stdin)
	default:
		text, err = os.ReadFile(c.Event)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event: %w", err)
	}
	return text, nil
}

// load returns the definitions, the states of destinations (none of those in
// files), and the webhooks that are to be tested.
func (c *testCmd) load(ctx context.Context, l *logSettings, std streams) (*definition.Snapshot, *state.Snapshot, []string, error) {
	if len(c.File) > 0 {
		defs, names, err := c.fromFiles(std)
		return defs, nil, names, err
	}
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return nil, nil, nil, err
	}
	defs, states, err := destinationStates(ctx, cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	if broken := defs.Broken[definition.Key{Kind: definition.KindWebhook, Name: c.Webhook}]; broken != nil {
		return nil, nil, nil, fmt.Errorf("webhook %q is in force but can't be used: %w", c.Webhook, broken)
	}
	return defs, states, []string{c.Webhook}, knows(defs, c.Webhook)
}

func (c *testCmd) fromFiles(std streams) (*definition.Snapshot, []string, error) {
	files, err := readFiles(c.File, std.in)
	if err != nil {
		return nil, nil, err
	}
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		return nil, nil, err
	}
	defs, problems := definition.Parse(files...).Check(definition.NewSnapshot(builtin))
	printFileProblems(std.err, problems)
	switch names := slices.Sorted(maps.Keys(defs.Webhooks)); {
	case problems.Err() != nil:
		return nil, nil, errSaid
	case c.Webhook != "":
		return defs, []string{c.Webhook}, knows(defs, c.Webhook)
	case len(names) == 0:
		return nil, nil, errors.New("there is no webhook in the files")
	default:
		return defs, names, nil
	}
}

// knows says which webhook may be meant where there is none of a name.
func knows(defs *definition.Snapshot, webhook string) error {
	if defs.Webhooks[webhook] != nil {
		return nil
	}
	known := slices.Collect(maps.Keys(defs.Webhooks))
	return fmt.Errorf("there is no webhook %q%s", webhook, expression.DidYouMean(webhook, known))
}

// trial is the test of one webhook.
type trial struct {
	*testCmd
	defs    *definition.Snapshot
	states  *state.Snapshot // nil: not known
	webhook *definition.Compiled
	client  *httpsend.Client
	given   []byte // nil: generate an event
	std     streams

	event    *pipeline.Event
	tried    int // how many events were generated
	why      *definition.Explanation
	request  *httpsend.Request
	problems []string // why there is or will be no call
	notes    []string // what else to know
	result   *httpsend.Result
}

// run tests the webhook and shows it; false if it does not pass.
func (t *trial) run(ctx context.Context) (passed bool, err error) {
	if err := t.prepare(ctx); err != nil {
		return false, err
	}
	sender, err := sink.NewSender(t.client, t.webhook.Destination)
	if err != nil {
		return false, err
	}
	call := t.call(sender)
	sendable := t.why.Fires && len(t.problems) == 0
	if t.Send && !sendable {
		t.notes = append(t.notes, "nothing is sent")
	}
	if !t.JSON {
		if err := t.print(); err != nil {
			return false, err
		}
	}
	if t.Send && sendable {
		sendable, err = t.send(ctx, sender, call)
	}
	if t.JSON && err == nil {
		err = printJSON(t.std.out, t.object())
	}
	return sendable, err
}

// prepare finds the event and explains it.
func (t *trial) prepare(ctx context.Context) (err error) {
	if t.given != nil {
		if t.event, t.why, err = t.try(ctx, t.given); err != nil {
			err = fmt.Errorf("--event %s: %w", t.Event, err)
		}
	} else {
		err = t.generate(ctx)
	}
	if err != nil {
		return err
	}
	if t.webhook.Webhook.Status == definition.Paused {
		t.notes = append(t.notes, "the webhook is paused: as it stands it matches nothing")
	}
	if note := t.notCalled(); note != "" {
		t.notes = append(t.notes, note)
	}
	return nil
}

// notCalled says why deliveries to the destination wait at the moment; "" if they
// don't, as far as is known.
func (t *trial) notCalled() string {
	d := t.webhook.Destination
	if t.states == nil {
		if d.Status == definition.Paused {
			return "the destination is paused: its deliveries wait"
		}
		return ""
	}
	r := standingOf(t.defs, t.states.State(d.Name), time.Now())
	if r.Status == string(state.Active) {
		return ""
	}
	return fmt.Sprintf("the destination is %s, so its deliveries wait (%s); `millrace destinations show %s` says what to do", r.Status, r.Why, r.Name)
}

// try decodes an event and explains it.
func (t *trial) try(ctx context.Context, text []byte) (*pipeline.Event, *definition.Explanation, error) {
	e, err := decodeTest(ctx, text, t.defs.Catalog)
	if err != nil {
		return nil, nil, err
	}
	why, err := t.webhook.Explain(e, t.defs.Catalog)
	return e, why, err
}

// call makes the call and what is shown of it.
func (t *trial) call(sender *httpsend.Sender) (call httpsend.Call) {
	out, err := t.makeRequest(t.event)
	if err != nil {
		reason := err.Error()
		if dead, ok := pipeline.IsPermanent(err); ok {
			reason = fmt.Sprintf("%v (a delivery becomes a dead letter: %s)", dead.Err, dead.Reason)
		}
		t.problems = append(t.problems, "no request can be made: "+reason)
		return call
	}
	call = httpsend.Call{ID: pipeline.DeliveryID(t.event, t.webhook.Webhook.Name), URL: out.URL}
	if t.webhook.Destination.Request.Method == http.MethodGet {
		call.Query = out.Value
	} else {
		call.Body = out.Value
	}
	shown, err := sender.Preview(call)
	if err != nil {
		t.problems = append(t.problems, "no request can be made: "+oneLine(err))
		return call
	}
	t.request = &shown
	t.checkCall(sender, call)
	return call
}

// makeRequest makes the request of an event as the transform does.
func (t *trial) makeRequest(e *pipeline.Event) (definition.Outgoing, error) {
	name := t.webhook.Webhook.Name
	return t.webhook.Request(&expression.Input{Event: e, DeliveryID: pipeline.DeliveryID(e, name), Webhook: name})
}

// checkCall finds out what keeps the call from being made. A secret may be where
// the sink is and not here, so that counts with --send alone.
func (t *trial) checkCall(sender *httpsend.Sender, call httpsend.Call) {
	err := sender.Check(call)
	_, missing := errors.AsType[*secret.MissingError](err)
	switch {
	case err == nil:
	case missing && !t.Send:
		t.notes = append(t.notes, oneLine(err)+"; the sink needs it")
	default:
		t.problems = append(t.problems, oneLine(err))
	}
}
