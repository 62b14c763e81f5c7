package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// The names of log attributes. A line is written when something changes its
// state, never for each event: those are counted.
const (
	KeyRole        = "role"
	KeyLane        = "lane"
	KeyDestination = "destination"
	KeyWebhook     = "webhook"
	KeyTopic       = "topic"
	KeyPartition   = "partition"
	KeyOffset      = "offset"
	KeyEvent       = "event" // an event's id
	KeyError       = "error"
)

// NewLogger returns a logger that writes lines of the given format ("text" or
// "json") from the given level ("debug", "info", "warn" or "error") upwards.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var options slog.HandlerOptions
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("reading log level %q: it is debug, info, warn or error", level)
	}
	options.Level = from
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &options)), nil
	}
	return nil, fmt.Errorf("reading log format %q: it is text or json", format)
}
