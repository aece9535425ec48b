package codecs

import (
	"encoding/binary"
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
// Numbers up to 15 and lengths below 128, which is all but everything we write, are one byte each and read in place.
func (f *wireField) read(data []byte) (rest []byte, ok bool) {
	if len(data) < 2 || data[0] >= 0x80 {
		return f.readAny(data)
	}
	f.number, f.kind = protowire.Number(data[0]>>3), protowire.Type(data[0]&7)
	switch {
	case f.kind == protowire.VarintType && f.number > 0:
		var n int
		if f.value, n = binary.Uvarint(data[1:]); n > 0 {
			return data[1+n:], true
		}
		return nil, false
	case f.kind == protowire.BytesType && f.number > 0 && data[1] < 0x80 && int(data[1]) <= len(data)-2:
		end := 2 + int(data[1])
		f.bytes = data[2:end:end]
		return data[end:], true
	}
	return f.readAny(data)
}

// readAny is read for any field.
func (f *wireField) readAny(data []byte) (rest []byte, ok bool) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 || number > protowire.MaxValidNumber {
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

// The fields we write have numbers up to 15: a tag is one byte.
func varintTag(number protowire.Number) byte { return byte(number)<<3 | byte(protowire.VarintType) }
func bytesTag(number protowire.Number) byte  { return byte(number)<<3 | byte(protowire.BytesType) }

// appendVarint appends a varint field; 0 is the default and is not written.
func appendVarint(dst []byte, number protowire.Number, v uint64) []byte {
	switch {
	case v == 0:
		return dst
	case v < 0x80:
		return append(dst, varintTag(number), byte(v))
	}
	return binary.AppendUvarint(append(dst, varintTag(number)), v)
}

// appendSigned appends a sint64 field.
func appendSigned(dst []byte, number protowire.Number, v int64) []byte {
	return appendVarint(dst, number, protowire.EncodeZigZag(v))
}

// appendPresent appends a sint64 field that tells 0 from absent.
func appendPresent(dst []byte, number protowire.Number, v int64) []byte {
	return binary.AppendUvarint(append(dst, varintTag(number)), protowire.EncodeZigZag(v))
}

// appendText appends a string field; the empty one is the default and is not written.
func appendText[S string | []byte](dst []byte, number protowire.Number, s S) []byte {
	switch n := len(s); {
	case n == 0:
		return dst
	case n < 0x80:
		dst = append(dst, bytesTag(number), byte(n))
	default:
		dst = binary.AppendUvarint(append(dst, bytesTag(number)), uint64(n))
	}
	return append(dst, s...)
}

// openMessage begins a message field and returns where its content begins. One byte is kept for the length.
func openMessage(dst []byte, number protowire.Number) (out []byte, content int) {
	dst = append(dst, bytesTag(number), 0)
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
	return slices.Replace(dst, content-1, content, binary.AppendUvarint(length[:0], size)...)
}
