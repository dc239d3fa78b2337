package tokenizer

import "unicode/utf8"

// Stream decodes token by token and never splits a character.
type Stream struct {
	t    *Tokenizer
	tail []byte
}

// Stream returns a streaming decoder.
func (t *Tokenizer) Stream() *Stream { return &Stream{t: t} }

// Push adds a token and returns the text that is complete by now. What Push
// and Flush return, one after the other, is what Decode returns.
func (s *Stream) Push(id int32) string {
	s.tail = append(s.tail, s.t.piece(id)...)
	n := len(s.tail)
	for i := 1; i <= min(utf8.UTFMax-1, n); i++ {
		if b := s.tail[n-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(s.tail[n-i:]) {
				n -= i
			}
			break
		}
	}
	text := string(s.tail[:n])
	s.tail = append(s.tail[:0], s.tail[n:]...)
	return text
}

// Flush returns what is left: nothing, or the first bytes of a character whose
// others never came.
func (s *Stream) Flush() string {
	text := string(s.tail)
	s.tail = s.tail[:0]
	return text
}
