package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/protocol"
)

// ownTarget is a database that curfew dev is told to guard.
type ownTarget struct {
	name, url string
	engine    string
	kind      protocol.Kind
}

// parseTargets reads NAME=URL, as --target has it.
func parseTargets(flags []string) ([]ownTarget, error) {
	var all []ownTarget
	for _, f := range flags {
		name, raw, ok := strings.Cut(f, "=")
		if !ok || name == "" || raw == "" {
			return nil, problem(exitUsage, "usage", "--target is not NAME=URL", "write for example "+firstExample())
		}
		if !config.IsTargetName(name) {
			return nil, problem(exitUsage, "usage", fmt.Sprintf("%q can't name a target", name), "use small letters, digits, - and _, for example orders")
		}
		u, err := url.Parse(raw)
		if err != nil || u.User.Username() == "" {
			return nil, problem(exitUsage, "usage", "the URL of the target "+name+" is not one, or names no user", "write it like "+firstExample())
		}
		engine, kind, ok := engineOfURL(u.Scheme)
		if !ok {
			return nil, problem(exitUsage, "usage", fmt.Sprintf("%s:// is no database that Curfew knows", u.Scheme), "begin the URL of "+name+" with "+either(suffixed(engineNames(), "://")))
		}
		u.Scheme = engine
		all = append(all, ownTarget{name: name, url: u.String(), engine: engine, kind: kind})
	}
	return all, nil
}

// place is the name of the listener that serves a target: its engine's, or its own.
func place(target, engine string) string {
	if engines()[engine].Pinned {
		return engine + "/" + target
	}
	return engine
}

// places are the listeners that the targets need, sorted: those that are guarded and those that are asked.
func (d *devHome) places(asked []ownTarget) []string {
	need := map[string]bool{}
	for name, raw := range d.Targets {
		need[place(name, schemeOf(raw))] = true
	}
	for _, t := range asked {
		if old, ok := d.Targets[t.name]; ok { // it may be another database now
			delete(need, place(t.name, schemeOf(old)))
		}
	}
	for _, t := range asked {
		need[place(t.name, t.engine)] = true
	}
	return slices.Sorted(maps.Keys(need))
}

// served are the listeners as one looks for them: by target.
func (d *devHome) served() map[string]string {
	all := map[string]string{}
	for name, raw := range d.Targets {
		all[name] = d.Listeners[place(name, schemeOf(raw))]
	}
	return all
}

// schemeOf is the engine of a URL that curfew dev wrote itself.
func schemeOf(raw string) string {
	scheme, _, _ := strings.Cut(raw, "://")
	return scheme
}

// addresses settles where to listen: the flags, the last time, the defaults. Loopback or nothing.
func (d *devHome) addresses(f devFlags, asked []ownTarget) error {
	d.API, d.Issuer, d.Ops = first(f.api, d.API, "127.0.0.1:7433"), first(f.issuer, d.Issuer), first(f.ops, d.Ops)
	if d.Issuer == "" {
		addr, err := freeAddress("127.0.0.1:0")
		if err != nil {
			return err
		}
		d.Issuer = addr
	}
	told, err := parseListen(f.listen)
	if err != nil {
		return err
	}
	before := d.Listeners
	d.Listeners = map[string]string{}
	taken := []string{d.API, d.Issuer}
	if d.Ops != "" {
		taken = append(taken, d.Ops)
	}
	for _, p := range d.places(asked) {
		engine, target, _ := strings.Cut(p, "/")
		addr := first(told[target], before[p])
		if addr == "" {
			if addr, err = nextFree(engines()[engine].Trial.Port, taken); err != nil {
				return err
			}
		}
		delete(told, target)
		d.Listeners[p], taken = addr, append(taken, addr)
	}
	if addr, ok := told[""]; ok {
		return problem(exitUsage, "usage", "every target here has a listener of its own, none of them at "+addr, "say whose it is: --listen TARGET="+addr)
	}
	for target := range told {
		return problem(exitUsage, "usage", "there is no target "+target+" with a listener of its own", "leave out --listen "+target+"="+told[target])
	}
	return checkLoopback(taken)
}

// parseListen reads ADDRESS, whose key is empty, and TARGET=ADDRESS.
func parseListen(flags []string) (map[string]string, error) {
	told := map[string]string{}
	for _, f := range flags {
		target, addr, ok := strings.Cut(f, "=")
		if !ok {
			target, addr = "", f
		}
		if _, twice := told[target]; twice {
			return nil, problem(exitUsage, "usage", fmt.Sprintf("--listen %s: there is one for that already", f), "leave one of them out")
		}
		told[target] = addr
	}
	return told, nil
}

func checkLoopback(addresses []string) error {
	for _, addr := range addresses {
		host, _, err := net.SplitHostPort(addr)
		if err != nil || !net.ParseIP(host).IsLoopback() {
			return problem(exitUsage, "usage", fmt.Sprintf("curfew dev does not listen on %s: its identities are for this machine only", addr),
				"use an address like 127.0.0.1:7433; to serve others, write a configuration and use curfew serve")
		}
	}
	return nil
}

// nextFree gives the port, or the next one that nobody has.
func nextFree(port int, taken []string) (string, error) {
	for p := port; p < port+100; p++ {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
		if slices.Contains(taken, addr) {
			continue
		}
		if addr, err := freeAddress(addr); err == nil {
			return addr, nil
		}
	}
	return "", problem(exitFailed, "failed", fmt.Sprintf("no port from %d to %d is free", port, port+99), "say where to listen: curfew dev --listen …")
}

func freeAddress(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// free finds out, before anything is changed, whether the addresses can be listened on.
func (d *devHome) free() error {
	for _, addr := range append(slices.Sorted(maps.Values(d.Listeners)), d.API, d.Issuer, d.Ops) {
		if addr == "" {
			continue
		}
		if _, err := freeAddress(addr); err != nil {
			return problem(exitFailed, "failed", fmt.Sprintf("%s can't be listened on: %v", addr, err),
				"stop what listens there (another curfew dev?), or choose others: curfew dev --api 127.0.0.1:7533 --listen 127.0.0.1:6533")
		}
	}
	return nil
}

// certificate makes the certificate of the listeners, once, and anew when it lacks a host of theirs; it is
// its own CA.
func (d *devHome) certificate() error {
	hosts := []string{"127.0.0.1"}
	for _, addr := range d.Listeners {
		host, _, _ := net.SplitHostPort(addr) // checked by addresses
		hosts = append(hosts, host)
	}
	if d.certified(hosts) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "curfew dev"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(2, 0, 0), DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(host))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePrivate(d.path("tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	return writePrivate(d.path("tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// certified reports whether the certificate that is there is good for these hosts.
func (d *devHome) certified(hosts []string) bool {
	text, err := os.ReadFile(d.path("tls.crt"))
	if err != nil {
		return false
	}
	if _, err := os.Stat(d.path("tls.key")); err != nil {
		return false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Now().After(cert.NotAfter) {
		return false
	}
	return !slices.ContainsFunc(hosts, func(host string) bool { return cert.VerifyHostname(host) != nil })
}

// firstExample is one --target, targetExamples one for each engine.
func firstExample() string { return strings.SplitN(targetExamples(), " \\", 2)[0] }

func targetExamples() string {
	var all []string
	for _, name := range engineNames() {
		trial := engines()[name].Trial
		u, _ := url.Parse(trial.Example) // a constant
		all = append(all, "--target "+strings.Trim(u.Path, "/")+"="+trial.Example)
	}
	slices.Reverse(all)
	return strings.Join(all, " \\\n    ")
}

// listenDefaults says where curfew dev listens.
func listenDefaults() string {
	var all []string
	for _, name := range engineNames() {
		port := fmt.Sprintf("127.0.0.1:%d", engines()[name].Trial.Port)
		if engines()[name].Pinned {
			port += " and the next ones"
		}
		all = append(all, name+" "+port)
	}
	return strings.Join(all, ", ")
}

func suffixed(words []string, suffix string) []string {
	var out []string
	for _, w := range words {
		out = append(out, w+suffix)
	}
	return out
}
