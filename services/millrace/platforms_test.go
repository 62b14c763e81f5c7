package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// platform is a receiver's idea of a platform, written from what the platform
// documents and without a look at its preset: what refuses a call here would be
// refused there.
type platform struct {
	method string // POST if empty
	path   string // pattern of path and query
	auth   string // the Authorization header
	body   func(v any) error
	answer pipelinetest.Answer // to what it takes
}

// secretOf is what a reference to a secret stands for in these tests.
func secretOf(name string) string { return "s3cret-" + name }

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// platforms are those of the examples, by the names of their destinations.
var platforms = map[string]platform{
	"heap": {path: `/api/track`, body: heapTable, answer: pipelinetest.Answer{Status: http.StatusOK}},
	"mixpanel": {
		path: `/import\?strict=1&project_id=\d+`, body: mixpanelImport,
		auth: basic(secretOf("MIXPANEL_USER"), secretOf("MIXPANEL_SECRET")),
	},
	"slack-feedback": {path: "/services/" + secretOf("SLACK_WEBHOOK"), body: slackMessage, answer: pipelinetest.Answer{Body: []byte("ok")}},
	"slack-goals":    {path: "/services/" + secretOf("SLACK_GOALS"), body: slackMessage, answer: pipelinetest.Answer{Body: []byte("ok")}},
	"slack-operators": {
		path: "/services/" + secretOf("SLACK_OPERATORS"), body: slackMessage, answer: pipelinetest.Answer{Body: []byte("ok")},
	},
	"newsletter": {
		method: http.MethodPut, path: `/3.0/lists/\w+/members/3e3417d7ef77d5932a6734b916515ed5`, // md5 of ada@example.com
		auth: basic("millrace", secretOf("MAILCHIMP_KEY")),
		body: func(v any) error {
			return errors.Join(matches(v, `^[^@ ]+@[^@ ]+$`, "email_address"), matches(v, `^(subscribed|unsubscribed|cleaned|pending|transactional)$`, "status_if_new"))
		},
	},
	"zendesk": {
		path: `/api/v2/tickets\.json`, auth: basic(secretOf("ZENDESK_EMAIL")+"/token", secretOf("ZENDESK_TOKEN")),
		body: func(v any) error { return matches(v, `.`, "ticket", "comment", "body") }, answer: pipelinetest.Answer{Status: http.StatusCreated},
	},
	"onboarding-sheet": {
		path: `/v4/spreadsheets/\w+/values/Tasks!A1:append\?valueInputOption=RAW`, auth: "Bearer " + secretOf("access-token"), body: sheetRows,
	},
	"sendgrid": {
		path: `/v3/mail/send`, auth: "Bearer " + secretOf("SENDGRID_KEY"), answer: pipelinetest.Answer{Status: http.StatusAccepted},
		body: func(v any) error {
			return errors.Join(matches(v, "@", "personalizations", 0, "to", 0, "email"), matches(v, "@", "from", "email"),
				matches(v, ".", "subject"), matches(v, "^text/", "content", 0, "type"), matches(v, ".", "content", 0, "value"))
		},
	},
	"crm": {
		method: http.MethodPut, path: `/v1/contacts/u-1/milestones`, auth: "Bearer " + secretOf("CRM_TOKEN"),
		body: func(v any) error { return matches(v, ".", "milestone") },
	},
}

// take answers a call as the platform does: 400, and why, to one that breaks
// its contract.
func (p *platform) take(c *pipelinetest.Call) pipelinetest.Answer {
	if err := p.check(c); err != nil {
		return pipelinetest.Answer{Status: http.StatusBadRequest, Body: []byte(err.Error())}
	}
	return p.answer
}

func (p *platform) check(c *pipelinetest.Call) error {
	method := http.MethodPost
	if p.method != "" {
		method = p.method
	}
	target := c.Path
	if c.Query != "" {
		target += "?" + c.Query
	}
	switch {
	case c.Method != method:
		return fmt.Errorf("called with %s", c.Method)
	case !regexp.MustCompile("^" + p.path + "$").MatchString(target):
		return fmt.Errorf("nothing at %s", target)
	case c.Header.Get("Authorization") != p.auth:
		return errors.New("wrong credentials")
	case c.Header.Get("Content-Type") != "application/json":
		return fmt.Errorf("wrong content type %q", c.Header.Get("Content-Type"))
	}
	d := json.NewDecoder(bytes.NewReader(c.Body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	return p.body(v)
}

// field follows keys and indexes; nil where they lead nowhere.
func field(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

// matches wants a text of some form at a path.
func matches(v any, form string, path ...any) error {
	s, ok := field(v, path...).(string)
	if !ok || !regexp.MustCompile(form).MatchString(s) {
		return fmt.Errorf("%v: %v", path, field(v, path...))
	}
	return nil
}

// heapTable is the table of Heap's Track Event.
func heapTable(v any) error {
	for name, most := range map[string]int{"app_id": 1 << 20, "identity": 255, "event": 1024} {
		if s, ok := field(v, name).(string); !ok || s == "" || utf8.RuneCountInString(s) > most {
			return fmt.Errorf("invalid %s", name)
		}
	}
	for _, name := range []string{"identity_type", "timestamp", "idempotency_key"} {
		if value := field(v, name); value != nil {
			if _, ok := value.(string); !ok {
				return fmt.Errorf("invalid %s", name)
			}
		}
	}
	properties, ok := field(v, "properties").(map[string]any)
	if !ok && field(v, "properties") != nil {
		return errors.New("invalid properties")
	}
	for key, value := range properties {
		s, isText := value.(string)
		_, isNumber := value.(json.Number)
		if !isText && !isNumber || utf8.RuneCountInString(key) >= 1024 || utf8.RuneCountInString(s) >= 1024 {
			return fmt.Errorf("invalid property %s", key)
		}
	}
	return nil
}

func mixpanelImport(v any) error {
	events, ok := v.([]any)
	if !ok || len(events) == 0 || len(events) > 2000 {
		return errors.New("no batch of events")
	}
	for i := range events {
		if _, ok := field(v, i, "properties", "time").(json.Number); !ok {
			return fmt.Errorf("event %d: properties.time is invalid", i)
		}
		err := errors.Join(matches(v, `.`, i, "event"), matches(v, `^[a-zA-Z0-9-]{1,36}$`, i, "properties", "$insert_id"), matches(v, `^`, i, "properties", "distinct_id"))
		if err != nil {
			return err
		}
	}
	return nil
}

// slackMessage also wants the three characters escaped that control a message.
func slackMessage(v any) error {
	s, _ := field(v, "text").(string)
	if s == "" || strings.ContainsAny(s, "<>") {
		return errors.New("invalid_payload")
	}
	return nil
}

func sheetRows(v any) error {
	rows, ok := field(v, "values").([]any)
	if !ok || len(rows) == 0 {
		return errors.New("no values")
	}
	for _, row := range rows {
		cells, ok := row.([]any)
		if !ok {
			return errors.New("a row is no list")
		}
		for _, cell := range cells {
			switch cell.(type) {
			case map[string]any, []any:
				return errors.New("a cell is a struct or a list")
			}
		}
	}
	return nil
}
