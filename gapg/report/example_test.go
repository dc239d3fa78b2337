package report_test

import (
	"os"

	"github.com/updraft-ml/updraft/gapg/report"
)

// The comparison as the command line prints it.
func ExampleWriteTable() {
	methods := []report.Method{
		{Name: "task-tuning", OverallAccuracy: 0.667, SoloAccuracy: new(0.667), PGR: new(0.0)},
		{Name: "gapg", OverallAccuracy: 0.912, SoloAccuracy: new(0.683), CloudRatio: 0.294, PGR: new(0.904), CI95: [2]float64{0.894, 0.93}},
		{Name: "cloud", OverallAccuracy: 0.938, CloudRatio: 1, PGR: new(1.0)},
	}
	report.WriteTable(os.Stdout, methods, report.TableOptions{Width: 80})
	// Output:
	// method       overall  95 % interval  solo  calls    PGR
	// -------------------------------------------------------
	// task-tuning     66.7              -  66.7    0.0    0.0
	// gapg *          91.2   89.4 to 93.0  68.3   29.4   90.4
	// cloud           93.8              -     -  100.0  100.0
}
