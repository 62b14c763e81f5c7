package definition

// PlanRecords are the records that applying a plan writes: the definitions, then
// the history.
var PlanRecords = (*Plan).records

// DecodeResource reads a record of the definitions or of the history.
func DecodeResource(key string, value []byte) (*Resource, error) {
	k, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	return decodeResource(k, value)
}
