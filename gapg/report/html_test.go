package report

import (
	"bytes"
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// -samples DIR keeps the rendered sample reports, to be looked at.
var samples = flag.String("samples", "", "write the sample reports into this directory")

func render(t *testing.T, d Data) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Render(&b, d))
	wellFormed(t, b.String())
	return b.String()
}

// wellFormed parses a page as strict XML: every tag closed, every attribute
// quoted, every reference known; and checks that ids are unique, that numbers
// in drawings are finite and that nothing is to be loaded.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	require.True(t, strings.HasPrefix(page, "<!DOCTYPE html>"))
	dec := xml.NewDecoder(strings.NewReader(page))
	ids := map[string]bool{}
	number := regexp.MustCompile(`^-?\d+(\.\d+)?$`)
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err, "at byte %d: …%s…", dec.InputOffset(), page[max(0, int(dec.InputOffset())-120):min(len(page), int(dec.InputOffset())+40)])
		el, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch el.Name.Local {
		case "link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "foreignObject":
			t.Fatalf("<%s> in a report", el.Name.Local)
		}
		for _, a := range el.Attr {
			switch a.Name.Local {
			case "id":
				require.False(t, ids[a.Value], "id %q twice", a.Value)
				ids[a.Value] = true
			case "src", "href", "srcset", "action", "poster":
				t.Fatalf("%s=%q on <%s>", a.Name.Local, a.Value, el.Name.Local)
			case "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "width", "height":
				if el.Name.Local == "meta" {
					continue
				}
				require.Regexp(t, number, a.Value, "<%s %s>", el.Name.Local, a.Name.Local)
				v, err := strconv.ParseFloat(a.Value, 64)
				require.NoError(t, err)
				require.Less(t, math.Abs(v), 5000.0, "<%s %s>", el.Name.Local, a.Name.Local)
			case "points", "viewBox", "data-x", "data-y":
				require.NotContains(t, a.Value, "NaN")
				require.NotContains(t, a.Value, "Inf")
			}
			require.False(t, strings.HasPrefix(a.Name.Local, "on"), "inline handler %s", a.Name.Local)
		}
	}
	require.NotRegexp(t, `(?i)https?://|url\((?:[^#)]|$)|@import|@font-face`, stripText(page))
}

// stripText removes character data, where prompts may well hold addresses,
// but keeps style and script.
func stripText(page string) string {
	dec := xml.NewDecoder(strings.NewReader(page))
	var b strings.Builder
	keep := false
	for {
		tok, err := dec.Token()
		if err != nil {
			return b.String()
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			keep = tok.Name.Local == "style" || tok.Name.Local == "script"
			for _, a := range tok.Attr {
				if a.Name.Local != "aria-label" && !strings.HasPrefix(a.Name.Local, "data-") {
					b.WriteString(a.Value + "\n")
				}
			}
		case xml.EndElement:
			keep = false
		case xml.CharData:
			if keep {
				b.Write(tok)
			}
		}
	}
}

func TestSamples(t *testing.T) {
	full := render(t, sampleData())
	interim := sampleData()
	interim.Progress = "step 40 of 90"
	interim.Methods, interim.BudgetCurves, interim.Transcripts = nil, nil, interim.Transcripts[:2]
	part := render(t, interim)
	runs := render(t, sampleRuns())
	if *samples != "" {
		for name, page := range map[string]string{"full.html": full, "interim.html": part, "runs.html": runs} {
			require.NoError(t, os.WriteFile(filepath.Join(*samples, name), []byte(page), 0o666))
		}
	}
}
