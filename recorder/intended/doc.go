// Package intended says of what was run under a grant what of it was inside the SQL that its request was
// approved with, and what was not.
//
// Statements are compared as their database reads them, one by one, in whatever order and however often:
// a text of several is split. White space, comments, the case of keywords and what ends a statement make no
// difference; names, literals and operators do. A parameter ($1, ?) in the intended text is one in the statement
// that was run, whatever value was bound to it; a literal is the same literal. Passwords are compared as the recording has
// them: taken out.
//
// Where the text alone does not tell how the server reads it (a backslash in a literal, code in a comment), only
// the very same bytes are the same. So it may call a statement outside that means the same as one inside, and calls none
// inside that was not agreed to. Memory is bounded whatever the recording's size.
package intended
