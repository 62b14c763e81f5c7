// Package secret holds what must never be shown: references to secrets, which
// are safe to store and print, the values they stand for, which print as
// [secret] whatever prints them, and the removal of values from texts that
// others wrote.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Mask is what stands in the place of a secret.
const Mask = "[secret]"

// Value is a text that holds secrets. However it is printed, logged or
// marshalled, it shows Mask; Reveal is the one way out. The zero Value is the
// empty text.
type Value struct {
	// A function, and not a pointer or text: packages that print by reflection
	// follow pointers and read unexported fields, but can't look into a closure.
	open func() (text string, secrets []string)
}

// New returns a Value that is secret as a whole.
func New(text string) Value { return newValue(text, []string{text}) }

func newValue(text string, secrets []string) Value {
	return Value{func() (string, []string) { return text, secrets }}
}

// Reveal returns the text. It belongs where the text is used, such as in a
// header that is about to be sent, and nowhere else.
func (v Value) Reveal() string {
	text, _ := v.reveal()
	return text
}

// reveal also returns which parts of the text are secret.
func (v Value) reveal() (text string, secrets []string) {
	if v.open == nil {
		return "", nil
	}
	return v.open()
}

// String returns Mask.
func (v Value) String() string { return Mask }

// Format writes Mask, whatever the verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Mask) }

// LogValue gives slog Mask.
func (v Value) LogValue() slog.Value { return slog.StringValue(Mask) }

// MarshalText gives JSON, YAML and XML Mask.
func (v Value) MarshalText() ([]byte, error) { return []byte(Mask), nil }
