package testx

import (
	"os"
	"strings"
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// RequireEnv names the environment variable that lists, separated by commas,
// the needs which this machine must meet.
const RequireEnv = "UPDRAFT_REQUIRE"

// Need skips the test when the machine lacks what; where RequireEnv lists
// what, it fails instead, so that a machine kept for it cannot pass by
// skipping.
//
// CPU features ("avx2", "avx512") are found here; for anything else the caller says
// with Have whether it is there.
func Need(t testing.TB, what string) {
	t.Helper()
	var have bool
	switch what {
	case "avx2":
		have = cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3)
	case "avx512":
		have = cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL)
	default:
		t.Fatalf("testx: unknown need %q: use Have", what)
	}
	Have(t, what, have)
}

// Have is Need for things that this package cannot look for itself.
func Have(t testing.TB, what string, have bool) {
	t.Helper()
	if have {
		return
	}
	if required(os.Getenv(RequireEnv), what) {
		t.Fatalf("%s is required by %s and is not there", what, RequireEnv)
	}
	t.Skipf("needs %s", what)
}

func required(list, what string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(s) == what {
			return true
		}
	}
	return false
}
