package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// maxDepth bounds how deep Sequence components are nested.
const maxDepth = 8

// component is a normalizer, pre-tokenizer or post-processor: its type, its
// parts where it is a Sequence, and what the supported types need.
type component struct {
	Type           string            `json:"type"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	Normalizers    []json.RawMessage `json:"normalizers"`
	Processors     []json.RawMessage `json:"processors"`
	Pattern        json.RawMessage   `json:"pattern"`
	Behavior       string            `json:"behavior"`
	Invert         bool              `json:"invert"`
	AddPrefixSpace *bool             `json:"add_prefix_space"`
	UseRegex       *bool             `json:"use_regex"`
	Individual     bool              `json:"individual_digits"`
	Single         []json.RawMessage `json:"single"`
	SpecialTokens  map[string]struct {
		IDs []int32 `json:"ids"`
	} `json:"special_tokens"`
}

// readComponent returns nil for null.
func readComponent(field string, raw json.RawMessage) (*component, error) {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var c component
	if err := json.Unmarshal(raw, &c); err != nil || c.Type == "" {
		return nil, unsupported(field, "a component without a known type")
	}
	return &c, nil
}

// kind returns the type of an optional component, "" where it is null.
func kind(raw json.RawMessage) string {
	c, err := readComponent("", raw)
	switch {
	case err != nil:
		return "of unknown type"
	case c == nil:
		return ""
	}
	return clip(c.Type)
}

func readNormalizer(field string, raw json.RawMessage) (nfc bool, err error) {
	c, err := readComponent(field, raw)
	if err != nil || c == nil {
		return false, err
	}
	switch {
	case c.Type == "NFC":
		return true, nil
	case c.Type == "Sequence" && len(c.Normalizers) == 0:
		return false, nil
	case c.Type == "Sequence" && len(c.Normalizers) == 1 && kind(c.Normalizers[0]) == "NFC":
		return true, nil
	case c.Type == "Sequence":
		return false, unsupported(field, "a Sequence of other things than NFC")
	}
	return false, unsupported(field, clip(c.Type))
}

// preTokenizer is the pre-tokenizer of a file.
type preTokenizer struct {
	steps     []splitStep
	byteLevel bool // ends in ByteLevel
}

func readPreTokenizer(field string, raw json.RawMessage) (preTokenizer, error) {
	var p preTokenizer
	err := p.read(field, raw, 0)
	return p, err
}

func (p *preTokenizer) read(field string, raw json.RawMessage, depth int) error {
	c, err := readComponent(field, raw)
	if err != nil || c == nil {
		return err
	}
	if p.byteLevel {
		return unsupported(field, clip(c.Type)+" after ByteLevel")
	}
	switch c.Type {
	case "Sequence":
		if depth == maxDepth {
			return unsupported(field, fmt.Sprintf("a Sequence nested more than %d deep", maxDepth))
		}
		for i, part := range c.PreTokenizers {
			if err := p.read(fmt.Sprintf("%s.pretokenizers[%d]", field, i), part, depth+1); err != nil {
				return err
			}
		}
	case "ByteLevel":
		p.byteLevel = true
		s := splitStep{prefixSpace: c.AddPrefixSpace == nil || *c.AddPrefixSpace}
		if c.UseRegex == nil || *c.UseRegex {
			s.pattern = gpt2Pattern
		}
		if s != (splitStep{}) {
			p.steps = append(p.steps, s)
		}
	case "Digits":
		s := splitStep{digits: digitRuns}
		if c.Individual {
			s.digits = singleDigits
		}
		p.steps = append(p.steps, s)
	case "Split":
		var r struct{ Regex *string }
		if json.Unmarshal(c.Pattern, &r) != nil || r.Regex == nil {
			return unsupported(field+".pattern", "a pattern that is not a Regex")
		}
		known, ok := patterns[*r.Regex]
		if !ok {
			return unsupported(field+".pattern", fmt.Sprintf("the split pattern %q", clip(*r.Regex)))
		}
		// Each of the patterns leaves nothing between its matches: removing what
		// does not match, inverted, is isolating what does.
		if !(c.Behavior == "Isolated" && !c.Invert || c.Behavior == "Removed" && c.Invert) {
			return unsupported(field+".behavior", fmt.Sprintf("%q with invert %v", clip(c.Behavior), c.Invert))
		}
		p.steps = append(p.steps, splitStep{pattern: known})
	default:
		return unsupported(field, clip(c.Type))
	}
	if len(p.steps) > maxDepth {
		return unsupported(field, fmt.Sprintf("a Sequence of more than %d", maxDepth))
	}
	return nil
}

// readPostProcessor returns the ids that it puts before and after a text.
func readPostProcessor(field string, raw json.RawMessage, size int) (before, after []int32, err error) {
	c, err := readComponent(field, raw)
	if err != nil || c == nil {
		return nil, nil, err
	}
	switch c.Type {
	case "ByteLevel": // changes offsets, not ids
		return nil, nil, nil
	case "TemplateProcessing":
		return c.template(field, size)
	case "Sequence":
		templates := 0
		for i, part := range c.Processors {
			name := fmt.Sprintf("%s.processors[%d]", field, i)
			switch k := kind(part); k {
			case "ByteLevel":
			case "TemplateProcessing":
				if templates++; templates > 1 {
					return nil, nil, unsupported(name, "a second TemplateProcessing")
				}
				if before, after, err = readPostProcessor(name, part, size); err != nil {
					return nil, nil, err
				}
			default:
				return nil, nil, unsupported(name, k)
			}
		}
		return before, after, nil
	}
	return nil, nil, unsupported(field, clip(c.Type))
}

// template reads a TemplateProcessing for one text.
func (c *component) template(field string, size int) (before, after []int32, err error) {
	texts := 0
	for i, raw := range c.Single {
		var p struct {
			SpecialToken, Sequence *struct{ ID string }
		}
		name := fmt.Sprintf("%s.single[%d]", field, i)
		switch err := json.Unmarshal(raw, &p); {
		case err == nil && p.Sequence != nil && p.Sequence.ID == "A" && texts == 0:
			texts++
		case err == nil && p.SpecialToken != nil:
			t, ok := c.SpecialTokens[p.SpecialToken.ID]
			if !ok {
				return nil, nil, fmt.Errorf("tokenizer: %s: token %q is not in special_tokens; add it there", name, clip(p.SpecialToken.ID))
			}
			for _, id := range t.IDs {
				if id < 0 || int(id) >= size {
					return nil, nil, fmt.Errorf("tokenizer: %s: id %d of token %q is outside the vocabulary of %d", name, id, clip(p.SpecialToken.ID), size)
				}
			}
			if texts == 0 {
				before = append(before, t.IDs...)
			} else {
				after = append(after, t.IDs...)
			}
		default:
			return nil, nil, unsupported(name, "other than a SpecialToken or one Sequence A")
		}
	}
	if texts == 0 {
		return nil, nil, fmt.Errorf("tokenizer: %s.single: has no Sequence A, so that a text would be lost; add it", field)
	}
	return before, after, nil
}

// byteLevelJSON is ByteLevel as a decoder, and as a pre-tokenizer that splits
// nothing.
const byteLevelJSON = `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}`

// preTokenizerJSON describes steps, and ByteLevel after them.
func preTokenizerJSON(steps []splitStep) json.RawMessage {
	var parts []any
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
	for i, s := range steps {
		switch {
		case s.digits != noDigits:
			parts = append(parts, map[string]any{"type": "Digits", "individual_digits": s.digits == singleDigits})
		case i == len(steps)-1 && (s.prefixSpace || s.pattern == gpt2Pattern):
			byteLevel["add_prefix_space"], byteLevel["use_regex"] = s.prefixSpace, s.pattern == gpt2Pattern
		default:
			for text, p := range patterns {
				if p == s.pattern {
					parts = append(parts, map[string]any{"type": "Split", "pattern": map[string]string{"Regex": text}, "behavior": "Isolated", "invert": false})
				}
			}
		}
	}
	b, _ := json.Marshal(map[string]any{"type": "Sequence", "pretokenizers": append(parts, byteLevel)}) // strings and booleans always marshal
	return b
}

// postProcessorJSON describes what stands before and after a text.
func postProcessorJSON(before, after []int32, tokens []string) json.RawMessage {
	if len(before)+len(after) == 0 {
		return nil
	}
	special := map[string]any{}
	single := []any{}
	put := func(ids []int32) {
		for _, id := range ids {
			name := tokens[id]
			special[name] = map[string]any{"id": name, "ids": []int32{id}, "tokens": []string{name}}
			single = append(single, map[string]any{"SpecialToken": map[string]any{"id": name, "type_id": 0}})
		}
	}
	put(before)
	single = append(single, map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}})
	put(after)
	pair := append(slices.Clone(single), map[string]any{"Sequence": map[string]any{"id": "B", "type_id": 1}})
	b, _ := json.Marshal(map[string]any{"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
	return b
}
