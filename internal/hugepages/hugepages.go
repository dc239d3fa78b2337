// Package hugepages asks the system for huge pages under large memory: of small
// ones, a matrix takes more than a processor's translation buffers hold. What reads
// matrices and what is measured beside it ask alike.
package hugepages
