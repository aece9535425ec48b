package codecs

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// wireField is one field of a message in protobuf wire format.
type wireField struct {
	number protowire.Number
	kind   protowire.Type
	value  uint64 // of a varint
	bytes  []byte // of a length-delimited field; aliases the record
}

// read takes the first field off data and returns the rest. Kinds we never write are skipped over and have no value.
func (f *wireField) read(data []byte) (rest []byte, ok bool) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return nil, false
	}
	data = data[n:]
	f.number, f.kind = number, kind
	switch kind {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(data)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(data)
	default:
		n = protowire.ConsumeFieldValue(number, kind, data)
	}
	if n < 0 {
		return nil, false
	}
	return data[n:], true
}

// signed is the value of a sint64 field.
func (f *wireField) signed() int64 { return protowire.DecodeZigZag(f.value) }

// badRecord refuses a state record.
func badRecord(field, limit string) *FieldError {
	return &FieldError{Record: "state record", Field: field, Reason: ReasonBadRecord, Limit: limit, Offset: -1}
}

// truncated refuses a message that ends within a field or holds none.
func truncated(field string) *FieldError {
	return badRecord(field, "a message in protobuf wire format")
}

// appendVarint appends a varint field; 0 is the default and is not written.
func appendVarint(dst []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.VarintType), v)
}

// appendSigned appends a sint64 field.
func appendSigned(dst []byte, number protowire.Number, v int64) []byte {
	return appendVarint(dst, number, protowire.EncodeZigZag(v))
}

// appendText appends a string field; the empty one is the default and is not written.
func appendText(dst []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, number, protowire.BytesType), s)
}

// openMessage begins a message field and returns where its content begins. One byte is kept for the length.
func openMessage(dst []byte, number protowire.Number) (out []byte, content int) {
	dst = append(protowire.AppendTag(dst, number, protowire.BytesType), 0)
	return dst, len(dst)
}

// closeMessage writes the length of the message whose content began at content, and makes room where one byte is not
// enough.
func closeMessage(dst []byte, content int) []byte {
	size := uint64(len(dst) - content)
	if size < 1<<7 {
		dst[content-1] = byte(size)
		return dst
	}
	var length [10]byte
	return slices.Replace(dst, content-1, content, protowire.AppendVarint(length[:0], size)...)
}
