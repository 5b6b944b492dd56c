package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/curfewdb/curfew/auth"
)

// Condition is what must be true for a rule to be about an ask. (*Language).Compile makes it; one that was
// made otherwise can't be evaluated, which denies.
type Condition struct {
	Text  string
	Place string // where it is written: file:line

	language *Language
	source   *cel.Ast
	program  cel.Program
	partial  cel.Program // for what is not known
	recalls  bool        // it speaks of the past
}

// MarshalJSON gives the text.
func (c *Condition) MarshalJSON() ([]byte, error) { return json.Marshal(c.Text) }

// FailedError says that a condition could not be evaluated: whatever was asked, it is denied.
type FailedError struct {
	Rule  string
	Place string
	Err   error
}

func (e *FailedError) Error() string {
	if e.Place == "" {
		return fmt.Sprintf("the condition of rule %q can't be evaluated: %v", e.Rule, e.Err)
	}
	return fmt.Sprintf("%s: the condition of rule %q can't be evaluated: %v", e.Place, e.Rule, e.Err)
}

func (e *FailedError) Unwrap() error { return e.Err }

var errUncompiled = errors.New("it was never checked")

// holds evaluates the condition of an ask. No condition holds.
func (c *Condition) holds(a *asking) (bool, error) {
	if c == nil {
		return true, nil
	}
	if c.program == nil {
		return false, errUncompiled
	}
	return truth(c.program.Eval(a.bind(c.language)))
}

func truth(v ref.Val, _ *cel.EvalDetails, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("it is %s, neither true nor false", v.Type().TypeName())
	}
	return bool(b), nil
}

// standing is what can be said of a condition while something is unknown.
type standing int

const (
	unknown standing = iota
	always
	never
)

// stands evaluates a condition by what is known of an ask alone.
func (c *Condition) stands(a *asking) (standing, error) {
	if c == nil {
		return always, nil
	}
	if c.partial == nil {
		return unknown, errUncompiled
	}
	vars, err := cel.PartialVars(a.bind(c.language), a.unknown...)
	if err != nil {
		return unknown, err
	}
	v, _, err := c.partial.Eval(vars)
	if err == nil && types.IsUnknown(v) {
		return unknown, nil
	}
	switch yes, err := truth(v, nil, err); {
	case err != nil:
		return unknown, err
	case yes:
		return always, nil
	}
	return never, nil
}

// asking is an ask as conditions see it.
type asking struct {
	policy *Policy
	who    auth.Identity
	ask    Ask
	target Target
	facts  Facts
	now    time.Time

	unknown []*cel.AttributePatternType

	// What conditions have read so far, made when the first of them did.
	adapt                                      func(any) ref.Val
	identity, about, request, history, freezes ref.Val
}

// unproven is how long ago somebody proved who they are, if the issuer did not say when: no condition takes
// that for recent.
const unproven = 200 * 365 * 24 * time.Hour

func (a *asking) bind(l *Language) *asking {
	if a.adapt == nil {
		a.adapt = l.env.CELTypeAdapter().NativeToValue
	}
	return a
}

// ResolveName gives CEL the value of a variable.
func (a *asking) ResolveName(name string) (any, bool) {
	once := func(v *ref.Val, made func() any) (any, bool) {
		if *v == nil {
			*v = a.adapt(made())
		}
		return *v, true
	}
	switch name {
	case "identity":
		return once(&a.identity, a.seeIdentity)
	case "target":
		return once(&a.about, func() any { return &celTarget{a.ask.Target, a.target.Labels} })
	case "level":
		return types.String(a.ask.Level), true
	case "request":
		return once(&a.request, func() any {
			return &celRequest{a.ask.Duration, a.ask.Reason, a.ask.Ticket, a.ask.begins(a.now), a.ask.BreakGlass}
		})
	case "now":
		return types.Timestamp{Time: a.now}, true
	case "frozen":
		return once(&a.freezes, func() any {
			start := a.ask.begins(a.now)
			return a.policy.frozen(start, start.Add(a.ask.Duration))
		})
	case "history":
		return once(&a.history, a.seeHistory)
	}
	return nil, false
}

func (a *asking) seeIdentity() any {
	age := time.Duration(unproven)
	if !a.who.AuthTime.IsZero() {
		age = a.now.Sub(a.who.AuthTime)
	}
	return &celIdentity{
		Issuer: a.who.Issuer, Subject: a.who.Subject, Email: a.who.Email, Name: a.who.Name, Groups: a.who.Groups,
		ACR: a.who.ACR, AMR: a.who.AMR, MFA: a.who.Declared || slices.Contains(a.who.AMR, "mfa"), Claims: a.who.Claims, AuthAge: age,
	}
}

func (a *asking) seeHistory() any {
	h := &celHistory{OpenReviews: a.facts.OpenReviews, Grants: make([]celPast, len(a.facts.Grants))}
	for i, g := range a.facts.Grants {
		h.Grants[i] = celPast(g)
	}
	return h
}

// Parent is part of CEL's contract: no names come from elsewhere.
func (a *asking) Parent() cel.Activation { return nil }

// begins is when the access would, if it were approved at once.
func (a Ask) begins(now time.Time) time.Time {
	if a.Start.After(now) {
		return a.Start
	}
	return now
}

// frozen names the freezes that [from, to) falls into.
func (p *Policy) frozen(from, to time.Time) []string {
	names := []string{}
	for _, f := range p.Freezes {
		if f.touches(from, to) {
			names = append(names, f.Name)
		}
	}
	return names
}

func (f Freeze) touches(from, to time.Time) bool { return f.From.Before(to) && from.Before(f.To) }

// reads reports whether a condition speaks of a variable.
func (c *Condition) reads(variable string) bool {
	if c == nil || c.source == nil {
		return false
	}
	named := func(e ast.NavigableExpr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == variable }
	return len(ast.MatchDescendants(ast.NavigateAST(c.source.NativeRep()), named)) > 0
}

// ofTheMoment is what belongs to the moment of asking: the request, the time, the past, and what the login
// showed. Who somebody is, and what they ask for, can be judged again at any time.
func ofTheMoment() []*cel.AttributePatternType {
	unknown := []*cel.AttributePatternType{
		cel.AttributePattern("now"), cel.AttributePattern("request"), cel.AttributePattern("frozen"), cel.AttributePattern("history"),
	}
	for _, field := range []string{"acr", "amr", "mfa", "auth_age"} {
		unknown = append(unknown, cel.AttributePattern("identity").QualString(field))
	}
	return unknown
}
