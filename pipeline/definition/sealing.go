package definition

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// secretField is a text of a destination that may hold secrets.
type secretField struct {
	path   []string
	text   secret.Reference
	secret bool // what is written out there is a secret too, and never stored as it is
	set    func(secret.Reference)
}

// secretFields are all of them but the URL, which has its secrets in parts: see
// URLSecrets.
func (d *Destination) secretFields() (all []secretField) {
	add := func(section, name string, s *Secret, isSecret bool) {
		set := func(r secret.Reference) { s.Reference = r }
		all = append(all, secretField{at(section, name), s.Reference, isSecret, set})
	}
	add("auth", "token", &d.Auth.Token, true)
	add("auth", "username", &d.Auth.Username, false)
	add("auth", "password", &d.Auth.Password, true)
	add("auth", "value", &d.Auth.Value, true)
	add("auth", "client_id", &d.Auth.ClientID, false)
	add("auth", "client_secret", &d.Auth.ClientSecret, true)
	add("auth", "refresh_token", &d.Auth.RefreshToken, true)
	add("tls", "ca", &d.TLS.CA, false)
	add("tls", "cert", &d.TLS.Cert, false)
	add("tls", "key", &d.TLS.Key, true)
	add("signing", "secret", &d.Signing.Secret, true)
	add("signing", "previous_secret", &d.Signing.PreviousSecret, true)
	for _, name := range sortedKeys(d.Request.Headers) {
		set := func(r secret.Reference) { d.Request.Headers[name] = Secret{r} }
		path := at("request", "headers", name)
		all = append(all, secretField{path, d.Request.Headers[name].Reference, httpsend.SecretHeader(name), set})
	}
	return all
}

// SecretPlace is what a secret in a field of the destination, such as
// auth.token, is sealed for. The destination is a compiled one: what its preset
// says counts.
func (d *Destination) SecretPlace(field string) secret.Place {
	return secret.Place{Owner: Key{KindDestination, d.Name}.String(), Field: field, Goes: d.goes()}
}

func (d *Destination) placeOf(f secretField) secret.Place {
	return d.SecretPlace(strings.Join(f.path, "."))
}

// goes is where secrets are sent to: whoever changes it has to write them again.
func (d *Destination) goes() string {
	to := strings.ToLower(origin(d.Request.URL))
	if d.Auth.TokenURL != "" {
		to += " and token_url " + d.Auth.TokenURL
	}
	return to
}

var placeholderForm = regexp.MustCompile(`\$\{[^}]*\}`)

// origin is the beginning of a URL that holds scheme, host and port. It may be a
// placeholder.
func origin(url string) string {
	mask := placeholderForm.ReplaceAllStringFunc(url, func(s string) string { return strings.Repeat("x", len(s)) })
	start := 0
	if i := strings.Index(mask, "://"); i >= 0 {
		start = i + len("://")
	}
	if end := strings.IndexAny(mask[start:], "/?#{"); end >= 0 {
		return url[:start+end]
	}
	return url
}

// placeSecrets tells each secret where it stands.
func (d *Destination) placeSecrets() {
	for _, f := range d.secretFields() {
		f.set(f.text.In(d.placeOf(f)))
	}
}

// checkSealed finds what is wrong with sealed secrets as far as that can be told
// without opening them. Like certificates they are looked at when a definition is
// saved, not each time it is read: their deliveries shall wait, not end.
func (d *Definition) checkSealed(after *Snapshot) (is issues) {
	dest := after.Destinations[d.Name]
	if d.Kind != KindDestination || dest == nil {
		return nil
	}
	path := at("request", "url")
	url, err := secret.Parse(dest.Request.URL)
	if err == nil && strings.Contains(origin(dest.Request.URL), "${sealed:") {
		is.add(path, "found a sealed secret in scheme, host or port, expected them written out: secrets are sealed for them")
		return is
	}
	is.addSealed(path, url.In(dest.SecretPlace(fieldURL)), after.Keys)
	for _, f := range dest.secretFields() {
		is.addSealed(f.path, f.text, after.Keys)
	}
	return is
}

func (is *issues) addSealed(path []string, r secret.Reference, keys *secret.PublicKeys) {
	if err := r.CheckSealed(keys); err != nil {
		is.add(path, "%s: %v; write the secret itself again, or seal it again", path[len(path)-1], err)
	}
}

const errNoPublicKeys = "found a secret that is written out, and no key to seal it with: start a sink with a keyset (millrace keys create), or write ${env:" +
	secret.EnvPrefix + "…} or ${file:…}"

// sealed returns the set with all secrets sealed that are written out: what is
// planned, shown and stored has none. after is what the set was checked as.
func (s *Set) sealed(after *Snapshot) (*Set, Problems) {
	out := &Set{Problems: s.Problems}
	var problems Problems
	for _, d := range s.Definitions {
		next, is := d.seal(after)
		problems = append(problems, d.problems(is)...)
		out.Definitions = append(out.Definitions, next)
	}
	return out, problems.sorted()
}

func (d *Definition) seal(after *Snapshot) (*Definition, issues) {
	var is issues
	v, err := decodeSpec(d.Key, d.Spec)
	own, ok := v.(*Destination)
	if err != nil || !ok {
		return d, nil
	}
	var paths []string
	for _, f := range own.secretFields() {
		if !f.secret || !f.text.Sealable() {
			continue
		}
		if after.Keys == nil {
			is.add(f.path, errNoPublicKeys)
			continue
		}
		ref, err := after.Keys.Seal(f.text.In(after.Destinations[d.Name].placeOf(f)))
		if err != nil {
			is.add(f.path, "%v", err)
			continue
		}
		f.set(ref)
		paths = append(paths, strings.Join(f.path, "."))
	}
	if own.sealURL(after, &is) {
		paths = append(paths, fieldURL)
	}
	if len(paths) == 0 {
		return d, is
	}
	next := *d
	next.written = paths
	if next.Spec, err = marshal(own); err != nil {
		is.add(nil, "%v", err)
	}
	return &next, is
}

// markWritten marks the fields of a change whose secrets are written out in the
// file, and so sealed again at each apply.
func (d *Definition) markWritten(fields []Field) {
	for i, f := range fields {
		fields[i].Sealed = slices.ContainsFunc(d.written, func(path string) bool {
			return path == f.Path || strings.HasPrefix(path, f.Path+".")
		})
	}
}

// shown is what is in force, for people: a mask is in the place of each secret of
// a destination that is in force as it was written out, since it was not known for
// one then.
func (s *Snapshot) shown(r *Resource) *Resource {
	if r == nil || r.Kind != KindDestination {
		return r
	}
	v, err := decodeSpec(r.Key(), r.Spec)
	own, ok := v.(*Destination)
	if err != nil || !ok {
		return r
	}
	if !own.mask(s.Destinations[r.Name]) {
		return r
	}
	out := *r
	if out.Spec, err = marshal(own); err != nil {
		return r
	}
	return &out
}

// mask says whether there was anything to mask. compiled is the same with its
// preset; nil if it can't be used.
func (d *Destination) mask(compiled *Destination) (masked bool) {
	for _, f := range d.secretFields() {
		if f.secret && f.text.Sealable() {
			if text, err := secret.Parse(f.text.Masked()); err == nil {
				f.set(text)
				masked = true
			}
		}
	}
	if compiled != nil {
		d.urlSecret = compiled.urlSecret
	}
	if len(d.URLSecrets()) > 0 {
		d.Request.URL, masked = d.ShownURL(), true
	}
	return masked
}

// checkMoved warns where references that stay go to another address. They name
// what whoever applies them may use, so unlike sealed secrets they may.
func (d *Definition) checkMoved(base, after *Snapshot) (is issues) {
	was, now := base.Destinations[d.Name], after.Destinations[d.Name]
	if d.Kind != KindDestination || was == nil || now == nil || was.goes() == now.goes() {
		return nil
	}
	names := placeholderForm.FindAllString(now.Request.URL, -1)
	for _, f := range now.secretFields() {
		names = append(names, f.text.Placeholders()...)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "${sealed:") })
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > 0 {
		is.warn(at("request", "url"), "%s now goes to %s, before to %s", strings.Join(names, ", "), now.goes(), was.goes())
	}
	return is
}

// Seal seals a secret for a field of a destination, such as auth.token or
// request.url. keys are those of the snapshot, or others.
func (s *Snapshot) Seal(destination, field, text string, keys *secret.PublicKeys) (string, error) {
	d := s.Destinations[destination]
	switch {
	case d == nil:
		known := sortedKeys(s.Destinations)
		return "", fmt.Errorf("sealing: there is no destination %q that can be used%s", destination, expression.DidYouMean(destination, known))
	case !sealable(field):
		return "", fmt.Errorf("sealing: %q holds no secrets; expected a field such as auth.token, signing.secret, request.headers.NAME or request.url", field)
	case keys == nil:
		return "", errors.New("sealing: no sink has published a key; start one with a keyset (millrace keys create)")
	case text == "":
		return "", errors.New("sealing: the secret is empty")
	}
	sealed, err := keys.SealText(text, d.SecretPlace(field))
	if err != nil {
		return "", fmt.Errorf("sealing: %w", err)
	}
	return sealed, nil
}

func sealable(field string) bool {
	if name, ok := strings.CutPrefix(field, "request.headers."); ok {
		return headerForm.MatchString(name)
	}
	for _, f := range new(Destination).secretFields() {
		if strings.Join(f.path, ".") == field {
			return true
		}
	}
	return field == fieldURL
}
