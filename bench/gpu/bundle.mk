# Included by the Makefile at the root of the repository.
.PHONY: gpu-bundle

## gpu-bundle: what a GPU host without Go needs to check and time everything on it
gpu-bundle:
	bench/gpu/bundle.sh
