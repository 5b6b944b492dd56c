package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/curfewdb/curfew/internal/config"
)

// The places of the API and of the operators' listener among the certificates; listeners have their index
// in the configuration.
const (
	apiCert = -1
	opsCert = -2
)

// certs are the server's certificates. They can be read again while connections are served.
type certs struct {
	files  map[int]config.TLS
	loaded atomic.Pointer[map[int]*tls.Certificate]
}

func loadCerts(cfg *config.Config) (*certs, error) {
	c := &certs{files: map[int]config.TLS{}}
	if cfg.API.TLS != nil {
		c.files[apiCert] = *cfg.API.TLS
	}
	if cfg.Ops != nil && cfg.Ops.TLS != nil {
		c.files[opsCert] = *cfg.Ops.TLS
	}
	for i, l := range cfg.Listeners {
		if l.TLS != nil {
			c.files[i] = *l.TLS
		}
	}
	return c, c.load()
}

// load reads all of them, or leaves all as they were.
func (c *certs) load() error {
	fresh := map[int]*tls.Certificate{}
	var errs []error
	for i, f := range c.files {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate %s: %w", f.Cert, err))
			continue
		}
		fresh[i] = &pair
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.loaded.Store(&fresh)
	return nil
}

// server gives the TLS configuration of one place, or nil where it has none.
func (c *certs) server(i int) *tls.Config {
	if _, ok := c.files[i]; !ok {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return (*c.loaded.Load())[i], nil },
	}
}
