package kernels

// RowSpecs lists the kernels that are neither matrix products nor attention.
func RowSpecs() (specs []Spec) {
	for _, bytes := range []int{1, 2, 4} {
		specs = append(specs, Fill(bytes).Spec, CopyBits(bytes).Spec)
	}
	for _, t := range []Type{F32, BF16} {
		specs = append(specs, RoPE(t).Spec, SwiGLU(t).Spec, SwiGLUBackward(t).Spec, Gather(t, t).Spec)
	}
	for _, d := range []int{normWarp, NormMax} {
		specs = append(specs, RMSNorm(F32, F32, d).Spec, RMSNorm(BF16, F32, d).Spec, RMSNorm(BF16, BF16, d).Spec,
			RMSNormBackward(F32, F32, F32, d, 1).Spec)
		for _, dx := range []Type{F32, BF16} {
			specs = append(specs, RMSNormBackward(dx, BF16, F32, d, 1).Spec, RMSNormBackward(dx, BF16, BF16, d, 1).Spec)
		}
	}
	sample, err := Sample(VocabChunk)
	if err != nil {
		panic(err)
	}
	specs = append(specs, HeadStats(), HeadGradient(F32), HeadGradient(BF16), sample)
	sum := PlanSumSquares(1)
	specs = append(specs, sum.Parts, sum.Sum, AdamWF32().Spec, AdamWU8().Spec)
	return append(specs, ToBF16().Spec, ToF32().Spec, Gather(F32, BF16).Spec, ScatterAdd().Spec, RMSNormWeight().Spec)
}
