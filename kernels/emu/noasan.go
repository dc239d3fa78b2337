//go:build !asan

package emu

// addressSanitizer reports that this binary was built with -asan.
const addressSanitizer = false
