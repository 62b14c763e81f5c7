package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// demoDefinitions are what the demo puts in force, RECEIVER being its address:
// one webhook like Heap's and one like Slack's.
const demoDefinitions = `kind: Destination
name: demo-heap
description: Stands for https://heapanalytics.com/api/track
platform: Heap Analytics
request:
  method: POST
  url: http://RECEIVER/heap/api/track
---
kind: Webhook
name: demo-goal-to-heap
event: smart_walk_thru.goal_reached
condition: |
  props["walk_thru_id"] == 12345
properties:
  - from: wm.euid
    as: identity
    required: true
  - name: app_id
    value: "11"
  - name: event
    value: Walk-Thru Goal Reached
  - name: /properties/goal
    expr: |
      props["goal_name"] ?? "goal"
  - name: /properties/browser
    expr: |
      props["env.browser.name"]
destination: demo-heap
---
kind: Destination
name: demo-slack
description: Stands for https://hooks.slack.com/services/…
platform: Slack
request:
  method: POST
  url: http://RECEIVER/slack/services/demo
---
kind: Webhook
name: demo-unhappy-answer-to-slack
event: survey.submitted
condition: |
  props["survey_type"] == "nps" and props["nps_score"] <= 6
properties:
  - name: text
    expr: |
      "NPS " + string(props["nps_score"]) + " from " + event.user + ": " + (props["comment"] ?? "no comment")
destination: demo-slack
`

// demoOwner owns the demo's definitions.
const demoOwner = "demo"

// demoPause is the time between two events.
const demoPause = 300 * time.Millisecond

// demo shows Millrace at work: definitions, a receiver for their calls, and
// somebody who produces events.
type demo struct {
	cfg    stream.Config
	listen string // address of the receiver; empty takes a free port on 127.0.0.1
	out    io.Writer
	log    *slog.Logger
}

// run runs the demo until ctx ends.
func (d *demo) run(ctx context.Context) error {
	if d.listen == "" {
		d.listen = "127.0.0.1:0"
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", d.listen)
	if err != nil {
		return fmt.Errorf("starting the demo's receiver: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.receive(ctx, l) })
	g.Go(func() error { return d.produce(ctx, l.Addr().String()) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("running the demo: %w", err)
	}
	return nil
}

// receive shows the calls that arrive.
func (d *demo) receive(ctx context.Context, l net.Listener) error {
	s := newScreen(d.out)
	s.widths = []int{12, 4, 20} // aligned from the first line on
	r := &receiver{
		answer: func(int) int { return 200 },
		show:   func(c *received) { _ = s.line(c.cells()[:3], plain(c.oneLine())) },
	}
	return r.serve(ctx, l)
}

// produce puts the definitions in force, then sends events.
func (d *demo) produce(ctx context.Context, receiver string) error {
	if err := d.define(ctx, receiver); err != nil {
		return err
	}
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		return err
	}
	producer, err := stream.NewProducer(d.cfg)
	if err != nil {
		return err
	}
	defer producer.Close()
	d.welcome(receiver)
	tick := time.NewTicker(demoPause)
	defer tick.Stop()
	run := newRun()
	for n := 0; ; n++ {
		r, err := demoEvent(builtin, d.cfg.Names.Events(), run, n)
		if err != nil {
			return err
		}
		if err := producer.Produce(ctx, []pipeline.Record{r}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// demoUsers is how many users the demo has.
const demoUsers = 50

// demoComments are what they say of a survey, as JSON.
var demoComments = []json.RawMessage{
	json.RawMessage(`"Where is the button?"`), json.RawMessage(`"The export takes for ever"`),
	json.RawMessage(`"Too many clicks to send an invoice"`), json.RawMessage(`"Better than last year"`), json.RawMessage(`null`),
}

// demoEvent makes the n-th event: every third reaches the goal and every third
// answers a survey, the others are of any type.
func demoEvent(c *event.Catalog, topic, run string, n int) (pipeline.Record, error) {
	types := slices.DeleteFunc(c.Types(), func(t *event.EventType) bool { return pipeline.IsOperator(t.Name) })
	eventType := [...]string{
		"smart_walk_thru.goal_reached", "survey.submitted", types[rand.IntN(len(types))].Name,
	}[n%3]
	e, err := exampleOf(c, eventType, run, rand.IntN(demoUsers))
	if err != nil {
		return pipeline.Record{}, err
	}
	e.ID, e.Source = fmt.Sprintf("demo-%s-%d", run, n), "millrace/demo"
	if _, has := e.Properties["comment"]; has {
		e.Properties["comment"] = demoComments[rand.IntN(len(demoComments))]
	}
	value, err := marshal(e)
	return pipeline.Record{Topic: topic, Key: []byte(e.User), Value: value}, err
}

// define puts the demo's definitions in force. Of an earlier run only the
// receiver's address differs.
func (d *demo) define(ctx context.Context, receiver string) error {
	text := strings.ReplaceAll(demoDefinitions, "RECEIVER", receiver)
	for {
		base, err := current(ctx, d.cfg)
		if err != nil {
			return err
		}
		set := definition.Parse(definition.File{Name: "demo.yaml", Data: []byte(text)})
		plan, problems := definition.NewPlan(base, set, definition.Options{Owner: demoOwner, Author: author()})
		if err := problems.Err(); err != nil {
			return err
		}
		if len(plan.Changes) == 0 {
			return nil
		}
		_, err = write(ctx, d.cfg, plan)
		if _, changed := errors.AsType[*definition.ChangedError](err); changed {
			continue // somebody applied something meanwhile
		}
		return err
	}
}

func (d *demo) welcome(receiver string) {
	d.log.Info("demo is running", "receiver", receiver)
	at := ""
	if b := strings.Join(d.cfg.Brokers, ","); b != stream.DefaultListen {
		at = " --brokers " + b
	}
	if d.cfg.Names != pipeline.DefaultPrefix {
		at += " --prefix " + string(d.cfg.Names)
	}
	fmt.Fprintf(d.out, "\nDemo: three events a second go to topic %s. Two webhooks wait for some of them and call\n"+
		"http://%s, where each call is shown below. To look further, in another terminal:\n\n"+
		"  %[4]s list%[3]s\n  %[4]s tail events%[3]s\n  %[4]s tail attempts%[3]s\n"+
		"  %[4]s send%[3]s --example survey.submitted --prop nps_score=2 --prop comment='Hello'\n\n",
		d.cfg.Names.Events(), receiver, at, commandName())
}

// commandName is what to type for this program: its name, or, where the shell
// does not find that, how it was called itself.
func commandName() string {
	if _, err := exec.LookPath("millrace"); err == nil {
		return "millrace"
	}
	return os.Args[0]
}
