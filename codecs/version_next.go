//go:build klgstream_next

package codecs

// StateVersion with the tag klgstream_next is one ahead: a build that stands for the next one in tests of upgrades.
const StateVersion = 2
