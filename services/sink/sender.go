package sink

import (
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// NewSender prepares the calls to a destination just as a sink does.
func NewSender(client *httpsend.Client, def *definition.Destination) (*httpsend.Sender, error) {
	return client.Target(target(def))
}
