package task

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a Countdown problem. The last one makes exact int64 arithmetic
// enough: see MaxMagnitude.
const (
	// MaxCount is the greatest count of numbers in a problem.
	MaxCount = 8

	// MaxMagnitude bounds the product of (1+n) over a problem's numbers n. For
	// an expression p/q built from them, |p|+|q| is at most that product: it
	// holds for a single number n (n/1), and if it holds for two operands with
	// s1 = |p1|+|q1| and s2 = |p2|+|q2|, each of the four operations gives
	// numerator and denominator of absolute sum at most s1·s2. So every value
	// that a legal expression can have fits in int64.
	MaxMagnitude = int64(1) << 62
)

// Countdown is one problem: combine Nums, each exactly once, by + - * / and
// brackets into Target. Nums are shown to the model in this order.
type Countdown struct {
	Nums   []int `json:"nums"`
	Target int   `json:"target"`
}

// Validate reports why p cannot be posed at all, or nil. It does not say
// whether p can be solved: Solve does.
func (p Countdown) Validate() error {
	if len(p.Nums) == 0 {
		return errors.New("nums is empty: a problem needs at least one number")
	}
	if len(p.Nums) > MaxCount {
		return fmt.Errorf("nums holds %d numbers: at most %d are supported", len(p.Nums), MaxCount)
	}
	m := int64(1)
	for _, n := range p.Nums {
		if n < 0 {
			return fmt.Errorf("nums holds %d: negative numbers cannot be written in an answer", n)
		}
		var ok bool
		if int64(n) >= MaxMagnitude {
			ok = false
		} else {
			m, ok = mulInt(m, int64(n)+1)
		}
		if !ok || m > MaxMagnitude {
			return fmt.Errorf("nums %v are too large: the product of (n+1) must be at most 2^62", p.Nums)
		}
	}
	if absInt(int64(p.Target)) > uint64(MaxMagnitude) {
		return fmt.Errorf("target %d is too large: at most 2^62 in magnitude", p.Target)
	}
	return nil
}

// Key is the canonical name of p: the numbers in ascending order, then the
// target, as in "countdown:2,3,7=13". Problems that differ only in the order of
// their numbers are the same problem and share a key.
func (p Countdown) Key() string {
	nums := slices.Clone(p.Nums)
	slices.Sort(nums)
	b := make([]byte, 0, 32)
	b = append(b, "countdown:"...)
	for i, n := range nums {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	b = append(b, '=')
	b = strconv.AppendInt(b, int64(p.Target), 10)
	return string(b)
}

// String writes the problem for logs: "3 7 2 = 13".
func (p Countdown) String() string {
	return joinInts(p.Nums, " ") + " = " + strconv.Itoa(p.Target)
}

// Compact is the prompt for a small model with a vocabulary of characters: the
// numbers in descending order and the target, "17 16 5=69". Equal problems have
// equal compact prompts.
func (p Countdown) Compact() string {
	nums := slices.Clone(p.Nums)
	slices.SortFunc(nums, func(a, b int) int { return cmp.Compare(b, a) })
	return joinInts(nums, " ") + "=" + strconv.Itoa(p.Target)
}

// Instruction is the prompt for a device model that reads English: the task, the
// format of the response and the marker that asks for help.
func (p Countdown) Instruction() string {
	return p.CloudInstruction() + " If you cannot find it, end your response with " + Marker + " instead.\n"
}

// CloudInstruction is the same without a word of help: what the cloud reads.
func (p Countdown) CloudInstruction() string {
	return "Numbers: " + joinInts(p.Nums, ", ") + ". Target: " + strconv.Itoa(p.Target) + ".\n" +
		"Write an arithmetic expression that equals the target. Use every number exactly once, " +
		"and only the operations +, -, *, / and brackets.\n" +
		"First reason between <think> and </think>. Then give only the expression between <answer> and </answer>, " +
		"for example <answer>(1 + 2) / 3</answer>."
}

func joinInts(v []int, sep string) string {
	var b strings.Builder
	for i, n := range v {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

// Hash64 maps (domain, key) to 64 uniformly distributed bits: the first eight
// bytes of SHA-256 over both. The domain keeps decisions apart that are made
// from one key (which split a prompt belongs to, whether a cloud gets it right).
// The value is part of the file formats: it never changes between versions.
func Hash64(domain, key string) uint64 {
	h := sha256.New()
	h.Write([]byte(domain))
	h.Write([]byte{0})
	h.Write([]byte(key))
	return binary.BigEndian.Uint64(h.Sum(nil))
}
