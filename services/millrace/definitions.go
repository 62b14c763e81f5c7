package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/preset"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// readFiles reads definition files: directories are searched for *.yaml, *.yml
// and *.json, "-" is standard input.
func readFiles(paths []string, stdin io.Reader) ([]definition.File, error) {
	var files []definition.File
	for _, p := range paths {
		if p == "-" {
			data, err := io.ReadAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("reading standard input: %w", err)
			}
			files = append(files, definition.File{Name: "<stdin>", Data: data})
			continue
		}
		found, err := findFiles(p)
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("reading definitions: %w", err)
			}
			files = append(files, definition.File{Name: name, Data: data})
		}
	}
	return files, nil
}

func findFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading definitions: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var found []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".yaml", ".yml", ".json":
			if err == nil && !d.IsDir() {
				found = append(found, name)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading definitions: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("reading definitions: no *.yaml, *.yml or *.json in %s", path)
	}
	return found, nil
}

type checkCmd struct {
	Paths []string `arg:"" help:"Files or directories; - for standard input." placeholder:"PATH"`
	JSON  bool     `help:"Print problems as JSON."`
}

// Help is shown by --help.
func (checkCmd) Help() string {
	return "Needs no Kafka. Exit code 1 if there are problems, each with file, line and column.\n\n" +
		"Example:\n  millrace check definitions/"
}

// Run checks files by themselves.
func (c *checkCmd) Run(ctx context.Context, std streams) error {
	files, err := readFiles(c.Paths, std.in)
	if err != nil {
		return err
	}
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		return err
	}
	files, presets, tests, problems := checkPresets(ctx, files, builtin)
	set := definition.Parse(files...)
	after, found := set.Check(definition.NewSnapshot(builtin))
	problems = append(problems, found...)
	if found.Err() == nil {
		ran, failures := set.RunTests(ctx, after)
		tests += ran
		problems = append(problems, failures...)
	}
	count := len(set.Definitions) + presets
	if c.JSON {
		return c.printJSON(std.out, count, tests, problems)
	}
	printFileProblems(std.err, problems)
	if problems.Err() != nil {
		return errSaid
	}
	fmt.Fprintf(std.out, "%d definitions are fine, %d tests passed\n", count, tests)
	return nil
}

// checkPresets checks those files that hold a preset, and returns the others.
func checkPresets(ctx context.Context, files []definition.File, builtin *event.Catalog) (others []definition.File, presets, tests int, problems definition.Problems) {
	for _, f := range files {
		if !preset.IsPreset(f.Data) {
			others = append(others, f)
			continue
		}
		presets++
		p, err := preset.Parse(f.Name, f.Data)
		if err != nil {
			problems = append(problems, definition.Problem{File: f.Name, Message: err.Error()})
			continue
		}
		ran, found := definition.CheckPreset(ctx, f.Name, p, builtin)
		tests += ran
		problems = append(problems, found...)
	}
	return others, presets, tests, problems
}

func (c *checkCmd) printJSON(w io.Writer, count, tests int, problems definition.Problems) error {
	if problems == nil {
		problems = definition.Problems{}
	}
	err := printJSON(w, map[string]any{
		"definitions": count, "tests": tests, "problems": problems,
	})
	if problems.Err() != nil {
		return errors.Join(errSaid, err)
	}
	return err
}

func printProblems(w io.Writer, problems definition.Problems) {
	if len(problems) > 0 {
		fmt.Fprintln(w, problems.Error())
	}
}

// printFileProblems prints the problems of files that were looked at by
// themselves.
func printFileProblems(w io.Writer, problems definition.Problems) {
	printProblems(w, problems)
	if slices.ContainsFunc(problems, func(p definition.Problem) bool { return p.Lacks }) {
		fmt.Fprintln(w, "note: only the files that are given are looked at; what is in force, `millrace apply --dry-run` knows")
	}
}

type applyCmd struct {
	kafkaSettings
	publicKeySettings
	Paths  []string `arg:"" help:"Files or directories; - for standard input." placeholder:"PATH"`
	Owner  string   `help:"Name of this set of definitions; --prune removes only what has the same." default:"files"`
	Prune  bool     `help:"Remove definitions of this owner that the files do not have."`
	Force  bool     `help:"Take over definitions that have another owner."`
	DryRun bool     `help:"Show the plan and write nothing."`
	JSON   bool     `help:"Print the plan as JSON."`
}

// Help is shown by --help.
func (applyCmd) Help() string {
	return "Shows the plan (+ new, ~ changed, - removed), then writes it: all of it or nothing. Of two that change\n" +
		"the same at once, one is told (exit code 3) and has written nothing. Secrets that are written out are sealed, so\n" +
		"that the sinks alone can open them; at each apply anew, unless the file has what export then prints.\n\n" +
		"Examples:\n  millrace apply definitions/ --dry-run\n  millrace apply definitions/ --owner crm --prune"
}

// Run applies files.
func (c *applyCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	files, err := readFiles(c.Paths, std.in)
	if err != nil {
		return err
	}
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	base, err := current(ctx, cfg)
	if err != nil {
		return err
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	plan, problems := definition.NewPlan(base, definition.Parse(files...), definition.Options{
		Owner: c.Owner, Author: author(), Prune: c.Prune, Force: c.Force, Keys: keys,
	})
	if c.JSON {
		return c.runJSON(ctx, cfg, plan, problems, std.out)
	}
	printProblems(std.err, problems)
	if problems.Err() != nil {
		return errSaid
	}
	if err := plan.Print(std.out); err != nil || c.DryRun || len(plan.Changes) == 0 {
		return err
	}
	result, err := write(ctx, cfg, plan)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%d changes are in force at offset %d\n", result.Changes, result.Offset)
	return nil
}

// runJSON applies the plan and prints it as JSON, or the problems that keep it
// from being one.
func (c *applyCmd) runJSON(ctx context.Context, cfg stream.Config, plan *definition.Plan, problems definition.Problems, w io.Writer) error {
	o := planOf(plan, problems)
	if problems.Err() != nil {
		return errors.Join(errSaid, printJSON(w, o))
	}
	if !c.DryRun && len(plan.Changes) > 0 {
		result, err := write(ctx, cfg, plan)
		if err != nil {
			return err
		}
		o.Offset = &result.Offset
	}
	return printJSON(w, o)
}

func write(ctx context.Context, cfg stream.Config, plan *definition.Plan) (definition.Result, error) {
	store, err := definition.OpenStore(ctx, cfg)
	if err != nil {
		return definition.Result{}, err
	}
	defer store.Close()
	result, err := store.Apply(ctx, plan)
	if _, changed := errors.AsType[*definition.ChangedError](err); changed || errors.Is(err, stream.ErrFenced) {
		return result, &codeError{exitChanged, err}
	}
	return result, err
}

// author is who runs the command.
func author() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// current reads the definitions in force.
func current(ctx context.Context, cfg stream.Config) (*definition.Snapshot, error) {
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		return nil, err
	}
	live := definition.NewLive(cfg, builtin)
	return readOnce(ctx, live.Run, live.At)
}

// readOnce follows something just until it has what is there now.
func readOnce[T any](ctx context.Context, follow func(context.Context) error, at func(context.Context, int64) (*T, error)) (*T, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return follow(ctx) })
	now, err := at(ctx, 0)
	stop()
	failed := g.Wait()
	if err != nil {
		return nil, failed
	}
	return now, nil
}

type exportCmd struct {
	kafkaSettings
}

// Help is shown by --help.
func (exportCmd) Help() string {
	return "What it prints can be applied again. Secrets appear only as references, or sealed.\n\n" +
		"Example:\n  millrace export > definitions.yaml"
}

// Run prints what is in force.
func (c *exportCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	snapshot, err := current(ctx, cfg)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := definition.Export(&out, snapshot); err != nil {
		return err
	}
	_, err = out.WriteTo(std.out)
	return err
}

type listCmd struct {
	kafkaSettings
	Kind string `arg:"" optional:"" help:"Only this kind: webhooks, destinations or event-types." enum:",webhooks,destinations,event-types" default:""`
	JSON bool   `help:"Print as JSON."`
}

// Help is shown by --help.
func (listCmd) Help() string {
	return "Examples:\n  millrace list\n  millrace list webhooks --json"
}

// Run lists what is in force.
func (c *listCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	snapshot, err := current(ctx, cfg)
	if err != nil {
		return err
	}
	rows := listRows(snapshot, c.Kind)
	if c.JSON {
		return printJSON(std.out, rows)
	}
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tSTATUS\tREVISION\tOWNER\tABOUT")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", r.Kind, r.Name, r.Status, r.Revision, r.Owner, r.About)
	}
	return w.Flush()
}

// listRow is one line of `millrace list`.
type listRow struct {
	Kind     definition.Kind `json:"kind"`
	Name     string          `json:"name"`
	Status   string          `json:"status"`
	Revision int64           `json:"revision"`
	Owner    string          `json:"owner"`
	About    string          `json:"about"`
}

func listRows(s *definition.Snapshot, kind string) []listRow {
	kinds := map[string]definition.Kind{
		"webhooks": definition.KindWebhook, "destinations": definition.KindDestination, "event-types": definition.KindEventType,
	}
	rows := []listRow{}
	for k, r := range s.Resources {
		if kind != "" && kinds[kind] != k.Kind {
			continue
		}
		row := listRow{Kind: k.Kind, Name: k.Name, Revision: r.Revision, Owner: r.Owner, Status: "active"}
		switch w, d := s.Webhooks[k.Name], s.Destinations[k.Name]; {
		case s.Broken[k] != nil:
			row.Status, row.About = "broken", s.Broken[k].Error()
		case k.Kind == definition.KindWebhook:
			row.Status = string(w.Webhook.Status)
			row.About = strings.Join(w.Webhook.Event, ", ") + " -> " + w.Webhook.Destination
		case k.Kind == definition.KindDestination:
			row.Status = string(d.Status)
			row.About = fmt.Sprintf("%s %s (lane %s)", d.Request.Method, d.ShownURL(), d.Lane)
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b listRow) int {
		return strings.Compare(string(a.Kind)+"/"+a.Name, string(b.Kind)+"/"+b.Name)
	})
	return rows
}
