package api

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
)

// stepUp shows what a new login has to show.
func (p *Problem) stepUp(a auth.Asked) *Problem {
	p.ACRValues, p.AMR = a.ACR, a.AMR
	if a.MaxAge != nil {
		seconds := int(*a.MaxAge / time.Second)
		p.MaxAge = &seconds
	}
	return p
}

// GetHeaders implements huma.HeadersError: the challenge of RFC 9470 section 3.
func (p *Problem) GetHeaders() http.Header {
	switch {
	case p.Status != http.StatusUnauthorized:
		return nil
	case p.Code != CodeStepUp:
		return http.Header{"Www-Authenticate": {`Bearer realm="curfew"`}}
	}
	challenge := `Bearer realm="curfew", error="insufficient_user_authentication", error_description="a new login is needed that shows more"`
	if len(p.ACRValues) > 0 {
		challenge += fmt.Sprintf(", acr_values=%q", strings.Join(p.ACRValues, " "))
	}
	if p.MaxAge != nil {
		challenge += fmt.Sprintf(`, max_age="%d"`, *p.MaxAge)
	}
	return http.Header{"Www-Authenticate": {challenge}}
}

// StepUp is the login that answers a problem with CodeStepUp. The client's own session is replaced by it.
func (p *Problem) StepUp() LoginStart {
	return LoginStart{ACRValues: p.ACRValues, AMR: p.AMR, MaxAge: p.MaxAge}
}

func (s LoginStart) asked() auth.Asked {
	a := auth.Asked{ACR: s.ACRValues, AMR: s.AMR}
	if s.MaxAge != nil {
		age := time.Duration(*s.MaxAge) * time.Second
		a.MaxAge = &age
	}
	return a
}

func explainStepUp(e *control.Error) *Problem {
	p := NewProblem(e.Code, e.Public, e.Next).Because(e)
	if e.StepUp != nil {
		p.stepUp(control.Asked(*e.StepUp))
	}
	return p
}
