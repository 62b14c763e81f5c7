package secret

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
