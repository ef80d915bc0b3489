package table

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// maxPart is how long the text of one attribute of a key may be before its hash stands for it.
const maxPart = 96

// Key is the key of the item that the request is about, as a text for a key-value store: of a-z, A-Z, 0-9, -, _, =, / and one
// dot between the two attributes of a key that has two, up to 193 bytes. Two keys have one text only if they are the same:
// numbers are compared by what they are worth.
//
// An attribute is its type, a dash and its value, in which bytes that may not stand there are written as in =2E; if that is
// longer than maxPart, it is the type, an equals sign and the SHA-256 of the value.
func (r *Request) Key(s Schema) (string, error) {
	names := s.names()
	item := r.item
	if r.Op != Put {
		item = r.key
		if item.Len() != len(names) {
			return "", invalid(wrongKey)
		}
	}
	parts := make([]string, len(names))
	for i, n := range names {
		v, ok := item.Get(n)
		switch {
		case !ok && r.Op == Put:
			return "", invalid(invalidParameter+"Missing the key %s in the item", n)
		case !ok:
			return "", invalid(wrongKey)
		}
		typ, content := take(object(v))
		value, _ := content.(string)
		switch {
		case typ == typeS, typ == typeN:
		case typ == typeB:
			value = bytesOf(value)
		case r.Op == Put:
			return "", invalid(invalidParameter+"Type mismatch for key %s expected: S, N or B actual: %s", n, typ)
		default:
			return "", invalid(wrongKey)
		}
		if err := checkKeyValue(n, typ, value, i == 0); err != nil {
			return "", err
		}
		parts[i] = keyPart(typ, value)
	}
	return strings.Join(parts, "."), nil
}

const wrongKey = "The provided key element does not match the schema"

func checkKeyValue(name, typ, value string, isHash bool) error {
	switch {
	case value == "" && typ == typeS:
		return invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: %s", name)
	case value == "" && typ == typeB:
		return invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty binary value. Key: %s", name)
	case typ == typeN:
	case isHash && len(value) > maxHashKey:
		return invalid(invalidParameter+"Size of hashkey has exceeded the maximum size limit of%d bytes", maxHashKey) // DynamoDB has no blank there
	case !isHash && len(value) > maxRangeKey:
		return invalid(invalidParameter+"Aggregated size of all range keys has exceeded the size limit of %d bytes", maxRangeKey)
	}
	return nil
}

func keyPart(typ, value string) string {
	b := []byte(typ + "-")
	for i := range len(value) {
		switch c := value[i]; {
		case isNamePart(c), c == '-', c == '/':
			b = append(b, c)
		default:
			b = append(b, '=', upperHex[c>>4], upperHex[c&15])
		}
		if len(b) > maxPart {
			sum := sha256.Sum256([]byte(value))
			return typ + "=" + hex.EncodeToString(sum[:])
		}
	}
	return string(b)
}

const upperHex = "0123456789ABCDEF"

// newItem is an item that has nothing but its key yet.
func (r *Request) newItem() *jsontree.Object { return r.key.Clone() }
