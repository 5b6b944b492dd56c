package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // conditions name time zones, and a container has none of its own

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// MaxCost is how much work one evaluation of a condition may be, in CEL's units: some milliseconds. What
	// takes more has failed, and denies.
	MaxCost = 50_000
	// MaxCondition is how many bytes a condition may have.
	MaxCondition = 4096
)

// Language is what conditions are written in: CEL, with the names that a rule may speak of and their types.
type Language struct {
	env   *cel.Env
	zones sync.Map // of time zones that conditions name: *time.Location
}

// Mistake is what is wrong in a condition's text, and where: line and column begin with 1.
type Mistake struct {
	Line, Column int
	Message      string
}

// The types that conditions see. Tags are the names of the fields there.
type (
	celIdentity struct {
		Issuer  string         `cel:"issuer"`
		Subject string         `cel:"subject"`
		Email   string         `cel:"email"`
		Name    string         `cel:"name"`
		Groups  []string       `cel:"groups"`
		ACR     string         `cel:"acr"`
		AMR     []string       `cel:"amr"`
		MFA     bool           `cel:"mfa"` // the login names mfa among its methods, or the issuer is declared to guarantee it
		Claims  map[string]any `cel:"claims"`
		AuthAge time.Duration  `cel:"auth_age"` // centuries, if the issuer did not say
	}
	celTarget struct {
		Name   string            `cel:"name"`
		Labels map[string]string `cel:"labels"`
	}
	celRequest struct {
		Duration   time.Duration `cel:"duration"`
		Reason     string        `cel:"reason"`
		Ticket     string        `cel:"ticket"`
		Start      time.Time     `cel:"start"` // when the access would begin, if it were approved at once
		BreakGlass bool          `cel:"break_glass"`
	}
	celHistory struct {
		Grants      []celPast `cel:"grants"`
		OpenReviews int       `cel:"open_reviews"`
	}
	celPast struct {
		Target     string    `cel:"target"`
		Level      string    `cel:"level"`
		Start      time.Time `cel:"start"`
		BreakGlass bool      `cel:"break_glass"`
	}
)

// fields are those that a variable has, for whoever mistypes one.
var fields = map[string][]string{
	"identity": {"issuer", "subject", "email", "name", "groups", "acr", "amr", "mfa", "claims", "auth_age"},
	"target":   {"name", "labels"},
	"request":  {"duration", "reason", "ticket", "start", "break_glass"},
	"history":  {"grants", "open_reviews"},
}

// zonedFunction is a function of a timestamp and a time zone.
type zonedFunction struct {
	name, overload string
	of             func(time.Time) int
}

// zoned stand in for CEL's own, which read the zone's file each time.
var zoned = []zonedFunction{
	{overloads.TimeGetFullYear, overloads.TimestampToYearWithTz, time.Time.Year},
	{overloads.TimeGetMonth, overloads.TimestampToMonthWithTz, func(t time.Time) int { return int(t.Month()) - 1 }},
	{overloads.TimeGetDayOfYear, overloads.TimestampToDayOfYearWithTz, func(t time.Time) int { return t.YearDay() - 1 }},
	{overloads.TimeGetDayOfMonth, overloads.TimestampToDayOfMonthZeroBasedWithTz, func(t time.Time) int { return t.Day() - 1 }},
	{overloads.TimeGetDate, overloads.TimestampToDayOfMonthOneBasedWithTz, time.Time.Day},
	{overloads.TimeGetDayOfWeek, overloads.TimestampToDayOfWeekWithTz, func(t time.Time) int { return int(t.Weekday()) }},
	{overloads.TimeGetHours, overloads.TimestampToHoursWithTz, time.Time.Hour},
	{overloads.TimeGetMinutes, overloads.TimestampToMinutesWithTz, time.Time.Minute},
	{overloads.TimeGetSeconds, overloads.TimestampToSecondsWithTz, time.Time.Second},
	{overloads.TimeGetMilliseconds, overloads.TimestampToMillisecondsWithTz, func(t time.Time) int { return t.Nanosecond() / 1e6 }},
}

// NewLanguage makes the language; one is enough for a policy.
func NewLanguage() (*Language, error) {
	l := &Language{}
	named := func(name string) []types.NativeTypeOption {
		return []types.NativeTypeOption{cel.NativeTypeAlias(name), types.ParseStructTags(true)}
	}
	without := &env.LibrarySubset{}
	options := []cel.EnvOption{nil,
		cel.Types(
			cel.NativeTypeFor[celIdentity](named("curfew.Identity")...),
			cel.NativeTypeFor[celTarget](named("curfew.Target")...),
			cel.NativeTypeFor[celRequest](named("curfew.Request")...),
			cel.NativeTypeFor[celPast](named("curfew.Grant")...),
			cel.NativeTypeFor[celHistory](named("curfew.History")...),
		),
		cel.Variable("identity", cel.ObjectType("curfew.Identity")),
		cel.Variable("target", cel.ObjectType("curfew.Target")),
		cel.Variable("level", cel.StringType),
		cel.Variable("request", cel.ObjectType("curfew.Request")),
		cel.Variable("now", cel.TimestampType),
		cel.Variable("frozen", cel.ListType(cel.StringType)),
		cel.Variable("history", cel.ObjectType("curfew.History")),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(MaxCondition),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
	}
	for _, f := range zoned {
		without.ExcludeFunctions = append(without.ExcludeFunctions, env.NewFunction(f.name, env.NewOverload(f.overload, nil, nil)))
		options = append(options, cel.Function(f.name, cel.MemberOverload(f.overload,
			[]*cel.Type{cel.TimestampType, cel.StringType}, cel.IntType, cel.BinaryBinding(func(at, zone ref.Val) ref.Val {
				return l.inZone(at, zone, f.of)
			}))))
	}
	options[0] = cel.StdLib(cel.StdLibSubset(without))
	var err error
	if l.env, err = cel.NewCustomEnv(options...); err != nil {
		return nil, fmt.Errorf("make the language of conditions: %w", err)
	}
	return l, nil
}

func (l *Language) inZone(at, zone ref.Val, of func(time.Time) int) ref.Val {
	t, isTime := at.(types.Timestamp)
	name, isText := zone.(types.String)
	if !isTime || !isText {
		return types.MaybeNoSuchOverloadErr(at)
	}
	loc, err := l.zone(string(name))
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Int(of(t.In(loc)))
}

// zone gives a time zone by its name, or by its distance from UTC: +02:00.
func (l *Language) zone(name string) (*time.Location, error) {
	if loc, ok := l.zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	if at, err := time.Parse("-07:00", name); err == nil {
		_, offset := at.Zone()
		return time.FixedZone(name, offset), nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("there is no time zone %q: write it like Europe/Berlin or +02:00", name)
	}
	return loc, nil
}

// Compile checks a condition and makes it ready. Everything that is wrong with it is told at once.
func (l *Language) Compile(text string) (*Condition, []Mistake) {
	if len(text) > MaxCondition {
		return nil, []Mistake{{1, 1, fmt.Sprintf("is longer than %d bytes", MaxCondition)}}
	}
	if strings.TrimSpace(text) == "" {
		return nil, []Mistake{{1, 1, "says nothing: write what must be true, or leave the key out"}}
	}
	parsed, issues := l.env.Parse(text)
	if issues.Err() != nil {
		return nil, mistakes(text, issues)
	}
	zones := l.learnZones(parsed)
	checked, issues := l.env.Check(parsed)
	if wrong := append(mistakes(text, issues), zones...); len(wrong) > 0 {
		return nil, wrong
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		what := t.String()
		if t.IsExactType(cel.DynType) {
			what = "of any kind, as far as one can know; compare it with something"
		}
		return nil, []Mistake{{1, 1, "must be true or false, and is " + what}}
	}
	c := &Condition{Text: text, language: l, source: checked}
	c.recalls = c.reads("history")
	limit := cel.CostLimit(MaxCost)
	var err error
	if c.program, err = l.env.Program(checked, limit, cel.EvalOptions(cel.OptOptimize)); err == nil {
		c.partial, err = l.env.Program(checked, limit, cel.EvalOptions(cel.OptOptimize, cel.OptPartialEval))
	}
	if err != nil {
		return nil, []Mistake{{1, 1, err.Error()}}
	}
	return c, nil
}

func mistakes(text string, issues *cel.Issues) (wrong []Mistake) {
	for _, e := range issues.Errors() {
		line, column := max(e.Location.Line(), 1), max(e.Location.Column(), 0) // an end of the text that is nowhere has none
		wrong = append(wrong, Mistake{line, column + 1, plain(e.Message, text, line, column)})
	}
	return wrong
}

// learnZones keeps the time zones that a condition names, and tells of those that there are not.
func (l *Language) learnZones(parsed *cel.Ast) (wrong []Mistake) {
	source := parsed.NativeRep()
	for _, call := range ast.MatchDescendants(ast.NavigateAST(source), ast.KindMatcher(ast.CallKind)) {
		c := call.AsCall()
		isZoned := slices.ContainsFunc(zoned, func(f zonedFunction) bool { return f.name == c.FunctionName() })
		if !isZoned || len(c.Args()) != 1 || c.Args()[0].Kind() != ast.LiteralKind {
			continue
		}
		arg := c.Args()[0]
		name, ok := arg.AsLiteral().(types.String)
		if !ok {
			continue
		}
		loc, err := l.zone(string(name))
		if err != nil {
			at := source.SourceInfo().GetStartLocation(arg.ID())
			wrong = append(wrong, Mistake{at.Line(), at.Column() + 1, err.Error()})
			continue
		}
		l.zones.Store(string(name), loc)
	}
	return wrong
}

var (
	undefined   = regexp.MustCompile(`^undefined field '(.*)'$`)
	unexpected  = regexp.MustCompile(`^Syntax error: (.*?) expecting .*$`)
	operator    = regexp.MustCompile(`found no matching overload for '([^']*)' applied to '([^']*)'`)
	lastWord    = regexp.MustCompile(`(\w+)\s*$`)
	oneOperator = strings.NewReplacer("_", "", "@", "")
)

// plain says CEL's complaints as people would.
func plain(message, text string, line, column int) string {
	if m := undefined.FindStringSubmatch(message); m != nil {
		lines := strings.Split(text, "\n")
		before := []rune(lines[line-1])
		if w := lastWord.FindString(string(before[:min(column, len(before))])); fields[strings.TrimSpace(w)] != nil {
			w = strings.TrimSpace(w)
			return fmt.Sprintf("%s has no field %q; it has %s", w, m[1], strings.Join(fields[w], ", "))
		}
	}
	message = unexpected.ReplaceAllString(message, "Syntax error: $1")
	message = strings.TrimSuffix(strings.Replace(message, " (in container '')", "", 1), " ")
	return operator.ReplaceAllStringFunc(message, func(s string) string {
		m := operator.FindStringSubmatch(s)
		return fmt.Sprintf("%s can't be applied to %s", oneOperator.Replace(m[1]), m[2])
	})
}
