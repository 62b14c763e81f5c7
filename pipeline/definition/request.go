package definition

import (
	"fmt"
	"net/http"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// Outgoing is what a webhook makes of an event: what a delivery carries.
type Outgoing struct {
	URL   string // where it depends on the event; otherwise the destination's
	Value []byte // the body, or the query where the method is GET
}

// Request makes what is sent for an event. The error is permanent and has the
// reason of the dead letter.
func (c *Compiled) Request(in *expression.Input) (out Outgoing, err error) {
	if c.URL != nil {
		url, err := c.URL.Append(nil, in)
		if err != nil {
			return out, err
		}
		out.URL = string(url)
	}
	if c.Destination.Request.Method == http.MethodGet {
		out.Value, err = c.Mapping.AppendQuery(nil, in)
	} else {
		out.Value, err = c.Mapping.AppendJSON(nil, in)
	}
	if err == nil {
		err = c.KeepsContract(out.Value)
	}
	if limit := int(c.Destination.Limits.MaxBody); err == nil && len(out.Value) > limit {
		err = pipeline.Permanent(pipeline.TooLarge, fmt.Errorf(
			"body of %d bytes is larger than max_body of destination %q, %d", len(out.Value), c.Destination.Name, limit))
	}
	return out, err
}
