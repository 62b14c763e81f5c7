package secret

import "bytes"

// Forge is a sealed secret with the marks of another place and a checksum that
// fits, around the same ciphertext.
func Forge(placeholder string, at Place) string {
	r, err := Parse(placeholder)
	if err != nil {
		panic(err)
	}
	s, err := parseSeal(r.parts[0].text)
	if err != nil {
		panic(err)
	}
	return part{sealed, newSeal(at, s.ciphertext).String()}.String()
}

// Unescaped is a text as secrets are looked for in it.
func Unescaped(s string) string {
	text := []byte(s)
	if u, escaped := unescape(text); escaped {
		text = u.text
	}
	for i, c := range text {
		text[i] = alike[c]
	}
	return string(text)
}

// EndsInBackslash says whether a text does so without its escapes.
func EndsInBackslash(s string) bool {
	var u unescaped
	for i, c := range []byte(s) {
		u.push(c, i)
	}
	return bytes.HasSuffix(u.text, []byte(`\`))
}
