package report

import "time"

// Data is everything that a report shows. Every part is optional: what is
// empty is left out, so that the same Render serves a report refreshed during
// training, the final one and a comparison of several runs. Strings may hold
// anything (prompts and answers of models do): they are escaped.
type Data struct {
	// Task is the name of the task, e.g. "countdown".
	Task string
	// Created is when the report was made; not shown if zero.
	Created time.Time
	// Progress says how far an unfinished run is, e.g. "step 40 of 90". It is
	// shown beside the date and makes the headline speak of an interim result.
	Progress string
	// Headline is the sentence at the top; made from Methods if empty.
	Headline string
	// Standfirst is the paragraph under the headline; made if empty.
	Standfirst string
	// Budget is the largest share of prompts that may go to the cloud, [0, 1).
	// Zero: no budget is drawn.
	Budget float64
	// TestPrompts is the number of held-out prompts behind Methods.
	TestPrompts int
	// Tiles are the key figures; made from Methods if nil.
	Tiles []Tile

	// Methods is the comparison, in the order of the table.
	Methods []Method
	// Reference is the method that differences are taken to; "gapg" if empty.
	Reference string
	// Weak and Strong name the methods that PGR stands on; "task-tuning" and
	// "cloud" if empty.
	Weak, Strong string
	// BudgetCurves are accuracies over the share of prompts sent to the cloud.
	BudgetCurves []BudgetCurve

	// Training holds the charts over training steps; see TrainingCharts.
	Training []Chart
	// Runs are the runs that the report overlays, with their last figures.
	Runs []RunSummary
	// Comparisons are paired differences between runs.
	Comparisons []Comparison

	// Transcripts are sample responses.
	Transcripts []Transcript

	// Config is the run's configuration, Versions the program, device and
	// seeds it ran with; both are shown as key/value tables in this order.
	Config   []Entry
	Versions []Entry
	// Command is the command line that makes this report again.
	Command string
	// Notes are further remarks, a paragraph each, shown after the definitions.
	Notes []string
}

// Tile is one key figure.
type Tile struct {
	Label string // what it is
	Value string // the figure, formatted
	Note  string // a few words under it; may be empty
}

// Method is one row of the comparison. Its JSON form is the one that the
// command line prints. Shares are in [0, 1]; nil is "does not apply".
type Method struct {
	// Name is one of base, base-help-bias, task-tuning, naive-offloading,
	// router, confidence, self-check, collaboration-aware, gapg, da-grpo,
	// cloud, oracle; others are shown as they are.
	Name string `json:"name"`
	// OverallAccuracy counts cloud answers; at the budget where one applies.
	OverallAccuracy float64 `json:"overall_accuracy"`
	// DeviceAccuracy is the accuracy among prompts answered on the device.
	DeviceAccuracy *float64 `json:"device_accuracy"`
	// SoloAccuracy is the accuracy of the model with calls disabled.
	SoloAccuracy *float64 `json:"solo_accuracy"`
	// CloudRatio is calls per prompt, calibrated to the budget where the
	// method has a knob; NaturalCloudRatio is the ratio without calibration.
	CloudRatio        float64  `json:"cloud_ratio"`
	NaturalCloudRatio *float64 `json:"natural_cloud_ratio,omitempty"`
	// PGR is (accuracy − weak)/(strong − weak); APGR its mean over ratios 0..1.
	PGR  *float64 `json:"pgr"`
	APGR *float64 `json:"apgr"`
	// HelpPrecision is P(device would fail | asked), HelpRecall
	// P(asked | device would fail).
	HelpPrecision *float64 `json:"help_precision"`
	HelpRecall    *float64 `json:"help_recall"`
	// CI95 is the 95 % interval of OverallAccuracy; both zero: none.
	CI95 [2]float64 `json:"ci95"`
	// HarmfulCalls is the share of calls where the device would have been
	// right and the cloud was wrong.
	HarmfulCalls *float64 `json:"harmful_calls,omitempty"`
	// CostPer1000 is the cloud's price for 1,000 prompts, US dollars.
	CostPer1000 *float64 `json:"cost_per_1000_usd,omitempty"`
	// TokensBeforeCall is the mean number of device tokens of a response that
	// asks, TokensSolution of one that answers.
	TokensBeforeCall *float64 `json:"tokens_before_call,omitempty"`
	TokensSolution   *float64 `json:"tokens_solution,omitempty"`
	// Difference is this method's overall accuracy minus the reference's, with
	// the paired interval over common prompts.
	Difference *Interval `json:"difference,omitempty"`
	// Explanation overrides the built-in line under the name.
	Explanation string `json:"-"`
}

// hasInterval says whether CI95 was given.
func (m *Method) hasInterval() bool {
	return m.CI95 != [2]float64{} && !notFinite(m.CI95[0]) && !notFinite(m.CI95[1])
}

// Point is a point of a budget curve.
type Point struct {
	Ratio    float64 // calls per prompt, 0..1
	Accuracy float64 // overall accuracy, 0..1
}

// BudgetCurve is a method's overall accuracy over the share of prompts sent to
// the cloud, points in order of Ratio.
type BudgetCurve struct {
	Method    string
	Points    []Point
	PGR, APGR *float64 // for the legend; taken from the method if nil
}

// RunSummary is a run's line in a report over several runs.
type RunSummary struct {
	Name  string
	Steps int64
	// Figures are the run's last values under their names, in order.
	Figures []Entry
}

// Comparison is a paired difference A − B over common prompts.
type Comparison struct {
	A, B       string
	Metric     string // e.g. "overall accuracy"
	Prompts    int
	Difference Interval // share, −1..1
}

// TranscriptKind says what a transcript is an example of.
type TranscriptKind string

// The kinds that the report knows; others are shown as they are.
const (
	Solved     TranscriptKind = "solved"      // right on the device
	AskedEarly TranscriptKind = "asked-early" // asked before much reasoning
	AskedLate  TranscriptKind = "asked-late"  // asked after trying
	Wrong      TranscriptKind = "wrong"       // answered, and wrongly
)

// Transcript is a sample response.
type Transcript struct {
	Kind   TranscriptKind
	Prompt string
	// Response is the device model's completion, tags and marker included.
	Response string
	// Asked says whether the response was a call to the cloud.
	Asked bool
	// Answer is the device's parsed answer, "" if it gave none.
	Answer string
	// Cloud is the cloud's answer when asked.
	Cloud string
	// Correct is the verdict on what the user gets: the cloud's answer if
	// asked, the device's otherwise.
	Correct bool
	// Forced is what the device would have answered with calls disabled and
	// ForcedCorrect the verdict on it; nil where that was not tried.
	Forced        string
	ForcedCorrect *bool
	// Tokens is the number of tokens of the response, 0 if not known.
	Tokens int
	// Reward of the response, nil if not known.
	Reward *float64
}

// Entry is a line of a key/value table.
type Entry struct {
	Key   string
	Value string
}
