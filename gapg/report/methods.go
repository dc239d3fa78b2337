package report

import (
	"fmt"
	"math"
	"strings"
)

// explanations are the lines under the methods' names.
var explanations = map[string]string{
	"base":                "the small model alone, before post-training",
	"base-help-bias":      "the untrained model with a calibrated bias towards asking",
	"task-tuning":         "reinforcement learning on the task alone, no cloud",
	"naive-offloading":    "task-tuned; a random share of prompts goes to the cloud",
	"router":              "task-tuned; a classifier on the prompt decides before any reasoning",
	"confidence":          "task-tuned; the answer’s own log-probs decide afterwards",
	"self-check":          "task-tuned; a hand-written rule reads the reasoning",
	"collaboration-aware": "hierarchical reward, Dr. GRPO, no prompt filter",
	"gapg":                "group-level policy gradient with adaptive prompt filtering",
	"da-grpo":             "dual ascent on the call budget",
	"cloud":               "every prompt goes to the cloud",
	"oracle":              "an ideal router at the budget: the upper bound",
}

// explain is the line under a method's name.
func (m *Method) explain() string {
	if m.Explanation != "" {
		return m.Explanation
	}
	return explanations[m.Name]
}

// reference is the method that differences are taken to.
func (d *Data) reference() string {
	if d.Reference != "" {
		return d.Reference
	}
	return "gapg"
}

func (d *Data) weak() string {
	if d.Weak != "" {
		return d.Weak
	}
	return "task-tuning"
}

func (d *Data) strong() string {
	if d.Strong != "" {
		return d.Strong
	}
	return "cloud"
}

// method finds a method by name, nil if it is not there.
func (d *Data) method(name string) *Method {
	for i := range d.Methods {
		if d.Methods[i].Name == name {
			return &d.Methods[i]
		}
	}
	return nil
}

// headline is the sentence at the top.
func (d *Data) headline() string {
	if d.Headline != "" {
		return d.Headline
	}
	ref := d.method(d.reference())
	if ref == nil {
		switch {
		case len(d.Runs) > 1:
			return fmt.Sprintf("%d runs side by side", len(d.Runs))
		case d.Progress != "":
			return "Training under way: " + d.Progress
		case d.Task != "":
			return "Updraft on " + d.Task
		}
		return "Updraft run"
	}
	prompts := "held-out problems"
	if d.TestPrompts > 0 {
		prompts = groupDigits(fmt.Sprint(d.TestPrompts)) + " " + prompts
	}
	s := fmt.Sprintf("%s answers %s of %s right with %s cloud calls", displayName(ref.Name),
		percent(ref.OverallAccuracy, 1), prompts, percent(ref.CloudRatio, 1))
	for _, other := range []struct{ name, words string }{
		{"naive-offloading", "the naive split reaches %s"},
		{"router", "a prompt router reaches %s"},
		{d.weak(), "the device alone reaches %s"},
		{"base", "the untrained model alone reaches %s"},
	} {
		if m := d.method(other.name); m != nil && m != ref {
			s += "; " + fmt.Sprintf(other.words, percent(m.OverallAccuracy, 1))
			break
		}
	}
	if d.Progress != "" {
		return "So far, " + s
	}
	return s
}

// standfirst is the paragraph under the headline.
func (d *Data) standfirst() string {
	if d.Standfirst != "" {
		return d.Standfirst
	}
	if d.method(d.reference()) == nil && len(d.Training) == 0 {
		return ""
	}
	s := "A small model on the device reasons first; at the end of its reasoning it answers, or asks a cloud model once."
	if d.Budget > 0 {
		s += fmt.Sprintf(" The cloud may be asked for at most %s of prompts (ρ = %s).", percent(d.Budget, 0), number(d.Budget/(1-d.Budget), 3))
	}
	return s
}

// tiles are the key figures.
func (d *Data) tiles() []Tile {
	if d.Tiles != nil {
		return d.Tiles
	}
	ref := d.method(d.reference())
	if ref == nil {
		return nil
	}
	t := Tile{Label: "Overall accuracy", Value: percent(ref.OverallAccuracy, 1)}
	if ref.hasInterval() {
		t.Note = fmt.Sprintf("95%s%% interval %s–%s", nbsp, strings.TrimSuffix(percent(ref.CI95[0], 1), nbsp+"%"), percent(ref.CI95[1], 1))
	}
	tiles := []Tile{t}
	t = Tile{Label: "Cloud calls", Value: percent(ref.CloudRatio, 1)}
	if d.Budget > 0 {
		t.Note = "of prompts; budget " + percent(d.Budget, 0)
	}
	tiles = append(tiles, t)
	if ref.PGR != nil {
		t := Tile{Label: "Gap recovered", Value: percent(*ref.PGR, 0), Note: fmt.Sprintf("PGR between %s and %s", d.weak(), d.strong())}
		if o := d.method("oracle"); o != nil && o.PGR != nil && o != ref {
			t.Note = fmt.Sprintf("PGR; an ideal router reaches %s", percent(*o.PGR, 0))
		}
		tiles = append(tiles, t)
	}
	if ref.HelpPrecision != nil {
		t := Tile{Label: "Help precision", Value: percent(*ref.HelpPrecision, 1), Note: "of calls were needed"}
		if ref.HelpRecall != nil {
			t.Note += ", recall " + percent(*ref.HelpRecall, 0)
		}
		tiles = append(tiles, t)
	}
	if ref.SoloAccuracy != nil {
		tiles = append(tiles, Tile{Label: "Without the cloud", Value: percent(*ref.SoloAccuracy, 1), Note: "the same model, calls disabled"})
	}
	if ref.CostPer1000 != nil {
		t := Tile{Label: "Cost per 1,000 prompts", Value: dollars(*ref.CostPer1000)}
		if c := d.method("cloud"); c != nil && c.CostPer1000 != nil && c != ref {
			t.Note = "cloud alone: " + dollars(*c.CostPer1000)
		}
		tiles = append(tiles, t)
	}
	return tiles
}

// displayName is a method's name at the start of a sentence.
func displayName(name string) string {
	switch name {
	case "gapg", "da-grpo", "grpo", "rloo", "dapo":
		return strings.ToUpper(name)
	case "dr-grpo":
		return "Dr. GRPO"
	}
	if name == "" {
		return name
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// dollars prints a price.
func dollars(v float64) string {
	switch {
	case notFinite(v):
		return "–"
	case v == 0:
		return "$0"
	case math.Abs(v) < 0.01:
		return "$" + number(v, 2)
	case math.Abs(v) < 100:
		return "$" + fmt.Sprintf("%.2f", v)
	}
	return "$" + number(math.Round(v), 6)
}
