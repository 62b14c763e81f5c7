// Command millrace turns product telemetry in Kafka into webhook calls. It is
// every role and every tool in one binary: `millrace --help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // it was tried and failed; check: the definitions have problems
	exitUsage   = 2 // the command line or the configuration is wrong
	exitChanged = 3 // apply: somebody else changed the definitions meanwhile
	exitSignal  = 130
)

// cli is the command line. Every flag can also be set in the environment, as
// MILLRACE_ and its name in capitals with _ for -, and in the file that --config
// names.
type cli struct {
	Config  kong.ConfigFlag  `help:"Read settings from this YAML file; keys are the names of flags." placeholder:"FILE" type:"existingfile"`
	Version kong.VersionFlag `help:"Print the version and exit." env:"-"`
	Log     logSettings      `embed:"" prefix:"log-"`

	Up        upCmd        `cmd:"" group:"run" help:"Run every role in one process, on an embedded broker or on a Kafka."`
	Broker    brokerCmd    `cmd:"" group:"run" help:"Run the embedded broker alone."`
	Init      initCmd      `cmd:"" group:"run" help:"Create the topics and say where the filter starts."`
	Filter    filterCmd    `cmd:"" group:"run" help:"Run the filter: events to matches."`
	Transform transformCmd `cmd:"" group:"run" help:"Run the transform: matches to deliveries."`
	Sink      sinkCmd      `cmd:"" group:"run" help:"Run a sink: deliveries to HTTP calls."`

	Check  checkCmd  `cmd:"" group:"define" help:"Validate definitions and run their tests."`
	Apply  applyCmd  `cmd:"" group:"define" help:"Put definitions in force, after showing what that changes."`
	Export exportCmd `cmd:"" group:"define" help:"Print the definitions in force as YAML."`
	List   listCmd   `cmd:"" group:"define" help:"List the definitions in force."`
	Seal   sealCmd   `cmd:"" group:"define" help:"Seal a secret for a field of a destination."`
	Keys   keysCmd   `cmd:"" group:"define" help:"Make and rotate the keyset that opens sealed secrets."`

	Destinations destinationsCmd `cmd:"" group:"define" help:"See which destinations are called and which are not; pause and resume them."`

	Test    testCmd    `cmd:"" group:"look" help:"Show what a webhook makes of an event, and why; with --send, make the call."`
	Explain explainCmd `cmd:"" group:"look" help:"Say why a webhook fired for an event or did not, and what became of it."`
	Send    sendCmd    `cmd:"" group:"look" help:"Produce events from flags or JSON Lines."`
	Tail    tailCmd    `cmd:"" group:"look" help:"Watch events, matches, deliveries, attempts or dead letters."`
	Receive receiveCmd `cmd:"" group:"look" help:"Run an HTTP receiver that shows calls."`
}

// streams are what a command reads from and writes to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, std streams) int {
	var c cli
	exit := -1 // set by --help and --version
	parser, err := kong.New(&c,
		kong.Name("millrace"),
		kong.Description("Millrace turns product telemetry in Kafka into webhook calls.\n\n"+
			"Every flag can also be set as MILLRACE_<FLAG> in the environment (--brokers is MILLRACE_BROKERS) or in the file that --config names."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "run", Title: "Run:"},
			{Key: "define", Title: "Definitions:"},
			{Key: "look", Title: "Try and watch:"},
			{Key: "kafka", Title: "Kafka:"},
			{Key: "service", Title: "Service:"},
		}),
		kong.DefaultEnvars("MILLRACE"),
		kong.Configuration(loadYAML),
		kong.Vars{"version": version},
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { exit = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
	)
	if err != nil {
		panic(err) // the tags above are wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 {
		return exit
	}
	if err != nil {
		fmt.Fprintf(std.err, "millrace: %v\nRun `millrace --help` for the commands and their flags.\n", err)
		return exitUsage
	}
	parsed.Bind(&c.Log)
	return report(std.err, parsed.Run())
}

// codeError is an error with an exit code of its own. Without a message,
// everything has been said already.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// errSaid stands for problems that have been printed.
var errSaid = errors.New("problems were found")

func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(w, "millrace: %v\n", err)
	}
	if c, ok := errors.AsType[*codeError](err); ok {
		return c.code
	}
	return exitFailed
}
