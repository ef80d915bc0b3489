package problem

// maxRequestID bounds a request id, in bytes.
const maxRequestID = 128

// ValidRequestID reports whether a client's request id is safe to log and to echo: visible ASCII.
func ValidRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return false
		}
	}
	return true
}
