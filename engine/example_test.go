package engine_test

import (
	"fmt"
	"log"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
)

// One linear map on a device: allocate, upload, compute, download, wait.
func ExampleBackend() {
	var be engine.Backend
	be, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer be.Close()
	buf, err := be.Alloc(engine.F32, 6+4+6)
	if err != nil {
		log.Fatal(err)
	}
	x := engine.Matrix(buf, 0, 3, 2)
	w := engine.Weight{Tensor: engine.Matrix(buf, 6, 2, 2)}
	y := engine.Matrix(buf, 10, 3, 2)
	be.UploadF32(x, []float32{1, 2, 3, 4, 5, 6})
	be.UploadF32(w.Tensor, []float32{1, 1, 1, -1})
	if err := be.PrepareWeight(&w); err != nil {
		log.Fatal(err)
	}
	be.Linear(engine.LinearArgs{Y: y, X: x, W: w}) // Y = X·Wᵀ
	out := make([]float32, 6)
	if err := be.Wait(be.DownloadF32(out, y)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out)
	// Output: [3 -1 7 -1 11 -1]
}
