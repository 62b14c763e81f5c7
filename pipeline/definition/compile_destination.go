package definition

import (
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/mapping"
	"github.com/millrace-io/millrace/pipeline/preset"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// compileDestination fills in the defaults and checks what one key alone does
// not show. The result is nil if there is an issue that is no warning.
func compileDestination(d *Destination, presets preset.Set) (*Destination, issues) {
	var is issues
	d = d.fillIn(presets, &is)
	if is.err() != nil {
		return nil, is
	}
	d.checkURL(&is)
	d.checkHeaders(&is)
	d.checkAuth(&is)
	if previous := d.Signing.PreviousSecret; !previous.IsZero() && previous.String() == d.Signing.Secret.String() {
		is.add(at("signing", "previous_secret"), "found the same reference as under secret, expected another")
	}
	d.checkTLS(&is)
	full := d.withDefaults()
	if full.Limits.ConnectTimeout > full.Limits.Timeout {
		is.add(at("limits", "connect_timeout"), "found %s, expected no more than the timeout of %s", full.Limits.ConnectTimeout, full.Limits.Timeout)
	}
	if full.Limits.Burst > 0 && full.Limits.Rate == 0 {
		is.add(at("limits", "burst"), "found a burst without a rate, expected both or none")
	}
	if full.Retry.First > full.Retry.Cap {
		is.add(at("retry", "first"), "found %s, expected no more than the cap of %s", full.Retry.First, full.Retry.Cap)
	}
	if is.err() != nil {
		return nil, is
	}
	full.placeSecrets()
	return &full, is
}

func (d *Destination) checkURL(is *issues) {
	path, text := at("request", "url"), d.Request.URL
	var wrong place // of a reference to a secret: that it is none in a URL either follows from it
	_, err := secret.Parse(text)
	if e, ok := errors.AsType[*secret.Error](err); ok {
		wrong = endOf(text[:e.Offset])
		*is = append(*is, issue{path: path, line: wrong.line, column: wrong.column, message: e.Err.Error()})
	}
	_, err = mapping.CompileURL(text, expression.Scope{})
	for _, e := range expression.All(err) {
		if wrong != (place{e.Line, e.Column}) {
			*is = append(*is, issue{path: path, line: e.Line, column: e.Column, message: e.Message})
		}
	}
}

// ownHeaders are set by Millrace or by HTTP itself.
func ownHeaders() []string {
	return []string{
		"Connection", "Content-Length", "Expect", "Host", "Idempotency-Key", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Webhook-Id", "Webhook-Signature", "Webhook-Timestamp",
	}
}

func (d *Destination) checkHeaders(is *issues) {
	seen := map[string]string{}
	for _, name := range sortedKeys(d.Request.Headers) {
		path := at("request", "headers", name)
		plain := textproto.CanonicalMIMEHeaderKey(name)
		if other, twice := seen[plain]; twice {
			is.add(path, "found the header %s and %s, which are the same", other, name)
		}
		seen[plain] = name
		switch value := d.Request.Headers[name].String(); {
		case slices.Contains(ownHeaders(), plain):
			is.add(path, "found the header %s, which is not for a definition to set", name)
		case plain == d.Auth.header():
			is.add(path, "found the header %s and auth: {type: %s}, expected one of them", plain, d.Auth.Type)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			is.add(path, "found a line break or control character, expected a value on one line")
		case value != strings.TrimSpace(value):
			is.add(path, "found white space around the value, expected none")
		}
	}
}

// header is the header that authentication sets; "" where it sets none.
func (a *Auth) header() string {
	switch a.Type {
	case AuthBearer, AuthBasic, AuthOAuth2:
		return "Authorization"
	case AuthHeader:
		return textproto.CanonicalMIMEHeaderKey(a.Name)
	}
	return ""
}

func (d *Destination) checkAuth(is *issues) {
	switch d.Auth.Type {
	case AuthBasic:
		if err := httpsend.CheckUsername(d.Auth.Username.Reference); err != nil {
			is.add(at("auth", "username"), "%v", err)
		}
	case AuthHeader:
		if name := d.Auth.header(); name == "Content-Type" || slices.Contains(ownHeaders(), name) {
			is.add(at("auth", "name"), "found the header %s, which is not for a secret", name)
		}
	case AuthOAuth2:
		d.Auth.checkTokenURL(is)
	case AuthProperty:
		d.checkAuthProperty(is)
	}
}

// checkTokenURL says whether the token endpoint can be called. It is the same
// for all events, and holds no secret.
func (a *Auth) checkTokenURL(is *issues) {
	path := at("auth", "token_url")
	if strings.Contains(a.TokenURL, "${") || strings.Contains(a.TokenURL, "{{") {
		is.add(path, "found an expression or a reference to a secret, expected a plain URL")
		return
	}
	if len(secretParameters(a.TokenURL)) > 0 { // RFC 6749, 2.3.1: credentials must not be in it
		is.warn(path, "the name of a parameter speaks of a secret: this address is stored and shown as it is; write a secret as client_secret or refresh_token")
	}
	_, err := mapping.CompileURL(a.TokenURL, expression.Scope{})
	is.addExpression(path, err)
}

func (d *Destination) checkAuthProperty(is *issues) {
	path, name := at("auth", "name"), d.Auth.Name
	if err := mapping.CheckName(name); err != nil {
		is.add(path, "%v", err)
		return
	}
	switch pointer := name[0] == '/'; {
	case pointer && slices.Contains(strings.Split(name, "/"), "-"):
		is.add(path, "found the pointer %q, expected the place of one property", name)
	case pointer && d.Request.Method == http.MethodGet:
		is.add(path, "found the pointer %q, but with GET there is only a query, in which nothing is nested", name)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
