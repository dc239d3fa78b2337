package cpu

// kernelName names the instruction set that package simd chose.
func kernelName() string { return "simd" }
