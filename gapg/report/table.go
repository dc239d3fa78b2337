package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// TableOptions says how WriteTable prints.
type TableOptions struct {
	// Width is the number of columns of the terminal; columns that do not fit
	// are left out, the least important first. Zero: everything is printed.
	Width int
	// Reference marks this method's row; "gapg" if empty.
	Reference string
}

// tableColumn is a column of the terminal table. Keep orders what goes when
// the terminal is narrow: the largest goes first.
type tableColumn struct {
	head string
	keep int
	cell func(*Method) string
}

var tableColumns = []tableColumn{
	{"overall", 0, func(m *Method) string { return plainPercent(&m.OverallAccuracy) }},
	{"95 % interval", 2, func(m *Method) string {
		if !m.hasInterval() {
			return ""
		}
		return fmt.Sprintf("%.1f to %.1f", m.CI95[0]*100, m.CI95[1]*100)
	}},
	{"difference", 5, func(m *Method) string {
		if m.Difference == nil {
			return ""
		}
		return plain(fmt.Sprintf("%s (%s, %s)", points(m.Difference.Mean, 1), points(m.Difference.Lo, 1), points(m.Difference.Hi, 1)))
	}},
	{"device", 3, func(m *Method) string { return plainPercent(m.DeviceAccuracy) }},
	{"solo", 4, func(m *Method) string { return plainPercent(m.SoloAccuracy) }},
	{"calls", 0, func(m *Method) string { return plainPercent(&m.CloudRatio) }},
	{"natural", 6, func(m *Method) string { return plainPercent(m.NaturalCloudRatio) }},
	{"PGR", 1, func(m *Method) string { return plainPercent(m.PGR) }},
	{"APGR", 7, func(m *Method) string { return plainPercent(m.APGR) }},
	{"help prec.", 2, func(m *Method) string { return plainPercent(m.HelpPrecision) }},
	{"recall", 3, func(m *Method) string { return plainPercent(m.HelpRecall) }},
	{"$/1,000", 8, func(m *Method) string {
		if m.CostPer1000 == nil {
			return ""
		}
		return plain(strings.TrimPrefix(dollars(*m.CostPer1000), "$"))
	}},
}

// WriteTable prints the comparison as aligned plain text, percents without
// their sign. A column that no method fills is left out. The reference's row
// is marked by an asterisk.
func WriteTable(w io.Writer, methods []Method, opt TableOptions) error {
	if len(methods) == 0 {
		return nil
	}
	if opt.Reference == "" {
		opt.Reference = "gapg"
	}
	names := make([]string, len(methods))
	nameWidth := len("method")
	for i, m := range methods {
		names[i] = strings.Map(oneLine, visible(m.Name))
		if m.Name == opt.Reference {
			names[i] += " *"
		}
		nameWidth = max(nameWidth, utf8.RuneCountInString(names[i]))
	}

	type column struct {
		tableColumn
		cells []string
		width int
	}
	var cols []column
	total := nameWidth
	for _, tc := range tableColumns {
		c := column{tableColumn: tc, width: utf8.RuneCountInString(tc.head)}
		filled := false
		for i := range methods {
			cell := tc.cell(&methods[i])
			if cell == "" {
				cell = "-"
			} else {
				filled = true
			}
			c.cells = append(c.cells, cell)
			c.width = max(c.width, utf8.RuneCountInString(cell))
		}
		if filled {
			cols = append(cols, c)
			total += 2 + c.width
		}
	}
	for opt.Width > 0 && total > opt.Width {
		worst := -1
		for i, c := range cols {
			if c.keep > 0 && (worst < 0 || c.keep >= cols[worst].keep) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		total -= 2 + cols[worst].width
		cols = append(cols[:worst], cols[worst+1:]...)
	}

	var b strings.Builder
	pad := func(s string, width int) string {
		return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
	}
	b.WriteString("method" + pad("method", nameWidth))
	for _, c := range cols {
		b.WriteString("  " + pad(c.head, c.width) + c.head)
	}
	b.WriteString("\n" + strings.Repeat("-", total) + "\n")
	for i := range methods {
		b.WriteString(names[i] + pad(names[i], nameWidth))
		for _, c := range cols {
			b.WriteString("  " + pad(c.cells[i], c.width) + c.cells[i])
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plainPercent prints a share as percent without its sign, "" if there is none.
func plainPercent(v *float64) string {
	if v == nil || notFinite(*v) {
		return ""
	}
	return plain(strings.TrimSuffix(percent(*v, 1), nbsp+"%"))
}

// plain replaces typographic characters for terminals.
func plain(s string) string {
	return strings.NewReplacer("−", "-", nbsp, " ", "±", "").Replace(s)
}

// oneLine turns what would break a row into a space.
func oneLine(r rune) rune {
	if r == '\n' || r == '\t' {
		return ' '
	}
	return r
}
