package taskapi

import (
	"encoding/binary"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/sign"
)

// A task token names a call of an execution, and is signed: who has it may report on the task. So is the address of an activity:
// who has it may take tasks.

const (
	purposeTask     = "task"
	purposeActivity = "activity"
	// tokenFrame is the length of a token's body without the execution's id: when it began, and the call.
	tokenFrame = 8 + 4
	maxTokenID = (2+utf8.UTFMax)*maxName + 2
)

// Task names a call of an execution that somebody reports on.
type Task struct {
	ID    ID
	Began int64 // when the execution began, in Unix milliseconds: the id may be another's later
	Call  uint32
}

// Token returns the token of a task, the same whenever it is asked for; empty without keys.
func Token(ring sign.Ring, t Task) string {
	body := binary.BigEndian.AppendUint64(nil, uint64(t.Began))
	body = binary.BigEndian.AppendUint32(body, t.Call)
	body = append(body, t.ID.Machine.String()+":"+t.ID.Name...)
	text, _ := ring.Seal(time.UnixMilli(t.Began), purposeTask, body)
	return text
}

// ParseToken returns what a token names; ok is false if it was never given.
func ParseToken(ring sign.Ring, text string) (t Task, ok bool) {
	s, ok := sign.Unseal(text, tokenFrame+1, tokenFrame+maxTokenID)
	if !ok || !s.Verify(ring, purposeTask) {
		return Task{}, false
	}
	id, err := ParseID(string(s.Body[tokenFrame:]))
	return Task{id, int64(binary.BigEndian.Uint64(s.Body)), binary.BigEndian.Uint32(s.Body[8:])}, err == nil
}

// Address returns the unguessable address of an activity, signed with the key of now; empty without keys. It is good as long as the
// ring has that key: sign.KeepKeys at least.
func Address(ring sign.Ring, now time.Time, activity catalog.Key) string {
	text, _ := ring.Seal(now, purposeActivity, []byte(Text(activity)))
	return text
}

// ParseAddress returns the activity of an address; ok is false if it was never given.
func ParseAddress(ring sign.Ring, text string) (activity catalog.Key, ok bool) {
	s, ok := sign.Unseal(text, len("a=b"), 2*maxName+1)
	if !ok || !s.Verify(ring, purposeActivity) {
		return catalog.Key{}, false
	}
	return KeyOf(string(s.Body))
}
