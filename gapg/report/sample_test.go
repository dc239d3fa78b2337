package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// sampleMetrics makes up the log of a training run of n steps.
func sampleMetrics(seed uint64, n int) *Metrics {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := &Metrics{Path: "sample"}
	noise := func(s float64) float64 { return s * rng.NormFloat64() }
	for i := 1; i <= n; i++ {
		t := float64(i) / float64(n)
		rise := 1 - math.Exp(-4*t)
		d1 := math.Round(17 + 8*rise + noise(1.3))
		v := map[string]float64{
			"reward": 0.72 + 0.75*rise + noise(0.06), "accuracy/overall": 0.58 + 0.33*rise + noise(0.02),
			"accuracy/device": 0.6 + 0.26*rise + noise(0.025), "cloud/ratio": 0.1 + 0.2*rise + noise(0.02),
			"filter/d1": d1, "filter/d2": math.Floor(math.Min(d1*3/7, 4+6*rise+noise(1))),
			"entropy": 0.62 - 0.37*rise + noise(0.015), "completions/mean_length": 31 - 7*rise + noise(0.7),
			"frac_reward_zero_std": 0.35 + 0.2*rise + noise(0.03), "grad_norm": 0.8 + noise(0.1) - 0.3*rise,
			"sampling/sampling_logp_difference/max": 0,
		}
		if i%15 == 0 {
			v["eval/accuracy/overall"] = 0.58 + 0.33*rise
			v["eval/accuracy/device"] = 0.6 + 0.25*rise
			v["eval/cloud/ratio"] = 0.1 + 0.2*rise
		}
		m.Records = append(m.Records, Record{Step: int64(i), Values: v})
	}
	return m
}

// sampleData makes up a whole report.
func sampleData() Data {
	type row struct {
		name                                    string
		acc, dev, solo, calls, pgr, apgr, hp, r float64
		natural, cost, harm, before, full       float64
	}
	const no = -1
	rows := []row{
		{"base", .581, .581, .581, 0, no, no, no, no, no, 0, no, no, 31},
		{"base-help-bias", .814, .77, .579, .297, .57, .61, .81, .57, .121, .89, .051, 22, 30},
		{"task-tuning", .667, .667, .667, 0, 0, no, no, no, no, 0, no, no, 24},
		{"naive-offloading", .748, .666, .667, .300, .30, .50, .33, .30, no, .90, .041, no, 24},
		{"router", .779, .709, .667, .298, .41, .58, .47, .42, no, .89, .034, no, 24},
		{"confidence", .838, .797, .667, .299, .63, .69, .74, .66, no, .90, .012, 24, 24},
		{"self-check", .861, .83, .667, .291, .72, no, .88, .77, .291, .87, .006, 26, 24},
		{"collaboration-aware", .858, .84, .641, .296, .70, .73, .87, .72, .412, .89, .009, 19, 23},
		{"gapg", .912, .893, .683, .294, .904, .88, .964, .891, .318, .88, .002, 17, 23},
		{"da-grpo", .889, .868, .672, .300, .82, .81, .92, .84, .304, .90, .004, 18, 23},
		{"cloud", .938, 0, 0, 1, 1, no, no, no, no, 3.00, no, no, no},
		{"oracle", .921, .91, .667, .300, .937, .91, 1, .9, no, .90, 0, no, 24},
	}
	opt := func(v float64) *float64 {
		if v == no {
			return nil
		}
		return new(v)
	}
	d := Data{
		Task: "countdown", Created: time.Date(2026, 11, 23, 1, 20, 0, 0, time.UTC), Budget: .30, TestPrompts: 1000,
		Command: "updraft demo --all --seed 1 --cloud-budget 0.30",
		Config: []Entry{{"algorithm", "gapg"}, {"num-generations", "8"}, {"per-device-train-batch-size", "32"}, {"learning-rate", "2e-4"},
			{"max-completion-length", "64"}, {"temperature", "1.0"}, {"reward αa / αc / αf", "2.0 / 0.5 / 0.2"}, {"cloud-budget", "0.30 (ρ = 3/7)"}, {"steps", "90"}, {"output-dir", "runs/demo-with-a-rather-long-name-2026-11-23"}},
		Versions: []Entry{{"updraft", "v0.1.0 (go1.26.8, linux/amd64)"}, {"device", "CPU, 2 threads, AVX2+FMA"}, {"seed", "1"}, {"model", "0.6 M parameters, 3 layers, width 128"}, {"cloud", "simulated: exact solver, right on 93.8 % of prompts"}, {"training cloud calls", "812"}},
		Notes:    []string{"The cloud in this run is simulated; its latency and price are made up."},
		Training: TrainingCharts(.30, Run{"demo", sampleMetrics(1, 90)}),
	}
	for i, r := range rows {
		m := Method{Name: r.name, OverallAccuracy: r.acc, DeviceAccuracy: opt(r.dev), SoloAccuracy: opt(r.solo), CloudRatio: r.calls,
			PGR: opt(r.pgr), APGR: opt(r.apgr), HelpPrecision: opt(r.hp), HelpRecall: opt(r.r), NaturalCloudRatio: opt(r.natural),
			CostPer1000: opt(r.cost), HarmfulCalls: opt(r.harm), TokensBeforeCall: opt(r.before), TokensSolution: opt(r.full)}
		half := 1.96 * math.Sqrt(r.acc*(1-r.acc)/1000)
		m.CI95 = [2]float64{r.acc - half, r.acc + half}
		if r.name == "cloud" {
			m.DeviceAccuracy, m.SoloAccuracy = nil, nil
		}
		if r.name != "gapg" {
			diff := r.acc - .912
			m.Difference = &Interval{Mean: diff, Lo: diff - .018, Hi: diff + .019}
		}
		d.Methods = append(d.Methods, m)
		if r.apgr != no || r.name == "naive-offloading" {
			c := BudgetCurve{Method: r.name}
			weak, gain := r.solo, r.acc-r.solo-(.938-r.solo)*r.calls
			for k := range 21 {
				s := float64(k) / 20
				bump := s * (1 - s) / (r.calls * (1 - r.calls)) * gain
				if s > r.calls {
					bump = gain * math.Pow((1-s)/(1-r.calls), 1.3)
				}
				c.Points = append(c.Points, Point{s, weak + (.938-weak)*s + bump + .002*math.Sin(float64(9*k+i))})
			}
			d.BudgetCurves = append(d.BudgetCurves, c)
		}
	}
	trace := []struct {
		kind                      TranscriptKind
		prompt, text, answer, cld string
		ok, fok                   bool
	}{
		{Solved, "Use 3, 7, 11 and 25 to make 46.", "<think>25+11=36;36+7=43;43+3=46 ok</think><answer>25 + 11 + 7 + 3</answer>", "25 + 11 + 7 + 3", "", true, true},
		{Solved, "Use 2, 9 and 14 to make 4.", "<think>14-9=5;5-2=3 no; 14/2=7;9-7=2 no; 9*2=18;18-14=4 ok</think><answer>9 * 2 - 14</answer>", "9 * 2 - 14", "", true, true},
		{AskedEarly, "Use 6, 13, 17, 21 and 24 to make 97.", "<think>24*6=144; too many left</think><unknown> I need external assistance </unknown>", "", "(24 - 17) * 13 + 6 + 21 - 21", true, false},
		{AskedLate, "Use 5, 8, 19 and 23 to make 61.", "<think>23+19=42;42+8=50;50+5=55 no; 23*5=115;115-19=96;96-8=88 no; 19*5=95;95-23=72;72-8=64 no; failed</think><unknown> I need external assistance </unknown>", "", "(19 - 8) * 5 + 23 - 17", true, false},
		{Wrong, "Use 4, 10, 12 and 15 to make 58.", "<think>12*4=48;48+10=58 ok</think><answer>12 * 4 + 10</answer>", "12 * 4 + 10", "", false, false},
		{Solved, "Use 1, 8 and 20 to make 13.", "<think>20-8=12;12+1=13 ok</think><answer>20 - 8 + 1</answer>", "20 - 8 + 1", "", true, true},
		{AskedEarly, "Use 9, 16, 18, 22 and 25 to make 88.", "<think>25-9=16; five numbers</think><unknown> I need external assistance </unknown>", "", "", false, false},
		{AskedLate, "Use 7, 7, 12 and 24 to make 31.", "<think>24+7=31 no; 12-7=5;24+7=31;31-5=26 no; failed</think><unknown> I need external assistance </unknown>", "", "24 + 7 * (12 - 7 - 4)", true, true},
		{Wrong, "Use 3, 3, 14 and 20 to make 65.", "<think>20*3=60;14-3=11;60+11=71 no; 14*3=42;42+20=62;62+3=65 ok</think><answer>14 * 3 + 20 + 3 + 0</answer>", "14 * 3 + 20 + 3 + 0", "", false, true},
		{Solved, "Use 2, 5, 11 and 19 to make 30.", "<think>19+11=30;5*2=10 no; 19+11=30; (5-2)=3 no; 11*5=55;55-19=36 no; 19*2=38;38-11=27; 27+5=32 no; 11*2=22;22+19=41;41-5=36 no; 19-11=8;8*5=40;40-2=38 no; 5*2=10;19+11=30 no; (19-5)*2=28 no; 19+11*(2*5-9) no</think><answer>11 + 19</answer>", "11 + 19", "", true, true},
	}
	for i, t := range trace {
		s := Transcript{Kind: t.kind, Prompt: t.prompt, Response: t.text, Answer: t.answer, Cloud: t.cld, Correct: t.ok,
			Asked: t.kind == AskedEarly || t.kind == AskedLate, Tokens: len(t.text) / 2, Reward: new([]float64{2.2, 2.2, .5, .5, .2, 2.2, 0, .5, .2, 2.2}[i])}
		if s.Asked {
			s.ForcedCorrect, s.Forced = new(t.fok), fmt.Sprintf("%d + %d", i+11, 3*i)
		}
		d.Transcripts = append(d.Transcripts, s)
	}
	return d
}

// sampleRuns makes up a report over three runs.
func sampleRuns() Data {
	a, b, c := sampleMetrics(1, 90), sampleMetrics(2, 90), sampleMetrics(3, 700)
	return Data{Task: "countdown", Budget: .3,
		Runs: []RunSummary{{"runs/gapg", 90, []Entry{{"reward", "1.46"}, {"cloud calls", "29.1 %"}}},
			{"runs/no-filter", 90, []Entry{{"reward", "1.41"}, {"cloud calls", "38.0 %"}, {"accuracy", "88.0 %"}}},
			{"runs/long", 700, nil}},
		Comparisons: []Comparison{{"runs/gapg", "runs/no-filter", "overall accuracy", 1000, Interval{.021, .004, .039}},
			{"runs/gapg", "runs/long", "overall accuracy", 1000, Interval{-.003, -.012, .006}}},
		Training: TrainingCharts(.30, Run{"runs/gapg", a}, Run{"runs/no-filter", b}, Run{"runs/long", c}),
	}
}
