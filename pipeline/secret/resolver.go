package secret

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// MaxSize is the largest secret, in bytes: more is a mistake, not a secret.
const MaxSize = 64 << 10

// Fresh is how long a file's contents are used before the file is read again. A
// secret that is rotated in place is in use after that time.
const Fresh = time.Second

// Resolver finds the values that references stand for. It is safe for
// concurrent use and must not be copied.
type Resolver struct {
	// Dir is the directory that ${file:PATH} is looked up in; links that leave it
	// are not followed. Where it is empty, every file is missing.
	Dir string
	// Env looks up ${env:NAME}; nil is os.LookupEnv.
	Env func(name string) (string, bool)
	// Keys open ${sealed:TEXT}; where it is nil, all that is sealed is missing.
	Keys *Keyring

	mu    sync.Mutex
	files map[string]contents
}

type contents struct {
	text string
	read time.Time
}

// MissingError says that a secret can't be had: it is not there, is empty, too
// large or can't be read or opened. It never holds a value.
type MissingError struct {
	Placeholder string // such as ${env:MILLRACE_SECRET_HEAP}; what is sealed is cut short
	Field       string // where a sealed secret stands, such as auth.token; otherwise empty
	Err         error  // why
}

func (e *MissingError) Error() string {
	if e.Field != "" {
		return fmt.Sprintf("secret %s in %s can't be opened: %v", e.Placeholder, e.Field, e.Err)
	}
	return fmt.Sprintf("secret %s is missing: %v", e.Placeholder, e.Err)
}

// Unwrap returns the cause.
func (e *MissingError) Unwrap() error { return e.Err }

// Resolve returns the text with its placeholders replaced by their values, as
// they are: nothing is escaped. The error joins a *MissingError for every
// secret that is missing.
func (r *Resolver) Resolve(ref Reference) (Value, error) {
	var (
		text    strings.Builder
		secrets []string
		errs    []error
	)
	for _, p := range ref.parts {
		s, err := r.lookup(p, ref.place)
		switch {
		case err != nil && p.source == sealed:
			errs = append(errs, &MissingError{p.name(), cmp.Or(ref.place.Field, "an unknown place"), err})
		case err != nil:
			errs = append(errs, &MissingError{Placeholder: p.String(), Err: err})
		case p.source != literal:
			secrets = append(secrets, s)
		}
		text.WriteString(s)
	}
	if len(errs) > 0 {
		return Value{}, errors.Join(errs...)
	}
	return newValue(text.String(), secrets), nil
}

func (r *Resolver) lookup(p part, at Place) (string, error) {
	switch p.source {
	case env:
		return r.env(p.text)
	case file:
		return r.file(p.text)
	case sealed:
		return unseal(r.Keys, p.text, at)
	}
	return p.text, nil
}

var (
	errNotSet = errors.New("the environment variable is not set")
	errEmpty  = errors.New("it is empty")
	errLarge  = fmt.Errorf("it is larger than %d bytes", MaxSize)
	errNoDir  = errors.New("no directory of secrets is set")
	errNoFile = errors.New("it is not a regular file")
)

func (r *Resolver) env(name string) (string, error) {
	look := r.Env
	if look == nil {
		look = os.LookupEnv
	}
	s, ok := look(name)
	if !ok {
		return "", errNotSet
	}
	return check(s)
}

func (r *Resolver) file(path string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, ok := r.files[path]
	if ok && time.Since(have.read) < Fresh {
		return have.text, nil
	}
	text, err := r.read(path)
	if err != nil {
		delete(r.files, path)
		return "", err
	}
	if r.files == nil {
		r.files = map[string]contents{}
	}
	r.files[path] = contents{text, time.Now()}
	return text, nil
}

// read opens the directory anew each time: mounted secrets are rotated by
// swapping directories.
func (r *Resolver) read(path string) (string, error) {
	if r.Dir == "" {
		return "", errNoDir
	}
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	info, err := root.Stat(path) // before Open, which would wait for the writer of a pipe
	if wrong, ok := errors.AsType[*fs.PathError](err); ok {
		err = wrong.Err // the path is known, and how it was looked for is nobody's business
	}
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errNoFile
	}
	f, err := root.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+2))
	if err != nil {
		return "", err
	}
	return check(trimNewline(string(b)))
}

// trimNewline cuts the one line end that editors and `echo` leave behind.
func trimNewline(s string) string {
	s, ok := strings.CutSuffix(s, "\n")
	if ok {
		s = strings.TrimSuffix(s, "\r")
	}
	return s
}

func check(s string) (string, error) {
	switch {
	case s == "":
		return "", errEmpty
	case len(s) > MaxSize:
		return "", errLarge
	}
	return s, nil
}
