package main

import "github.com/millrace-io/millrace/pipeline/httpsend"

// egressProxySettings say what calls go through.
type egressProxySettings struct {
	EgressProxy             string   `help:"Make calls through this proxy, by CONNECT." placeholder:"URL"`
	EgressProxyUsername     string   `help:"User name at the proxy."`
	EgressProxyPasswordFile string   `help:"File that holds the password at the proxy; without one, it is taken from MILLRACE_EGRESS_PROXY_PASSWORD." placeholder:"FILE"`
	EgressNoProxy           []string `help:"What is called without the proxy: CIDRs, addresses, host names." placeholder:"CIDR|HOST"`
}

func (e *egressProxySettings) proxy() *httpsend.Proxy {
	return &httpsend.Proxy{
		URL: e.EgressProxy, Username: e.EgressProxyUsername, Direct: e.EgressNoProxy,
		Password: func() (string, error) {
			return passwordFrom(e.EgressProxyPasswordFile, "MILLRACE_EGRESS_PROXY_PASSWORD")
		},
	}
}
