# Included by the Makefile at the root of the repository.
.PHONY: ptx

CLANG ?= clang-19

## ptx: compile kernels/*.cu to PTX again (needs Debian's clang-19, nothing of NVIDIA's)
ptx:
	go run ./kernels/mkptx -clang $(CLANG)
	if command -v ptxas >/dev/null; then go run ./kernels/ptxtable >docs/gpu-kernels.md; fi
