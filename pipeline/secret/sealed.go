package secret

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Place is what a secret is sealed for: nowhere else can it be opened.
type Place struct {
	Owner string // kind and name of the definition, such as Destination/crm
	Field string // where in it the secret stands, such as auth.token
	// Goes is where the secret is sent to: scheme, host and port of the calls, and
	// the token endpoint. Else whoever may write definitions could have the secrets
	// of others sent to an address of his own.
	Goes string
}

// associated is what a ciphertext is bound to.
func (p Place) associated() []byte { return fmt.Appendf(nil, "%q%q%q", p.Owner, p.Field, p.Goes) }

// seal is what a placeholder ${sealed:…} holds in base64:
//
//	version, marks of where and goes (4 bytes each), ciphertext, checksum (4 bytes)
//
// The ciphertext alone is what keeps a secret from being moved. The marks and the
// checksum are there so that whoever writes definitions, and can't open it, is
// told at once what is wrong.
type seal struct {
	where, goes [markSize]byte // of the place
	ciphertext  []byte         // tink's: a 1, the id of the key (4 bytes), the rest
}

const (
	sealVersion = 1
	markSize    = 4
	tinkPrefix  = 5
	minSeal     = 1 + 2*markSize + tinkPrefix + markSize
)

// maxSeal bounds the base64 of a seal: a secret of MaxSize and what is added.
const maxSeal = (MaxSize+1024)/3*4 + 4

var sealForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func mark(parts ...string) (m [markSize]byte) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	copy(m[:], sum[:])
	return m
}

func newSeal(at Place, ciphertext []byte) seal {
	return seal{mark(at.Owner, at.Field), mark(at.Goes), ciphertext}
}

func (s seal) String() string {
	b := []byte{sealVersion}
	b = append(b, s.where[:]...)
	b = append(b, s.goes[:]...)
	b = append(b, s.ciphertext...)
	sum := mark(string(b))
	return base64.RawURLEncoding.EncodeToString(append(b, sum[:]...))
}

var (
	errDamaged   = errors.New("it is damaged: some of it is missing or has changed")
	errNewerSeal = errors.New("it was sealed by a newer version of Millrace")
	errMoved     = errors.New("it was sealed for another destination or another field")
	errGoes      = errors.New("it was sealed for another scheme, host, port or token_url")
	errNotOpened = errors.New("the keyset does not open it")
	errNoKeys    = errors.New("there is no keyset to open it with")
)

// parseSeal reads what String gives.
func parseSeal(text string) (s seal, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	switch {
	case err != nil, len(b) == 0:
		return s, errDamaged
	case b[0] > sealVersion:
		return s, errNewerSeal
	case b[0] != sealVersion, len(b) < minSeal:
		return s, errDamaged
	}
	end := len(b) - markSize
	if sum := mark(string(b[:end])); !bytes.Equal(sum[:], b[end:]) {
		return s, errDamaged
	}
	copy(s.where[:], b[1:])
	copy(s.goes[:], b[1+markSize:])
	s.ciphertext = b[1+2*markSize : end]
	return s, nil
}

// key is the id of the key that the ciphertext was made with.
func (s seal) key() uint32 { return binary.BigEndian.Uint32(s.ciphertext[1:]) }

// fits says whether a seal was made for a place.
func (s seal) fits(at Place) error {
	if s.where != mark(at.Owner, at.Field) {
		return errMoved
	}
	if s.goes != mark(at.Goes) {
		return errGoes
	}
	return nil
}

// unseal opens what stands behind "sealed:" in a placeholder.
func unseal(ring *Keyring, text string, at Place) (string, error) {
	s, err := parseSeal(text)
	if err == nil {
		err = s.fits(at)
	}
	if err != nil {
		return "", err
	}
	if ring == nil {
		return "", errNoKeys
	}
	keys, err := ring.Keys()
	if err != nil {
		return "", err
	}
	if !slices.Contains(keys.Public().IDs(), s.key()) {
		return "", fmt.Errorf("the keyset has no key %d, which it was sealed with", s.key())
	}
	return keys.unseal(s.ciphertext, at)
}

// CheckSealed says what is wrong with the sealed secrets in a reference as far as
// that can be told without opening them: damaged, moved, or sealed for another
// address, or, unless keys is nil, with a key that is not among them.
func (r Reference) CheckSealed(keys *PublicKeys) error {
	for _, p := range r.parts {
		if p.source != sealed {
			continue
		}
		s, err := parseSeal(p.text)
		if err == nil {
			err = s.fits(r.place)
		}
		if err == nil && keys != nil && !slices.Contains(keys.IDs(), s.key()) {
			err = fmt.Errorf("it was sealed with the key %d, which the sinks don't have", s.key())
		}
		if err != nil {
			return fmt.Errorf("%s can't be opened here: %w", p.name(), err)
		}
	}
	return nil
}

// spoken is what commonly stands before a secret, and is none.
var spoken = regexp.MustCompile(`^(?:(?i:bearer|basic|token|key|apikey|bot) +|` + SigningPrefix + `)`)

// Sealable says whether a reference, in a field for secrets, holds text that is
// to be sealed: anything but placeholders, white space, and a word such as Bearer
// at its beginning.
func (r Reference) Sealable() bool {
	for i, p := range r.parts {
		if p.source == literal && p.sealable(i == 0) != "" {
			return true
		}
	}
	return false
}

// sealable is the end of a literal that has to be sealed.
func (p part) sealable(first bool) string {
	rest := p.text
	if first {
		rest = rest[len(spoken.FindString(rest)):]
	}
	if strings.TrimSpace(rest) == "" {
		return ""
	}
	return rest
}

// Seal returns the reference with all that is Sealable sealed for its place.
// Sealing the same twice gives two texts that nobody can tell from others.
func (p *PublicKeys) Seal(r Reference) (Reference, error) {
	var out strings.Builder
	for i, part := range r.parts {
		text := part.String()
		if part.source == literal {
			plain := part.sealable(i == 0)
			text = strings.TrimSuffix(text, plain)
			if plain != "" {
				s, err := p.SealText(plain, r.place)
				if err != nil {
					return Reference{}, err
				}
				text += s
			}
		}
		out.WriteString(text)
	}
	sealed, err := Parse(out.String())
	return sealed.In(r.place), err
}

// SealText returns the placeholder ${sealed:…} of a secret, which is taken as it
// is.
func (p *PublicKeys) SealText(plain string, at Place) (string, error) {
	if len(plain) > MaxSize {
		return "", errLarge
	}
	ciphertext, err := p.encrypt.Encrypt(pad(plain), at.associated())
	if err != nil {
		return "", fmt.Errorf("sealing a secret: %w", err)
	}
	return part{sealed, newSeal(at, ciphertext).String()}.String(), nil
}

// padding is the step in which sealed secrets grow: how long they are, nobody
// needs to know.
const padding = 32

func pad(text string) []byte {
	b := append([]byte(text), 0x80)
	return append(b, make([]byte, (padding-len(b)%padding)%padding)...)
}

func unpad(b []byte) (string, error) {
	b, ok := bytes.CutSuffix(bytes.TrimRight(b, "\x00"), []byte{0x80})
	if !ok {
		return "", errDamaged
	}
	return string(b), nil
}
