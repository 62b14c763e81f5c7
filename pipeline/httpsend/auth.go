package httpsend

import (
	"encoding/base64"
	"strings"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Auth is how a destination knows who calls: Bearer or Basic; nil is nobody.
type Auth interface {
	// references are the texts to look up.
	references() []secret.Reference
	// authorize makes the value of the Authorization header from what was found,
	// in the order of references, and lists what a response must not echo.
	authorize(found []string) (header string, secrets []secret.Value)
}

// Bearer sends a token as it is.
type Bearer struct{ Token secret.Reference }

// Basic sends a user name and a password.
type Basic struct{ Username, Password secret.Reference }

func (b Bearer) references() []secret.Reference { return []secret.Reference{b.Token} }

func (b Bearer) authorize(found []string) (string, []secret.Value) {
	return "Bearer " + found[0], []secret.Value{secret.New(found[0])}
}

func (b Basic) references() []secret.Reference {
	return []secret.Reference{b.Username, b.Password}
}

func (b Basic) authorize(found []string) (string, []secret.Value) {
	pair := base64.StdEncoding.EncodeToString([]byte(found[0] + ":" + found[1]))
	return "Basic " + pair, []secret.Value{secret.New(found[1]), secret.New(strings.TrimRight(pair, "="))}
}
