package hugepages

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Memory of any length can be asked for and is as it was.
func TestAdvise(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 4<<20 - 1, 4 << 20, 4<<20 + 1, 9<<20 + 17} {
		raw := make([]byte, n)
		for i := range raw {
			raw[i] = byte(i)
		}
		Advise(raw)
		for i := range raw {
			if raw[i] != byte(i) {
				require.Equal(t, byte(i), raw[i], "byte %d of %d", i, n)
			}
		}
	}
}
