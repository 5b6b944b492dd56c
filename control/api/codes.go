package api

// CodeMeaning documents one code of a Problem.
type CodeMeaning struct {
	Code    string
	Status  int
	Meaning string // what has happened
	Next    string // what a program does about it
}

// Codes is the closed set of what a Problem's code may be, in the order of the HTTP statuses.
func Codes() []CodeMeaning {
	table := []CodeMeaning{
		{Code: CodeUnauthenticated, Meaning: "There is no session token, or it is not good any more.", Next: "Log in again, or get a new token."},
		{Code: CodeStepUp, Meaning: "The login is too weak or too old for this; acr_values and max_age say what is wanted (RFC 9470).",
			Next: "Log in again with acr_values and max_age, then send the call again."},
		{Code: CodeForbidden, Meaning: "The person sees it and may not do this to it.", Next: "Nothing: another person has to."},
		{Code: CodePolicy, Meaning: "No rule of the policy allows it.", Next: "Ask for something else: GET /v1/targets says what."},
		{Code: CodeNotFound, Meaning: "It does not exist, or this person may not know that it does.", Next: "Look it up in a list."},
		{Code: CodeConflict, Meaning: "It is not in a state for this any more, or it was done before.", Next: "Read it again: its state says what happened."},
		{Code: CodeTooLarge, Meaning: "The body is larger than 64 KiB.", Next: "Send less."},
		{Code: CodeInvalid, Meaning: "The call is malformed, or fields are wrong; errors names all of them.", Next: "Correct it. Some malformed calls have status 400, and one whose body breaks off has 408."},
		{Code: CodeInternal, Meaning: "A fault in Curfew. The log has the incident number that the answer names.", Next: "Try again; if it stays, report the incident."},
		{Code: CodeUnavailable, Meaning: "Something that Curfew needs can't be used: the store, the provider. Nothing was changed, unless the answer says so.",
			Next: "Try again, with an Idempotency-Key, and more slowly each time."},
	}
	for i := range table {
		table[i].Status = statusOf(table[i].Code)
	}
	return table
}
