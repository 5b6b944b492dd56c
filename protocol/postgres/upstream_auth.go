package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// iterationsMost bounds what a server can make us compute. An account's verifier has one iteration.
const iterationsMost = 1 << 20

// prover answers a server's authentication requests, as far as the target's URL lets it (require_auth,
// channel_binding).
type prover struct {
	u     *upstream
	l     landing
	least uint32 // minor version that there must be
	scram *scram.ClientConversation
	plus  bool // which is bound to the server's certificate
	asked bool // the account's secret in clear
	done  bool
}

func (p *prover) answer(body []byte) error {
	if len(body) < 4 {
		return errors.New("malformed authentication request")
	}
	code, data := binary.BigEndian.Uint32(body), body[4:]
	if p.done {
		return errors.New("the server asks who this is after it had let it in")
	}
	if p.u.minor < p.least {
		return fmt.Errorf("the server speaks protocol 3.%d, and the target's URL wants 3.%d (min_protocol_version)", p.u.minor, p.least)
	}
	switch code {
	case authOK:
		return p.accepted()
	case authCleartextPassword:
		if p.u.tls == "" {
			return errors.New("the server asks for the account's secret in clear over a connection without TLS")
		}
		if err := p.permitted("password"); err != nil {
			return err
		}
		p.asked = true
		return p.send([]byte(p.l.password), []byte{0})
	case authSASL:
		return p.begin(data)
	case authSASLContinue:
		return p.step(data, true)
	case authSASLFinal:
		return p.step(data, false)
	}
	return fmt.Errorf("the server asks for authentication method %d, which an account has no use for: its pg_hba.conf must say scram-sha-256", code)
}

// accepted looks at what the server had to prove before it let us in.
func (p *prover) accepted() error {
	switch {
	case p.scram != nil && !p.scram.Valid():
		return errors.New("the server did not prove that it knows the account's secret")
	case p.l.conn.ChannelBinding == "require" && !p.plus:
		return errors.New("the server let the account in without channel binding, which the target's URL requires")
	case p.scram == nil && !p.asked:
		if err := p.permitted("none"); err != nil {
			return err
		}
	}
	p.done = true
	return nil
}

// permitted holds a method against the URL's require_auth and channel_binding, before anything is said.
func (p *prover) permitted(method string) error {
	if p.l.conn.ChannelBinding == "require" && !p.plus {
		return errors.New("the server offers no channel binding, which the target's URL requires")
	}
	if p.l.conn.RequireAuth == "" {
		return nil
	}
	names := strings.Split(p.l.conn.RequireAuth, ",")
	negated := strings.HasPrefix(strings.TrimSpace(names[0]), "!")
	listed := slices.ContainsFunc(names, func(name string) bool {
		return strings.TrimPrefix(strings.TrimSpace(name), "!") == method
	})
	if listed == negated {
		return fmt.Errorf("the server asks for the authentication method %s, which the target's URL does not allow (require_auth)", method)
	}
	return nil
}

func (p *prover) send(parts ...[]byte) error {
	_, err := p.u.conn.Write(appendMessage(nil, msgPassword, parts...))
	return err
}

// begin opens the SCRAM conversation, bound to the server's certificate where both sides can. The account's
// secret is random, so its verifier may use a single iteration, and that must not be refused here.
func (p *prover) begin(mechanisms []byte) error {
	if p.scram != nil {
		return errors.New("SASL message out of turn")
	}
	offered := map[string]bool{}
	for {
		name, rest, ok := cstring(mechanisms)
		if !ok || len(name) == 0 {
			break
		}
		offered[string(name)] = true
		mechanisms = rest
	}
	binds := p.u.bound.IsSupported() && p.l.conn.ChannelBinding != "disable"
	p.plus = binds && offered[mechanismPlus]
	if !p.plus && !offered[mechanism] {
		return errors.New("the server offers no SASL mechanism that is known here")
	}
	if err := p.permitted("scram-sha-256"); err != nil {
		return err
	}
	c, err := scram.SHA256.NewClient("", p.l.password, "")
	if err != nil {
		return errors.New("the account's secret can't be used with SCRAM")
	}
	c, name := c.WithMinIterations(1), mechanism
	switch {
	case p.plus:
		p.scram, name = c.NewConversationWithChannelBinding(p.u.bound), mechanismPlus
	case binds: // says so, and a server whose offer somebody shortened will notice
		p.scram = c.NewConversationAdvertisingChannelBinding()
	default:
		p.scram = c.NewConversation()
	}
	first, err := p.scram.Step("")
	if err != nil {
		return err
	}
	size := binary.BigEndian.AppendUint32(nil, uint32(len(first)))
	return p.send([]byte(name), []byte{0}, size, []byte(first))
}

func (p *prover) step(data []byte, answer bool) error {
	if p.scram == nil {
		return errors.New("SASL message out of turn")
	}
	if _, n, ok := strings.Cut(string(data), ",i="); ok && answer {
		n, _, _ = strings.Cut(n, ",")
		if i, err := strconv.Atoi(n); err != nil || i > iterationsMost {
			return errors.New("the server wants too many iterations of the account's secret")
		}
	}
	reply, err := p.scram.Step(string(data))
	if err != nil {
		return fmt.Errorf("scram: %w", err)
	}
	if !answer {
		return nil
	}
	return p.send([]byte(reply))
}
