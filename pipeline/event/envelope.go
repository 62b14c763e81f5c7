package event

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// attribute is one field of an event besides its properties.
type attribute int

const (
	attrID attribute = iota
	attrSource
	attrType
	attrTime
	attrSystem
	attrEnvironment
	attrUser
	attrSession
	attributes // how many there are

	attrProperties
	attrVersion // CloudEvents' specversion
	attrBase64  // CloudEvents' data_base64
	attrNone
)

// envelope is what the producer said apart from the properties, as text; empty
// is missing.
type envelope [attributes]string

// jsonAttribute tells what a member of Event JSON is, and a field of Event Avro.
func jsonAttribute(name string) attribute {
	switch name {
	case "id":
		return attrID
	case "source":
		return attrSource
	case "type":
		return attrType
	case "time":
		return attrTime
	case "system":
		return attrSystem
	case "environment":
		return attrEnvironment
	case "user":
		return attrUser
	case "session":
		return attrSession
	case "properties":
		return attrProperties
	}
	return attrNone
}

// cloudAttribute tells what a CloudEvents attribute is.
func cloudAttribute(name string) attribute {
	switch name {
	case "subject":
		return attrUser
	case "data":
		return attrProperties
	case "data_base64":
		return attrBase64
	case "specversion":
		return attrVersion
	case "user", "properties":
		return attrNone
	}
	return jsonAttribute(name)
}

// mirror says which attribute a property is the same thing as.
type mirror uint8

const (
	mirrorNone mirror = iota
	mirrorUser
	mirrorType
	mirrorTime
	mirrorSession
	mirrorEnvironment
)

// property returns the name of the property.
func (m mirror) property() string {
	return [...]string{"", "wm.euid", "type", "created_at", "sid", "wm.env"}[m]
}

// mirrorOf returns what a property mirrors.
func mirrorOf(property string) mirror {
	for m := mirrorUser; m <= mirrorEnvironment; m++ {
		if m.property() == property {
			return m
		}
	}
	return mirrorNone
}

// attributeText returns an attribute's value as text. Ids may be numbers: their
// digits are the text. Null is missing.
func attributeText(a attribute, t token, text string) (string, error) {
	switch t.kind {
	case null:
		return "", nil
	case plainText, escapedText:
		return t.string(text), nil
	case integer:
		if a.mayBeNumber() {
			return t.raw(text), nil
		}
	case float:
		if f := t.native(text).(float64); a == attrTime && math.Abs(f) < 1<<53 {
			return strconv.FormatInt(int64(math.Floor(f)), 10), nil
		}
	}
	return "", errors.New("expected text")
}

// mayBeNumber tells the attributes that may be written as a number.
func (a attribute) mayBeNumber() bool {
	return a == attrID || a == attrUser || a == attrSession || a == attrTime
}

const (
	minMillis = -62135596800000 + 1 // the year 1, less the zero time
	maxMillis = 253402300799999     // the end of the year 9999
)

// parseTime reads RFC 3339 or epoch milliseconds.
func parseTime(s string) (time.Time, error) {
	ms, err := int64(0), error(nil)
	if len(s) > 4 && s[4] == '-' { // after the year
		var t time.Time
		t, err = time.Parse(time.RFC3339, s)
		ms = t.UnixMilli()
	} else {
		ms, err = strconv.ParseInt(s, 10, 64)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("expected RFC 3339 or epoch milliseconds, found %.40q", s)
	}
	return atMillis(ms)
}

// atMillis returns the moment of epoch milliseconds.
func atMillis(ms int64) (time.Time, error) {
	if ms < minMillis || ms > maxMillis {
		return time.Time{}, fmt.Errorf("%d ms is not in the years 1 to 9999", ms)
	}
	return time.UnixMilli(ms).UTC(), nil
}

// parseEnvironment reads an environment by name.
func parseEnvironment(s string) (string, error) {
	switch {
	case s == "" || strings.EqualFold(s, pipeline.Production):
		return pipeline.Production, nil
	case strings.EqualFold(s, pipeline.QA):
		return pipeline.QA, nil
	}
	return "", fmt.Errorf("expected %s or %s, found %.40q", pipeline.Production, pipeline.QA, s)
}

// The values of wm.env.
const (
	envProduction = int64(0)
	envQA         = int64(3)
)

// environmentOf reads wm.env. Anything but 0 and 3 is refused, not taken for
// production, since that would call production's destinations.
func environmentOf(v any) (string, error) {
	switch v {
	case nil, envProduction:
		return pipeline.Production, nil
	case envQA:
		return pipeline.QA, nil
	}
	return "", fmt.Errorf("expected %d (production) or %d (qa), found %.40s", envProduction, envQA, fmt.Sprint(v))
}

// of returns the value of the property that mirrors an attribute of e; nil where
// that is missing.
func (m mirror) of(e *pipeline.Event) any {
	switch m {
	case mirrorUser:
		return orNil(e.User)
	case mirrorType:
		return orNil(e.Type)
	case mirrorTime:
		return e.Time.UnixMilli()
	case mirrorSession:
		return orNil(e.Session)
	case mirrorEnvironment:
		if e.Environment == pipeline.QA {
			return envQA
		}
		return envProduction
	}
	return nil
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}
