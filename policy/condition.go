package policy

import "encoding/json"

// Condition is what must be true for a rule to be about an ask.
type Condition struct {
	Text  string
	Place string // where it is written: file:line
}

// MarshalJSON gives the text.
func (c *Condition) MarshalJSON() ([]byte, error) { return json.Marshal(c.Text) }
