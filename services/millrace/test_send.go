package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// canAsk says whether somebody sits at a terminal.
func canAsk(std streams) bool {
	f, ok := std.in.(*os.File)
	return ok && terminalWidth(f) > 0
}

// send makes the call, after asking, and shows what came of it.
func (t *trial) send(ctx context.Context, sender *httpsend.Sender, call httpsend.Call) (successful bool, err error) {
	data := "generated data"
	if t.given != nil {
		data = "the data above"
	}
	fmt.Fprintf(t.std.err, "Sending %s to the real platform: %s %s\n", data, t.request.Method, printable(t.request.URL))
	if !t.Yes {
		if err := t.ask(); err != nil {
			return false, err
		}
	}
	result := sender.Send(ctx, call)
	t.result = &result
	if t.JSON {
		return result.Outcome == httpsend.Success, nil
	}
	return result.Outcome == httpsend.Success, t.printResult()
}

var errDeclined = errors.New("nothing was sent")

// ask asks whether to send; an error unless the answer is yes.
func (t *trial) ask() error {
	fmt.Fprint(t.std.err, "Send it? [y/N] ")
	answer, _ := bufio.NewReader(t.std.in).ReadString('\n') // no answer is no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}

func (t *trial) printResult() error {
	s, r := newPage(t.std.out), t.result
	took := r.Latency.Round(100 * time.Microsecond).String()
	if r.Outcome == httpsend.Success {
		return s.line(nil, cell{"Tested Successfully!", green}, plain(fmt.Sprintf("  %d %s in %s", r.Status, http.StatusText(r.Status), took)))
	}
	why := oneLine(r.Err)
	if r.Latency > 0 { // else there was no call
		why += fmt.Sprintf(" (in %s)", took)
	}
	lines := [][]cell{{{"The test failed: ", red}, plain(why)}}
	if len(r.Response) > 0 {
		lines = append(lines, []cell{{"Response: ", dim}, plain(string(r.Response))})
	}
	return printLines(s, append(lines, []cell{{"Look at: ", yellow}, plain(lookAt(r))}))
}

// lookAt says what to look at after a call that was not taken.
func lookAt(r *httpsend.Result) string {
	if text, ok := lookAtClass[r.Class]; ok {
		return text
	}
	switch r.Status {
	case http.StatusUnauthorized:
		return "the credentials: auth of the destination, and the secrets that it names"
	case http.StatusForbidden:
		return "what the credentials may do on the platform: the platform knows them and refuses"
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return "request.url and request.method of the destination: there is nothing to call"
	case http.StatusRequestEntityTooLarge:
		return "the property mapping: the platform takes no body as large as this"
	case http.StatusUnsupportedMediaType:
		return "the header Content-Type of the destination"
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return "the platform: it took too long, or was not ready; a delivery would be tried again"
	case http.StatusTooManyRequests:
		return "limits.rate of the destination: the platform takes no more at the moment"
	}
	switch r.Status / 100 {
	case 3:
		return "request.url of the destination: the platform sends to another address, which is not followed"
	case 4:
		return "the body and headers above, and the response: the platform says that they are not what it expects"
	case 5:
		return "the platform: it failed, or is down; a delivery would be tried again"
	}
	return "the response: the platform did not say that it took the call"
}

// lookAtClass is the same where a call was not answered in full.
var lookAtClass = map[httpsend.Class]string{
	httpsend.ClassDNS:      "the host in request.url of the destination: its name can't be resolved",
	httpsend.ClassConnect:  "host and port in request.url of the destination, and firewalls between: nobody answers there",
	httpsend.ClassTLS:      "the certificate of the platform, the scheme and host of request.url, and tls of the destination",
	httpsend.ClassTimeout:  "limits.timeout of the destination, and how fast the platform is",
	httpsend.ClassNetwork:  "the network and the platform: the connection broke",
	httpsend.ClassProtocol: "request.url of the destination: what answers there does not speak HTTP/1.1, or http and https are mixed up",
	httpsend.ClassBlocked:  "--egress-allow: the address is a private one, and calls to those have to be allowed (here, and for the sink)",
	httpsend.ClassProxy:    "--egress-proxy and what goes with it (here, and for the sink): the error says what the proxy answers",
	httpsend.ClassSecret:   "the secrets: set the variables that are named, or give --secrets-dir; certificates and keys as the error says",
	httpsend.ClassTooLarge: "limits.max_body of the destination",
	httpsend.ClassInvalid:  "request.url and headers of the destination with the values of this event",
	httpsend.ClassToken:    "auth of the destination: token_url (which --egress-allow opens where its address is a private one), client_id, client_secret, refresh_token and scopes; no call was made",
	httpsend.ClassCanceled: "nothing: it was cut short here, and the call may have arrived",
}
