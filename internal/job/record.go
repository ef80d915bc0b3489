package job

import (
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
)

// RecordOf returns the record that the text of a job's id names. The signature is not looked at: it is for tools that look the
// record up where they may see all of them.
func RecordOf(text string) (record.ID, bool) {
	for _, more := range []int{createdBytes, createdBytes + len(record.Client{})} {
		if t, ok := sign.Unseal(text, sealedBase+more, sealedBase+more); ok {
			return record.ID(t.Body[tagBytes : tagBytes+len(record.ID{})]), true
		}
	}
	return record.ID{}, false
}
