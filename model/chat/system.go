package chat

import "strings"

// What WithSystem puts before a template, up to the message and after it.
const (
	systemBegin = "{#- default system message -#}{%- if not messages or messages[0]['role'] != 'system' -%}{%- set messages = [{'role': 'system', 'content': \""
	systemEnd   = "\"}] + messages -%}{%- endif -%}{#- end of the default system message -#}"
)

// WithSystem returns a template that gives conversations which do not begin with
// a system message the given one. It takes the place of one that WithSystem gave
// before; with an empty prompt there is then none.
func WithSystem(source, prompt string) string {
	if rest, ok := strings.CutPrefix(source, systemBegin); ok {
		if _, after, ok := strings.Cut(rest, systemEnd); ok {
			source = after
		}
	}
	if prompt == "" {
		return source
	}
	return systemBegin + quote.Replace(prompt) + systemEnd + source
}

// quote writes the inside of a string with the escapes that Jinja, its rewritings
// and Updraft's engine all read. Other characters stand for themselves.
var quote = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)
