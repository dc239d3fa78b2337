// Package chat writes conversations as the text that a model was trained on,
// by the chat template of its checkpoint: a Jinja program, rendered as Hugging
// Face's apply_chat_template renders it.
//
// The engine is github.com/ardanlabs/jinja. It departs from Jinja in places
// that chat templates reach, so Parse hands it a rewritten template
// (rewrite.go) and Render its own functions (functions.go). Put right that way:
//
//   - white space control: the engine trims text beyond a neighbouring {{ }},
//     and keeps the newline that ends a template;
//   - variables set in a loop: Jinja forgets them with each turn, the engine
//     keeps them to the next;
//   - escapes in string literals other than \n, \t, \\ and quotes;
//   - tojson with indent (keys in another order, < as \u003c) and of floats;
//     None and floats as text; strip, lstrip, rstrip and split of all that
//     Python takes for white space; map by a filter's name; select and
//     selectattr without a test, which panic;
//   - the directives of strftime_now, its time of day;
//   - lists and mappings that a template would change, which Hugging Face's
//     sandbox forbids.
//
// Left as they are: the engine takes an attribute of an undefined value for
// undefined, and 'a' + none for 'a', where Jinja fails; it reads -x|abs as
// -(x|abs), and a ~ none as a. Tuple assignment and the operator * are refused by Parse.
//
// A template is a program of somebody else's. It ends: loops and calls are
// counted. Its recursion and the length of its strings are bounded.
//
// Start reading at Template.
package chat
