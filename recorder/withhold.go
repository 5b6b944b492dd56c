package recorder

// ParametersTypes is the Header's word for a recording without the values of parameters.
const ParametersTypes = "types"

// withhold gives the event without the values of parameters: of a statement, of what continues it, and of what is sent
// ahead of it. What they are of, and which are NULL, stays. The caller holds mu.
func (w *Writer) withhold(e *Event) *Event {
	out := *e
	switch {
	case e.Type == TypeStatement && e.Field == FieldParam:
		w.ahead, out.Text = e.ID, nil
	case e.Type == TypePart && (e.Field == FieldParam || e.Of != 0 && e.Of == w.ahead):
		out.Text = nil
	case e.Type == TypeStatement:
		w.ahead = 0
	}
	if len(e.Params) > 0 {
		w.params = append(w.params[:0], e.Params...)
		for i := range w.params {
			if p := &w.params[i]; !p.Null {
				p.Value, p.Hex, p.Withheld = nil, false, true
			}
		}
		out.Params = w.params
	}
	return &out
}
