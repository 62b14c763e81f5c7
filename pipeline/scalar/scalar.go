// Package scalar says what a scalar without quotes means in the YAML files that
// Millrace reads: those of definitions and those of presets. It is YAML's core
// schema without octals, and without the dates of YAML 1.1. A number with a
// leading zero is text: as an octal it would change its value, as a decimal it
// would lose a digit, and both have happened to postal codes.
package scalar

import (
	"math/big"
	"regexp"
	"strings"
)

// Kind is the sort of value that a scalar is.
type Kind string

// The kinds of scalars. An Integer is no Number here.
const (
	Null    Kind = "null"
	Boolean Kind = "boolean"
	Integer Kind = "integer"
	Number  Kind = "number"
	Text    Kind = "text"
)

var (
	integerForm = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)$`)
	hexForm     = regexp.MustCompile(`^0x[0-9a-fA-F]+$`)
	numberForm  = regexp.MustCompile(`^[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	endlessForm = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// Plain gives a scalar without quotes its kind, and a number the form it has in
// JSON, with all its digits. What JSON has no number for (Endless) is Text.
func Plain(s string) (Kind, string) {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return Null, ""
	case "true", "True", "TRUE":
		return Boolean, "true"
	case "false", "False", "FALSE":
		return Boolean, "false"
	}
	switch {
	case integerForm.MatchString(s):
		return Integer, strings.TrimPrefix(s, "+")
	case hexForm.MatchString(s):
		v, _ := new(big.Int).SetString(s[2:], 16)
		return Integer, v.String()
	case numberForm.MatchString(s):
		return Number, jsonNumber(s)
	default:
		return Text, s
	}
}

// Endless says whether a scalar without quotes is an infinite number or none, such
// as .inf, which JSON does not have.
func Endless(s string) bool { return endlessForm.MatchString(s) }

// jsonNumber gives a YAML number the zeros that JSON wants around its point.
func jsonNumber(s string) string {
	sign, s := "", strings.TrimPrefix(s, "+")
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	if strings.HasPrefix(s, ".") {
		s = "0" + s
	}
	if whole, rest, ok := strings.Cut(s, "."); ok && (rest == "" || rest[0] == 'e' || rest[0] == 'E') {
		s = whole + ".0" + rest
	}
	return sign + s
}
