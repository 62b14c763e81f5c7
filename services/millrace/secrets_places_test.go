package main

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// places are those where a destination may have secrets: its keys beside the
// name, as YAML. $HERE is where it is called.
var places = map[string]string{
	"header":         `request: {url: "$HERE/", headers: {X-Key: "key ${file:header}", $ECHO}}`,
	"query":          `request: {url: "$HERE/?key=${env:MILLRACE_SECRET_QUERY}", headers: {$ECHO}}`,
	"path":           `request: {url: "$HERE/${file:path}/x", headers: {$ECHO}}`,
	"sig":            `request: {url: "$HERE/{{ event.user }}?a=1&sig=${file:sig}&b=2", headers: {$ECHO}}`,
	"api-key":        `request: {url: "$HERE/?api_key=${file:sig}", headers: {$ECHO}}`,
	"x-auth":         `request: {url: "$HERE/", headers: {X-Auth: "${file:bearer}", $ECHO}}`,
	"url":            `request: {url: "${file:url}", headers: {$ECHO}}`,
	"short-url":      `request: {url: "${file:short-url}", headers: {$ECHO}}`,
	"filled":         `request: {url: "$HERE/{{ event.user }}/${file:path}?key=${env:MILLRACE_SECRET_QUERY}", headers: {$ECHO}}`,
	"bearer":         "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: bearer, token: '${file:bearer}'}",
	"basic":          "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: basic, username: '${file:user}', password: '${file:password}'}",
	"coded":          `request: {url: "$HERE/", headers: {Authorization: 'Basic ${file:basic}', $ECHO}}`,
	"key":            "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: header, name: X-Key, value: '${file:header}'}",
	"short":          "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: header, name: X-Key, value: '${file:short}'}",
	"short-path":     `request: {url: "$HERE/${file:short-path}/x", headers: {$ECHO}}`,
	"short-password": "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: basic, username: me, password: '${file:short}'}",
	"body":           "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: property, name: /deep/key, value: '${file:body}'}",
	"get":            "request: {method: GET, url: $HERE/, headers: {$ECHO}}\nauth: {type: property, name: key, value: '${file:body}'}",
	"client":         "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: oauth2, grant: client_credentials, token_url: '$HERE/token/given', client_id: me, client_secret: '${file:client}'}",
	"grant":          "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: oauth2, grant: refresh_token, token_url: '$HERE/token/given', client_id: me, client_secret: '${file:client}', refresh_token: '${file:refresh}'}",
	"signed":         "request: {url: $HERE/, headers: {$ECHO}}\nsigning: {secret: '${file:signing}', previous_secret: '${file:signed-before}'}",
}

// writtenPlaces are those where secrets may stand written out, which seals them.
var writtenPlaces = []string{"bearer", "basic", "key", "coded", "short", "short-password", "body", "signed", "grant", "sig", "api-key", "x-auth"}

// allPlaces are the places, and those in which the secrets are written out.
func (v *vault) allPlaces() map[string]string {
	all := maps.Clone(places)
	for _, place := range writtenPlaces {
		all["written-"+place] = v.writtenOut(places[place])
	}
	return all
}

var namedFile = regexp.MustCompile(`\$\{file:([a-z-]+)\}`)

// writtenOut is a destination with the secrets themselves in place of their names.
func (v *vault) writtenOut(keys string) string {
	return namedFile.ReplaceAllStringFunc(keys, func(s string) string {
		if s == "${file:user}" {
			return s // written out, it is none
		}
		return strings.ReplaceAll(v.value(namedFile.FindStringSubmatch(s)[1]), "'", "''")
	})
}

// mostly are places with secrets in all that a URL has, and in a header.
const mostly = `request: {url: "%s/${file:path}?key=${env:MILLRACE_SECRET_QUERY}", headers: {X-Key: "${file:header}", $ECHO}}`

// faults are destinations that are not called, or in vain.
func faults() map[string]string {
	there := func(origin string) string { return fmt.Sprintf(mostly, origin) }
	all := map[string]string{
		"refusing": there("http://127.0.0.1:1"), "nowhere": there("http://no-such-host.invalid"), "private": there("http://10.0.0.1"),
		"no-tls": there("$SECURE"), "unnamed": `request: {url: "http://${file:host}/", headers: {$ECHO}}`,
		"slow":     `request: {url: "$SLOW/${file:path}?key=${env:MILLRACE_SECRET_QUERY}", headers: {X-Key: "${file:header}", $ECHO}}`,
		"too-long": there("$HERE") + "\nlimits: {max_body: 1}",
	}
	for port := range tunnelEchoes {
		all["tunnel-"+port] = there("http://127.0.0.2:" + port)
	}
	return all
}

// waits are destinations to which nothing is sent, for want of a secret that can
// be used or of a token.
func (v *vault) waits() map[string]string {
	all := map[string]string{
		"unfit-header":   `request: {url: $HERE/, headers: {X-Key: "${file:unfit-header}", $ECHO}}`,
		"unfit-url":      `request: {url: "${file:unfit-url}", headers: {$ECHO}}`,
		"unfit-escape":   `request: {url: "${file:unfit-escape}", headers: {$ECHO}}`,
		"unfit-query":    `request: {url: "$HERE/?key=${file:unfit-query}", headers: {$ECHO}}`,
		"unfit-signing":  "request: {url: $HERE/, headers: {$ECHO}}\nsigning: {secret: '${file:unfit-signing}'}",
		"unfit-property": "request: {url: $HERE/, headers: {$ECHO}}\nauth: {type: property, name: key, value: '${file:unfit-property}'}",
		"unfit-key":      "request: {url: https://127.0.0.1/, headers: {$ECHO}}\ntls: {cert: '${file:unfit-key}', key: '${file:unfit-key}'}",
		"unfit-ca":       "request: {url: https://127.0.0.1/, headers: {$ECHO}}\ntls: {ca: '${file:unfit-key}'}",
	}
	for way := range tokenEchoes {
		if way != "given" {
			all["token-"+way] = strings.ReplaceAll(places["grant"], "/given", "/"+way+"?not=shown")
		}
	}
	client := strings.NewReplacer("/given", "/says", "${file:client}", "${file:short}").Replace(places["grant"])
	all["token-written"] = v.writtenOut(client)
	return all
}

// mistakes are definitions in which something is wrong, with secrets written out:
// <name> stands for one.
const mistakes = `kind: Destination
name: a
request: {url: "https://me:<client>@crm.example.com/x"}
auth: {type: bearer, token: [<bearer>]}
signing: {secret: <rotated>}
tls: {cert: <refresh>, key: <client>}
---
kind: Destination
name: b
request: {url: https://crm.example.com/, headers: {Authorization: Bearer <bearer>}}
auth: {type: basic, username: ${file:user}, password: <password>}
---
kind: Destination
name: c
request: {url: https://crm.example.com/}
auth: {type: oauth2, grant: client_credentials, refresh_token: <refresh>, client_secret: "<client>${file:", token: <bearer>}
---
kind: Destination
name: blanks
request: {url: https://crm.example.com/, headers: {Authorization:Bearer <bearer>}}
auth: {type: bearer, token:<bearer>}
signing: {secret:<rotated>}
tls: "<refresh>"
---
kind: Destination
name: commas
request: {url: https://crm.example.com/<bearer>, <rotated>}
auth: {type: header, name: X-Key, value: <bearer>, <refresh>}
---
kind: Destination
name: texts
request: {method: <bearer>, headers: "Authorization: Bearer <bearer>"}
auth: {type: <refresh>}
---
kind: Destination
name: alias
auth: {type: bearer, token: *<bearer>}
---
kind: Destination
name: tag
auth:
  type: bearer
  token: !<bearer>
---
kind: Destination
name: corrected
request: {url: https://crm.example.com/{{ event.user }}?sig=<bearer>, headers: {X-Auth: <refresh>}}
auth: {type: basic, username: <rotated>, password: ${env:MILLRACE_SECRET_QUERY}}
`
