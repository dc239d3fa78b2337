package tokenizer_test

import (
	"fmt"
	"log"

	"github.com/updraft-ml/updraft/model/tokenizer"
)

func ExampleNewCharacter() {
	t, err := tokenizer.NewCharacter("0123456789+-*/()=, ", []string{"<answer>", "</answer>"})
	if err != nil {
		log.Fatal(err)
	}
	ids, err := t.Encode("<answer>(1 + 2) * 3</answer>")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(ids), t.Decode(ids))
	_, err = t.Encode("x")
	fmt.Println(err)
	// Output:
	// 13 <answer>(1 + 2) * 3</answer>
	// tokenizer: character 'x' at byte 0 is not in the vocabulary
}
