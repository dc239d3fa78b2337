# Included by the Makefile at the root of the repository.
.PHONY: gpu-bundle

GPU_BUNDLE = dist/updraft-gpu-$(shell go env GOOS)-$(shell go env GOARCH)

## gpu-bundle: what a GPU host without Go needs to test and time the kernels
gpu-bundle:
	rm -rf $(GPU_BUNDLE) $(GPU_BUNDLE).tar.gz
	mkdir -p $(GPU_BUNDLE)
	CGO_ENABLED=1 go build -trimpath -o $(GPU_BUNDLE)/gpubench ./bench/gpu
	CGO_ENABLED=1 go build -trimpath -o $(GPU_BUNDLE)/updraft ./cmd/updraft
	CGO_ENABLED=1 go test -c -trimpath -o $(GPU_BUNDLE)/engine-gpu.test ./engine/gpu
	cp bench/gpu/run.sh bench/gpu/peer.py $(GPU_BUNDLE)/
	tar -C dist -czf $(GPU_BUNDLE).tar.gz $(notdir $(GPU_BUNDLE))
	@echo "$(GPU_BUNDLE).tar.gz: copy it to the GPU host, unpack it, run ./run.sh"
