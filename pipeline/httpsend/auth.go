package httpsend

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Auth is how a destination knows who calls: Bearer, Basic, OAuth2,
// InHeader or InProperty; nil is nobody.
type Auth interface {
	check() error
	// header is the header that it sets, as a definition may spell it; "" where it
	// sets none.
	header() string
	// references are the texts to look up.
	references() []secret.Reference
	// apply adds to a request what was found, in the order of references, and what
	// a response must not echo.
	apply(found []string, b *builder)
	// show is the value of that header for people, with its secrets by name.
	show() string
}

// Bearer sends a token as it is.
type Bearer struct{ Token secret.Reference }

// Basic sends a user name, which can't have a colon, and a password.
type Basic struct{ Username, Password secret.Reference }

// InHeader sends a key in a header of the destination's choice.
type InHeader struct {
	Name  string
	Value secret.Reference
}

const authorization = "Authorization"

func (Bearer) check() error { return nil }

func (Bearer) header() string { return authorization }

func (b Bearer) references() []secret.Reference { return []secret.Reference{b.Token} }

func (Bearer) apply(found []string, b *builder) {
	b.secrets = append(b.secrets, secret.New(found[0]))
	b.add(authorization, "Bearer "+found[0])
}

func (b Bearer) show() string { return "Bearer " + b.Token.Masked() }

var errColon = errors.New("a user name can't have a colon: what is behind it would count as the password")

// CheckUsername says what is wrong with the user name of a Basic, as far as it is
// written out.
func CheckUsername(name secret.Reference) error {
	text := name.String()
	for _, placeholder := range name.Placeholders() {
		text = strings.ReplaceAll(text, placeholder, "")
	}
	if strings.Contains(text, ":") {
		return errColon
	}
	return nil
}

func (b Basic) check() error { return CheckUsername(b.Username) }

func (Basic) header() string { return authorization }

func (b Basic) references() []secret.Reference {
	return []secret.Reference{b.Username, b.Password}
}

func (Basic) apply(found []string, b *builder) {
	if strings.Contains(found[0], ":") {
		b.errs = append(b.errs, errColon)
		return
	}
	pair := base64.StdEncoding.EncodeToString([]byte(found[0] + ":" + found[1]))
	b.secrets = append(b.secrets, secret.New(found[1]), secret.New(strings.TrimRight(pair, "=")))
	b.add(authorization, "Basic "+pair)
}

func (b Basic) show() string {
	return "Basic base64(" + b.Username.Short() + ":" + b.Password.Masked() + ")"
}

func (InHeader) check() error { return nil }

func (h InHeader) header() string { return h.Name }

func (h InHeader) references() []secret.Reference { return []secret.Reference{h.Value} }

func (h InHeader) apply(found []string, b *builder) {
	b.secrets = append(b.secrets, secret.New(found[0]))
	name, _ := headerName(h.Name) // Target has checked it
	b.add(name, found[0])
}

func (h InHeader) show() string { return h.Value.Masked() }

// checkAuth checks how to authenticate, once the other headers are known.
func (s *Sender) checkAuth() error {
	if s.auth == nil {
		return nil
	}
	return errors.Join(s.auth.check(), s.checkAuthHeader(s.auth.header()))
}

func (s *Sender) checkAuthHeader(text string) error {
	if text == "" {
		return nil
	}
	name, err := headerName(text)
	if err == nil && s.has(name) {
		err = errors.New("auth sets it")
	}
	if err != nil {
		return fmt.Errorf("header %q: %w", text, err)
	}
	return nil
}
