// Package updraft is the root of a program that teaches a small on-device
// language model when to answer and when to ask the cloud. It holds no code:
// the command is cmd/updraft, the method is package gapg, the transformer is
// package model, and the devices are engine/cpu and engine/gpu.
package updraft
