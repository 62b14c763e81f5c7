package secret

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Keys is a keyset that opens what was sealed: the sinks have it, and nobody
// else. It is safe for concurrent use.
type Keys struct {
	open func() *privateKeys // a function, as in Value
}

type privateKeys struct {
	handle  *keyset.Handle
	decrypt tink.HybridDecrypt
	public  *PublicKeys

	mu     sync.Mutex
	opened map[string]Value // what was opened before, by place and ciphertext
}

// NewKeys makes a keyset with one key: HPKE (RFC 9180) with X25519, HKDF-SHA256
// and AES-256-GCM.
func NewKeys() (*Keys, error) { return addKey(keyset.NewManager()) }

// Rotated returns a keyset with a new key, which seals from now on. The old keys
// open what they have sealed.
func (k *Keys) Rotated() (*Keys, error) {
	return addKey(keyset.NewManagerFromHandle(k.open().handle))
}

func addKey(m *keyset.Manager) (*Keys, error) {
	id, err := m.Add(hybrid.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	if err == nil {
		err = m.SetPrimary(id)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return newKeys(h)
}

func newKeys(h *keyset.Handle) (*Keys, error) {
	decrypt, err := hybrid.NewHybridDecrypt(h)
	if err != nil {
		return nil, errors.New("reading a keyset: it has no private keys for hybrid encryption")
	}
	public, err := h.Public()
	if err != nil {
		return nil, errors.New("reading a keyset: it has no private keys for hybrid encryption")
	}
	p, err := newPublicKeys(public)
	if err != nil {
		return nil, err
	}
	inner := &privateKeys{handle: h, decrypt: decrypt, public: p, opened: map[string]Value{}}
	return &Keys{func() *privateKeys { return inner }}, nil
}

// ReadKeys reads what Reveal gives: a keyset in tink's JSON format. The error
// shows nothing of it.
func ReadKeys(text []byte) (*Keys, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil { // which may quote the text
		return nil, errors.New("reading a keyset: it is none in tink's JSON format")
	}
	return newKeys(h)
}

// Reveal returns the keyset as text, private keys and all. It belongs into a
// file that only the sinks can read.
func (k *Keys) Reveal() ([]byte, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.open().handle, keyset.NewJSONWriter(&b)); err != nil {
		return nil, fmt.Errorf("writing a keyset: %w", err)
	}
	return append(b.Bytes(), '\n'), nil
}

// Public is the part of the keyset that seals.
func (k *Keys) Public() *PublicKeys { return k.open().public }

// maxOpened is how many opened secrets are remembered: to open one costs about
// as much as ten calls, and they are looked up once a second.
const maxOpened = 10_000

// unseal opens a ciphertext.
func (k *Keys) unseal(ciphertext []byte, at Place) (string, error) {
	p := k.open()
	data := at.associated()
	known := string(data) + string(ciphertext)
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.opened[known]; ok {
		return v.Reveal(), nil
	}
	padded, err := p.decrypt.Decrypt(ciphertext, data)
	if err != nil {
		return "", errNotOpened
	}
	text, err := unpad(padded)
	if err != nil {
		return "", err
	}
	if len(p.opened) >= maxOpened {
		clear(p.opened)
	}
	p.opened[known] = New(text)
	return text, nil
}

// PublicKeys is the part of a keyset that seals, for whoever writes
// definitions. It holds no secret. It is safe for concurrent use.
type PublicKeys struct {
	handle  *keyset.Handle
	encrypt tink.HybridEncrypt
}

func newPublicKeys(h *keyset.Handle) (*PublicKeys, error) {
	encrypt, err := hybrid.NewHybridEncrypt(h)
	if err != nil {
		return nil, errors.New("reading a public keyset: it has no keys for hybrid encryption")
	}
	return &PublicKeys{h, encrypt}, nil
}

// ReadPublicKeys reads what MarshalJSON gives: a public keyset in tink's JSON
// format. It refuses one with private keys. The error shows nothing of the text.
func ReadPublicKeys(text []byte) (*PublicKeys, error) {
	h, err := keyset.ReadWithNoSecrets(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil { // which may quote the text
		return nil, errors.New("reading a public keyset: it is none in tink's JSON format, or it holds private keys")
	}
	return newPublicKeys(h)
}

// MarshalJSON gives the keyset in tink's JSON format.
func (p *PublicKeys) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := p.handle.WriteWithNoSecrets(keyset.NewJSONWriter(&b)); err != nil {
		return nil, fmt.Errorf("writing a public keyset: %w", err)
	}
	return b.Bytes(), nil
}

// Primary is the id of the key that seals.
func (p *PublicKeys) Primary() uint32 { return p.handle.KeysetInfo().GetPrimaryKeyId() }

// IDs are the ids of all keys, oldest first.
func (p *PublicKeys) IDs() []uint32 {
	var ids []uint32
	for _, k := range p.handle.KeysetInfo().GetKeyInfo() {
		ids = append(ids, k.GetKeyId())
	}
	return ids
}

// Keyring has a keyset that may change while it is in use: a rotated one is in
// use after the time of Fresh. It is safe for concurrent use and must not be
// copied.
type Keyring struct {
	// Load reads the keyset as it is kept now, as ReadKeys takes it.
	Load func() ([]byte, error)

	mu   sync.Mutex
	keys *Keys
	err  error
	sum  [sha256.Size]byte // of what keys or err were made of
	read time.Time
}

// Keys returns the keyset as it is now.
func (r *Keyring) Keys() (*Keys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.read.IsZero() && time.Since(r.read) < Fresh {
		return r.keys, r.err
	}
	text, err := r.Load()
	r.read = time.Now()
	if err != nil {
		r.keys, r.err, r.sum = nil, fmt.Errorf("reading the keyset: %w", err), [sha256.Size]byte{}
		return nil, r.err
	}
	if sum := sha256.Sum256(text); sum != r.sum {
		r.keys, r.err = ReadKeys(text)
		r.sum = sum
	}
	return r.keys, r.err
}
