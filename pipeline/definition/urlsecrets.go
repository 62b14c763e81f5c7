package definition

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/mapping"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// fieldURL is where secrets in the URL are sealed for.
const fieldURL = "request.url"

// URLSecrets returns the parts of the URL that are secrets though they are
// written out, as where each begins and ends: the values of parameters whose
// names say so, and what the preset says. All stand behind the host. A part with
// a reference or an expression in it is none.
func (d *Destination) URLSecrets() [][2]int {
	mask := mapping.MaskURL(d.Request.URL, hole)
	parts := secretParameters(mask)
	if d.urlSecret != nil {
		if m := d.urlSecret.FindStringSubmatchIndex(mask); len(m) > 3 && m[2] >= 0 {
			parts = append(parts, [2]int{m[2], m[3]})
		}
	}
	host := len(origin(d.Request.URL))
	parts = slices.DeleteFunc(parts, func(p [2]int) bool {
		return p[0] >= p[1] || p[0] < host || strings.IndexByte(mask[p[0]:p[1]], hole) >= 0
	})
	slices.SortFunc(parts, func(a, b [2]int) int { return cmp.Or(a[0]-b[0], b[1]-a[1]) })
	return merged(parts)
}

// merged makes one of those that overlap.
func merged(parts [][2]int) (out [][2]int) {
	for _, p := range parts {
		if last := len(out) - 1; last >= 0 && p[0] < out[last][1] {
			out[last][1] = max(out[last][1], p[1])
			continue
		}
		out = append(out, p)
	}
	return out
}

// hole stands for each byte of a reference or an expression: no URL holds it.
const hole = 0

// secretParameters finds the values in the query whose names are telling.
func secretParameters(text string) (parts [][2]int) {
	at := strings.IndexByte(text, '?') + 1
	if at == 0 {
		return nil
	}
	for pair := range strings.SplitSeq(text[at:], "&") {
		name, value, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		if err != nil {
			plain = name
		}
		if httpsend.SecretParameter(plain) {
			parts = append(parts, [2]int{at + len(pair) - len(value), at + len(pair)})
		}
		at += len(pair) + 1
	}
	return parts
}

// ShownURL is the URL for people: what is sealed is cut short, and secrets that
// are written out are not shown.
func (d *Destination) ShownURL() string {
	text := d.Request.URL
	for _, p := range slices.Backward(d.URLSecrets()) {
		text = text[:p[0]] + secret.Mask + text[p[1]:]
	}
	if r, err := secret.Parse(text); err == nil {
		return r.Short()
	}
	return text
}

// sealURL seals the secrets in the URL, each in its place, and says whether there
// were any. The destination is what a definition says, without its preset.
func (d *Destination) sealURL(after *Snapshot, is *issues) bool {
	compiled := after.Destinations[d.Name]
	d.urlSecret = compiled.urlSecret
	parts := d.URLSecrets()
	if len(parts) == 0 {
		return false
	}
	path, text := at("request", "url"), d.Request.URL
	if after.Keys == nil {
		is.add(path, errNoPublicKeys)
		return false
	}
	for _, p := range slices.Backward(parts) {
		sealed, err := after.Keys.SealText(text[p[0]:p[1]], compiled.SecretPlace(fieldURL))
		if err != nil {
			is.add(path, "%v", err)
			return false
		}
		text = text[:p[0]] + sealed + text[p[1]:]
	}
	if len(text) > mapping.MaxURL {
		is.add(path, "found a URL of %d bytes with its secrets sealed, expected at most %d", len(text), mapping.MaxURL)
		return false
	}
	d.Request.URL = text
	return true
}
