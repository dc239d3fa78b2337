// Package report writes down what a run of Updraft did: the append-only
// metrics log (metrics.jsonl), TensorBoard event files, bootstrap intervals,
// the self-contained HTML report and the method table for a terminal.
//
// It is not a statistics package and computes no metric of the method itself:
// accuracies, ratios and curves arrive as plain numbers in the structs of
// data.go, filled by the trainer, the evaluation and the command line. It
// imports nothing of gapg, so that whatever can fill these structs can make
// the same report.
//
// Where to start reading:
//
//   - metrics.go, metrics_read.go: MetricsLog, its Mark and the reader. The log
//     is the one record of a training run; event files and charts are views of it.
//   - tensorboard.go: EventWriter, scalars for TensorBoard.
//   - bootstrap.go: percentile intervals of a mean, of a paired difference and
//     of any statistic of a resample.
//   - data.go: the input of a report. html.go: Render and WriteFile.
//     chart.go, scale.go: the SVG charts. budgetchart.go, training.go: the
//     charts of this method. table.go: WriteTable.
//
// Conventions: accuracies, ratios, precision and recall are shares in [0, 1];
// they become percent only when printed. A figure that does not exist for a
// method is a nil pointer, never zero. Costs are US dollars. Steps count from
// 1; step 0 is the state before training.
package report
