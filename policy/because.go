package policy

import (
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// because says which parts of a condition make it false, each with the values that it looked at.
func (c *Condition) because(a *asking) []string {
	if c.source == nil {
		return []string{"its condition was never checked"}
	}
	var all []string
	for _, part := range c.falseParts(c.source.NativeRep().Expr(), a) {
		text, err := cel.ExprToString(part, c.source.NativeRep().SourceInfo())
		if err != nil {
			text = c.line()
		}
		why := "its condition does not hold: " + text
		for _, value := range c.looksAt(part, a) {
			why += "; " + value
		}
		all = append(all, why)
	}
	return all
}

// falseParts follows ands and ors down to what is false in them.
func (c *Condition) falseParts(e ast.Expr, a *asking) []ast.Expr {
	if e.Kind() == ast.CallKind && (e.AsCall().FunctionName() == operators.LogicalAnd || e.AsCall().FunctionName() == operators.LogicalOr) {
		var all []ast.Expr
		for _, arg := range e.AsCall().Args() {
			if v, err := c.part(arg, a); err == nil && v == types.False {
				all = append(all, c.falseParts(arg, a)...)
			}
		}
		if all != nil {
			return all
		}
	}
	return []ast.Expr{e}
}

// looksAt gives the operands of a comparison with their values.
func (c *Condition) looksAt(e ast.Expr, a *asking) (values []string) {
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	for _, arg := range args {
		if arg.Kind() == ast.LiteralKind || arg.Kind() == ast.ListKind {
			continue
		}
		text, err := cel.ExprToString(arg, c.source.NativeRep().SourceInfo())
		if err != nil {
			continue
		}
		if v, err := c.part(arg, a); err == nil {
			values = append(values, text+" is "+show(v))
		}
	}
	return values
}

// part evaluates a part of the condition by itself.
func (c *Condition) part(e ast.Expr, a *asking) (ref.Val, error) {
	text, err := cel.ExprToString(e, c.source.NativeRep().SourceInfo())
	if err != nil {
		return nil, err
	}
	checked, issues := c.language.env.Compile(text)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	program, err := c.language.env.Program(checked, cel.CostLimit(MaxCost))
	if err != nil {
		return nil, err
	}
	v, _, err := program.Eval(a.bind(c.language))
	return v, err
}

// show writes a value for people.
func show(v ref.Val) string {
	switch v := v.(type) {
	case types.Duration:
		if v.Duration >= unproven {
			return "unknown"
		}
		return span(v.Duration)
	case types.Timestamp:
		return v.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	text := types.Format(v)
	if len([]rune(text)) > 120 {
		text = fmt.Sprintf("%.119s…", text)
	}
	return text
}
