package gapg_test

import (
	"context"
	"fmt"
	"log"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// oracle is a cloud that knows one answer.
type oracle struct{}

func (oracle) Name() string { return "oracle" }

func (oracle) Answer(context.Context, cloud.Question) (cloud.Answer, error) {
	return cloud.Answer{Text: "<answer>6*7</answer>", CostUSD: 0.002}, nil
}

// A device model and a cloud answer one question together.
func ExampleNewCollaborator() {
	tok, err := tokenizer.NewCharacter("0123456789 +-*/=", []string{gapg.Marker, "<end>"})
	if err != nil {
		log.Fatal(err)
	}
	marker, _ := tok.ID(gapg.Marker)
	end, _ := tok.ID("<end>")
	equals, _ := tok.ID("=")

	be, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer be.Close()
	// An untrained model; model.Load reads a trained one.
	m, err := model.New(be, model.Config{ModelType: "llama", HiddenSize: 32, IntermediateSize: 64, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 2, HeadDim: 16, VocabSize: tok.Size(), MaxPositionEmbeddings: 64, TieWordEmbeddings: true, RMSNormEps: 1e-5,
		RopeTheta: 10000, InitializerRange: 0.02, EOSTokenID: model.TokenIDs{end}}, 1, model.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	pair, err := gapg.NewCollaborator(gapg.CollaboratorConfig{
		Model: m, Tokenizer: tok, Cloud: oracle{},
		EndToken: end, Marker: []int32{marker}, MarkerAfter: []int32{equals}, MaxNewTokens: 32,
		HelpBias: 20, // this model knows nothing: let it ask
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pair.Close()
	r, err := pair.Answer(context.Background(), gapg.Prompt{ID: "6 7", Text: "6 7 42="})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, from the %s, for $%.3f\n", r.Answer, r.Source, r.CostUSD)
	// Output: 6*7, from the cloud, for $0.002
}
