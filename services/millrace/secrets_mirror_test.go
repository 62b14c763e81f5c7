package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
)

// mirror is an HTTP server that tells what it is sent, and what else it knows of
// who calls, in the way that the header X-Echo, the path of a token endpoint or
// the port of a tunnel names. Each answer ends the connection.
type mirror struct {
	t     *testing.T
	URL   string
	vault *vault

	mu   sync.Mutex
	sent map[string]string // what came for each destination, by X-Name
}

func serveMirror(t *testing.T, v *vault) *mirror {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mirror{t: t, URL: "http://" + l.Addr().String(), vault: v, sent: map[string]string{}}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				m.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		open.Wait()
	})
	return m
}

func (m *mirror) serve(c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	_, _ = io.WriteString(c, m.answer(req, string(body)))
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, r) // until the client has read it and hangs up
}

func (m *mirror) answer(r *http.Request, body string) string {
	told := m.told(r, body)
	name := r.Header.Get("X-Name")
	m.mu.Lock()
	m.sent[name] += told
	m.mu.Unlock()
	if r.Method == http.MethodConnect {
		_, port, _ := strings.Cut(r.Host, ":")
		return tunnelEchoes[port](told, m.vault.value("proxy"))
	}
	if way, ok := strings.CutPrefix(r.URL.Path, "/token/"); ok {
		return tokenEchoes[way](m.vault, told)
	}
	if name == "token-turns" {
		return respond(401, told)
	}
	echo := echoes[r.Header.Get("X-Echo")]
	if echo == nil {
		m.t.Errorf("%q was called: %s", name, told)
		return ""
	}
	return echo(told, m.vault.heldBy(told))
}

// told is all that the mirror knows of a request: what was sent, as it was sent
// and taken apart, and of a signed one the secrets that receivers have too.
func (m *mirror) told(r *http.Request, body string) string {
	all := []string{body, m.URL + r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Header.Get("X-Key"), r.Header.Get("X-Auth"), r.Header.Get("Authorization")}
	r.Header.Set("Authorization", r.Header.Get("Authorization")+r.Header.Get("Proxy-Authorization"))
	if user, password, ok := r.BasicAuth(); ok {
		userText, _ := url.QueryUnescape(user)
		passwordText, _ := url.QueryUnescape(password)
		all = append(all, user, password, userText, passwordText, user+":"+password)
	}
	if form, err := url.ParseQuery(body); err == nil && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form") {
		all = append(all, form.Get("client_secret"), form.Get("refresh_token"))
	}
	var sent struct{ Deep struct{ Key string } }
	if json.Unmarshal([]byte(body), &sent) == nil {
		all = append(all, sent.Deep.Key)
	}
	all = append(all, r.URL.Query().Get("key"))
	if r.Header.Get("webhook-signature") != "" {
		for _, name := range []string{"signing", "signed-before"} {
			all = append(all, strings.TrimPrefix(m.vault.value(name), "whsec_"), m.vault.value(name))
		}
	}
	return strings.Join(all, "\n") + "\n"
}

// respond is a response as it goes over the wire.
func respond(status int, body string, headers ...string) string {
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\nConnection: close\r\n", status, http.StatusText(status), len(body))
	return head + strings.Join(append(headers, "\r\n"), "\r\n") + body
}

func onOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// oneByOne writes each secret in some way: what is encoded as a whole is to be
// found by nobody.
func oneByOne(held []string, write func(string) string) string {
	var b strings.Builder
	for _, h := range held {
		b.WriteString("<" + write(h) + ">\n")
	}
	return b.String()
}

// encoders write a text as it is found in JSON, in a URL and so on.
var encoders = map[string]func(string) string{
	"plain": func(text string) string { return text },
	"json": func(text string) string {
		b, _ := json.Marshal(text) // a text can be marshalled
		return inner(string(b))
	},
	"json-raw": func(text string) string {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(text)
		return inner(strings.TrimSpace(b.String()))
	},
	"html":      html.EscapeString,
	"go":        func(text string) string { return inner(strconv.Quote(text)) },
	"query":     url.QueryEscape,
	"query-low": func(text string) string { return lowerHex(url.QueryEscape(text)) },
	"path":      url.PathEscape,
	"path-low":  func(text string) string { return lowerHex(url.PathEscape(text)) },

	"php-json":     func(text string) string { return inUTF16(text, `"\/`, "", `\u%04x`) },
	"php-html":     strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#039;").Replace,
	"python-json":  func(text string) string { return inUTF16(text, `"\`, "", `\u%04x`) },
	"python-html":  strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;").Replace,
	"python-quote": func(text string) string { return percentBut(text, "-_.~/") },
	"dotnet-json":  func(text string) string { return inUTF16(text, `\`, "\"&'+<>`", `\u%04X`) },
	"js-uri":       func(text string) string { return percentBut(text, "-_.~!*'()") },
	"json-twice":   func(text string) string { return inUTF16(inUTF16(text, `"\`, "", `\u%04x`), `"\/`, "", `\u%04x`) },
	"html-of-json": func(text string) string { return html.EscapeString(inUTF16(text, `"\`, "", `\u%04x`)) },
}

// inUTF16 writes a text in JSON with a backslash before some characters, and with
// others, and all that is not ASCII, in the given form.
func inUTF16(text, backslashed, coded, format string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case strings.ContainsRune(backslashed, r):
			b.WriteString(`\` + string(r))
		case r < ' ', r > '~', strings.ContainsRune(coded, r):
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, format, unit)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

var alphanumeric = regexp.MustCompile(`^[A-Za-z0-9]$`)

// percentBut writes a text as a part of a URL; besides letters and digits, some
// bytes stay.
func percentBut(text, but string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if alphanumeric.Match([]byte{c}) || strings.IndexByte(but, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// inAll writes a text in several ways.
func inAll(text string, names ...string) string {
	var all []string
	for _, name := range names {
		all = append(all, encoders[name](text))
	}
	return strings.Join(all, "\n")
}

// shifted writes each secret, and something around it, as base64, from each of the
// places where a byte may begin.
func shifted(held []string) string {
	var b strings.Builder
	for _, before := range []string{"", "x", "xy"} {
		b.WriteString(oneByOne(held, func(s string) string { return encode(base64.StdEncoding)(before + s + `"}`) }))
	}
	return b.String()
}

// inner is what stands between quotation marks.
func inner(quoted string) string { return quoted[1 : len(quoted)-1] }

var percent = regexp.MustCompile(`%[0-9A-F]{2}`)

func lowerHex(escaped string) string { return percent.ReplaceAllStringFunc(escaped, strings.ToLower) }

// echoes are the ways in which a destination, or what stands before it, tells
// what it was sent; held are the secrets in that.
var echoes = map[string]func(told string, held []string) string{
	"plain":      func(told string, _ []string) string { return respond(400, encoders["plain"](told)) },
	"refused":    func(told string, _ []string) string { return respond(401, told) },
	"again":      func(told string, _ []string) string { return respond(503, told) },
	"json":       func(told string, _ []string) string { return respond(400, encoders["json"](told)) },
	"json-raw":   func(told string, _ []string) string { return respond(400, encoders["json-raw"](told)) },
	"html":       func(told string, _ []string) string { return respond(400, encoders["html"](told)) },
	"go":         func(told string, _ []string) string { return respond(400, encoders["go"](told)) },
	"query":      func(told string, _ []string) string { return respond(400, encoders["query"](told)) },
	"query-low":  func(told string, _ []string) string { return respond(400, encoders["query-low"](told)) },
	"path":       func(told string, _ []string) string { return respond(400, encoders["path"](told)) },
	"path-low":   func(told string, _ []string) string { return respond(400, encoders["path-low"](told)) },
	"base64":     func(_ string, held []string) string { return respond(400, oneByOne(held, encode(base64.StdEncoding))) },
	"base64-url": func(_ string, held []string) string { return respond(400, oneByOne(held, encode(base64.URLEncoding))) },
	"php":        func(told string, _ []string) string { return respond(400, inAll(told, "php-json", "php-html")) },
	"python": func(told string, _ []string) string {
		return respond(400, inAll(told, "python-json", "python-html", "python-quote"))
	},
	"others": func(told string, _ []string) string {
		return respond(400, inAll(told, "dotnet-json", "js-uri", "json-twice", "html-of-json"))
	},
	"digits": func(_ string, held []string) string {
		return respond(400, shifted(held)+oneByOne(held, func(s string) string { return fmt.Sprintf("%x %[1]X", s) }))
	},
	"encoded": func(told string, _ []string) string {
		return respond(400, fmt.Sprintf("%x", told), "Content-Encoding: x-hex")
	},
	"utf-16": func(told string, _ []string) string {
		return respond(400, strings.Join(strings.Split(told, ""), "\x00"))
	},
	"endless": func(told string, _ []string) string { return respond(400, strings.Repeat(told, 2000)) },
	"cut": func(_ string, held []string) string { // within each secret, the response of another call would do
		last := held[len(held)-1]
		return "HTTP/1.1 400 No\r\nContent-Length: 1000\r\n\r\nno " + last[:len(last)-2]
	},
	"moved": func(told string, _ []string) string {
		return respond(302, "", "Location: http://elsewhere.example/?"+url.QueryEscape(told), "X-Told: "+onOneLine(told))
	},
	"reason":  func(told string, _ []string) string { return "HTTP/1.1 400 " + onOneLine(told) + "\r\n\r\n" },
	"taken":   func(told string, _ []string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + told }, // behind a response
	"no-http": func(_ string, held []string) string { return held[0] + "\r\n\r\n" },
	"status":  func(_ string, held []string) string { return "HTTP/1.1 " + held[0] + "\r\n\r\n" },
	"header":  func(told string, _ []string) string { return "HTTP/1.1 200 OK\r\n" + onOneLine(told) + "\r\n\r\n" },
	"version": func(_ string, held []string) string { return "HTTP/9." + held[0] + " 200 OK\r\n\r\n" },
	"length":  func(told string, _ []string) string { return respond(200, "", "Content-Length: "+onOneLine(told)) },
	"encoding": func(told string, _ []string) string {
		return "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + onOneLine(told) + "\r\n\r\n"
	},
	"nothing": func(string, []string) string { return "" },
}

func encode(e *base64.Encoding) func(string) string {
	return func(s string) string { return e.EncodeToString([]byte(s)) }
}

func refusedGrant(about string) string {
	b, _ := json.Marshal(map[string]string{"error": "invalid_grant", "error_description": about}) // texts can be marshalled
	return string(b)
}

// tokenEchoes are the ways of a token endpoint. The first one gives a token.
var tokenEchoes = map[string]func(v *vault, told string) string{
	"given": func(v *vault, _ string) string {
		return respond(200, fmt.Sprintf(`{"access_token":%q,"refresh_token":%q}`, v.value("access-token"), v.value("rotated")))
	},
	"says": func(_ *vault, told string) string { return respond(400, refusedGrant(told)) },
	"turns": func(v *vault, told string) string { // once it has given another refresh token, it says no to that
		if strings.Contains(told, v.value("rotated")) {
			return respond(400, refusedGrant(told))
		}
		return respond(200, fmt.Sprintf(`{"access_token":%q,"refresh_token":%q}`, v.value("access-token"), v.value("rotated")))
	},
	"type": func(v *vault, told string) string {
		b, _ := json.Marshal(map[string]string{"access_token": v.value("access-token"), "token_type": told + v.value("access-token")})
		return respond(200, string(b))
	},
	"spills": func(v *vault, _ string) string {
		b, _ := json.Marshal(map[string]string{
			"access_token": v.value("access-token"), "refresh_token": v.value("rotated"),
			"error": "not " + v.value("access-token"), "error_description": v.value("rotated"),
		})
		return respond(200, string(b))
	},
	"html": func(_ *vault, told string) string {
		return respond(200, "<p>"+told, "Content-Type: text/"+onOneLine(told))
	},
	"cut": func(v *vault, _ string) string { // where the error cuts the header, in the middle of the secret
		return respond(200, "<p>", "Content-Type: text/"+strings.Repeat("x", 85)+v.value("client"))
	},
	"reason":  func(_ *vault, told string) string { return "HTTP/1.1 500 " + onOneLine(told) + "\r\n\r\n" + told },
	"no-http": func(_ *vault, told string) string { return onOneLine(told) },
	"torn":    func(v *vault, _ string) string { s := v.value("client"); return s[:len(s)-2] },
	"moved": func(_ *vault, told string) string {
		return respond(302, told, "Location: http://elsewhere.example/?"+url.QueryEscape(told))
	},
	"endless": func(_ *vault, told string) string { return respond(500, strings.Repeat(told, 2000)) },
}

// tunnelEchoes are the ways of a proxy, by the port that it is asked for.
var tunnelEchoes = map[string]func(told, password string) string{
	"1001": func(told, _ string) string { return respond(407, told, "Proxy-Authenticate: "+onOneLine(told)) },
	"1002": func(_, password string) string { return "HTTP/1.1 502 " + password + "\r\n\r\n" },
	"1003": func(_, password string) string { return password + "\r\n\r\n" },
	"1004": func(told, _ string) string { return "HTTP/1.1 200 OK\r\n\r\n" + told },
	"1005": func(_, password string) string {
		return "HTTP/1.1 200 OK\r\n" + strings.ReplaceAll(password, ":", " ") + "\r\n\r\n"
	},
	"1006": func(_, password string) string { return "HTTP/1.1 " + password + "\r\n\r\n" },
}
