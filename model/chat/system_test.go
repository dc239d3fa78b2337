package chat

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// awkward is a prompt with everything that a template could take for its own.
const awkward = "Say \"done\", it's {{ user }} and {% if x %} {# no #} %} }} \\n \\\n\ttab, ünïcode 你好 🙂 </unknown>"

// A template with a system message of its own for all who bring none writes what
// it writes for a conversation that begins with that message.
func TestWithSystem(t *testing.T) {
	for _, source := range []string{
		"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
		"{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = 'default' %}{%- endif %}S:{{ system_message }}{% for message in messages %}|{{ loop.index0 }}{{ message['content'] }}{% endfor %}",
	} {
		plain, err := Parse(source, nil)
		require.NoError(t, err)
		require.Equal(t, source, plain.Source())
		for _, prompt := range []string{"Be brief.", awkward, `\`, `"`, " \n "} {
			text := WithSystem(source, prompt)
			with, err := Parse(text, nil)
			require.NoError(t, err)
			user := []Message{{Role: "user", Content: "hi"}, {Role: "assistant", Content: "ho"}}
			system := append([]Message{{Role: "system", Content: prompt}}, user...)
			want, err := plain.Render(Conversation{Messages: system, AddGenerationPrompt: true})
			require.NoError(t, err)
			got, err := with.Render(Conversation{Messages: user, AddGenerationPrompt: true})
			require.NoError(t, err)
			require.Equal(t, want, got)
			// Who brings a system message keeps it.
			other := append([]Message{{Role: "system", Content: "mine"}}, user...)
			want, err = plain.Render(Conversation{Messages: other})
			require.NoError(t, err)
			got, err = with.Render(Conversation{Messages: other})
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, WithSystem(source, "new"), WithSystem(text, "new"), "replaced, not stacked")
			require.Equal(t, source, WithSystem(text, ""))
		}
	}
}
