package render

// Lines is text, escaped, in lines of at most width columns: broken at spaces and
// between wide characters, and where there are none, anywhere. At least one line.
func Lines(text string, width int) []string {
	return wrap(Escape(text), width, true)
}
