package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/millrace-io/millrace/pipeline/secret"
)

const planted = "pl4nted-s3cret"

type holder struct {
	Public  secret.Value
	private secret.Value
	pointer *secret.Value
}

func TestValueNeverShows(t *testing.T) {
	t.Parallel()
	v := secret.New(planted)
	h := holder{v, v, &v}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%s", "%q", "%x", "%X", "%T", "%p", "%t", "%08.3f", "%c", "%U"} {
		for _, x := range []any{v, &v, h, &h, []any{h}, map[string]any{"h": h}} {
			if got := fmt.Sprintf(verb, x); shows(got) {
				t.Errorf("Sprintf(%q, %T) shows the secret: %s", verb, x, got)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, v); got != secret.Mask {
			t.Errorf("Sprintf(%q) = %s, want %s", verb, got, secret.Mask)
		}
	}
	if got := v.Reveal(); got != planted {
		t.Errorf("Reveal() = %q", got)
	}
}

func TestValueMarshalsAsMask(t *testing.T) {
	t.Parallel()
	v := secret.New(planted)
	h := holder{v, v, &v}
	for name, marshal := range map[string]func(any) ([]byte, error){
		"json": json.Marshal, "yaml": yaml.Marshal, "xml": xml.Marshal,
	} {
		b, err := marshal(h)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := string(b); shows(got) || !strings.Contains(got, secret.Mask) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestValueInLogsAndErrors(t *testing.T) {
	t.Parallel()
	v := secret.New(planted)
	h := holder{v, v, &v}
	for _, handler := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("sent", "value", v, "pointer", &v, "in", h, slog.Group("g", "v", v))
		if shows(b.String()) || !strings.Contains(b.String(), secret.Mask) {
			t.Errorf("log line: %s", b.String())
		}
	}
	err := errors.Join(fmt.Errorf("sending %v: %w", v, errors.New(v.String())))
	if shows(err.Error()) {
		t.Errorf("error: %v", err)
	}
}

// A printer that walks by reflection, unexported fields and all, finds no text.
func TestValueIsClosedToReflection(t *testing.T) {
	t.Parallel()
	v := secret.New(planted)
	walk(t, reflect.ValueOf(holder{v, v, &v}))
}

func walk(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			walk(t, v.Field(i))
		}
	case reflect.Pointer, reflect.Interface:
		walk(t, v.Elem())
	case reflect.String, reflect.Slice:
		if shows(v.String()) {
			t.Errorf("reflection reads %q", v.String())
		}
	}
}

func TestZeroValue(t *testing.T) {
	t.Parallel()
	var v secret.Value
	if v.Reveal() != "" || fmt.Sprint(v) != secret.Mask {
		t.Errorf("zero Value: %q, %v", v.Reveal(), v)
	}
}

func shows(s string) bool {
	return strings.Contains(s, planted) || strings.Contains(s, fmt.Sprintf("%x", planted)) ||
		strings.Contains(s, fmt.Sprintf("%X", planted)) || strings.Contains(s, "112 108 52") // %d of its bytes
}
