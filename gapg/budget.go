package gapg

import (
	"fmt"
	"math/big"
	"strings"
)

// ParseBudget reads a share of prompts in [0, 1), such as "0.30" or "3/10",
// exactly.
func ParseBudget(s string) (Budget, error) {
	r, ok := new(big.Rat).SetString(strings.TrimSpace(s))
	if !ok {
		return Budget{}, fmt.Errorf("cloud budget %q: not a number; give a share of the prompts in [0, 1), such as 0.30", s)
	}
	if r.Sign() < 0 || r.Cmp(big.NewRat(1, 1)) >= 0 {
		return Budget{}, fmt.Errorf("cloud budget %s: outside [0, 1); give a share of the prompts, such as 0.30 for 30 %%", s)
	}
	if !r.Num().IsInt64() || !r.Denom().IsInt64() || r.Denom().Int64() > 1e9 {
		return Budget{}, fmt.Errorf("cloud budget %s: more than nine decimals; round it", s)
	}
	return Budget{r.Num().Int64(), r.Denom().Int64()}, nil
}

// Share returns the budget as a share of all prompts.
func (b Budget) Share() float64 {
	if b.Den == 0 {
		return 0
	}
	return float64(b.Num) / float64(b.Den)
}

// Rho returns ρ = share/(1−share), the bound on cloud : device.
func (b Budget) Rho() float64 {
	if b.Den == 0 {
		return 0
	}
	return float64(b.Num) / float64(b.Den-b.Num)
}

// Cap returns floor(ρ·n) in integers: how many cloud prompts n device prompts
// allow.
func (b Budget) Cap(n int) int {
	if b.Den == 0 {
		return 0
	}
	return int(b.Num * int64(n) / (b.Den - b.Num))
}

// Calls returns floor(share·n): how many of n prompts may go to the cloud.
func (b Budget) Calls(n int) int {
	if b.Den == 0 {
		return 0
	}
	return int(b.Num * int64(n) / b.Den)
}

// String returns the share as a decimal.
func (b Budget) String() string { return fmt.Sprintf("%g", b.Share()) }
