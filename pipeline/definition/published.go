package definition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// publishedKey is the key of the record of the definitions topic with the sinks'
// public keyset.
const publishedKey = "keys/public"

// published is that record. Whoever applies definitions seals secrets with it,
// and need not be given a file.
type published struct {
	Format int             `json:"format"`
	Time   time.Time       `json:"time"`
	Keys   json.RawMessage `json:"keys"` // tink's JSON
}

// errNewerKeys is said of a keyset that a newer version published.
var errNewerKeys = errors.New("the published keyset was written by a newer version of Millrace; upgrade the sinks")

// parsePublished reads the record; nil where there is none, or nothing that is
// one. A newer version's can't be read but is one.
func parsePublished(value []byte) (*secret.PublicKeys, error) {
	var p published
	if json.Unmarshal(value, &p) == nil && p.Format > resourceFormat {
		return nil, errNewerKeys
	}
	keys, _ := secret.ReadPublicKeys(p.Keys) // what can't be read is to be replaced
	return keys, nil
}

// OtherKeysError says that what is in force was sealed with a key that a keyset
// does not have: it is older than the published one, or another.
type OtherKeysError struct{ Key uint32 }

func (e *OtherKeysError) Error() string {
	return fmt.Sprintf("secrets are sealed with the key %d, which this keyset does not have: it is older than the one that was published, or another", e.Key)
}

// CheckKeys compares a sink's keyset with the published one: whether that is to
// be replaced by the public part of this one, or the error that it is not.
func (s *Snapshot) CheckKeys(keys *secret.PublicKeys) (replace bool, err error) {
	if s.Keys == nil {
		return s.keysErr == nil, s.keysErr
	}
	if primary := s.Keys.Primary(); !slices.Contains(keys.IDs(), primary) {
		return false, &OtherKeysError{primary}
	}
	return s.Keys.Primary() != keys.Primary() || !slices.Equal(s.Keys.IDs(), keys.IDs()), nil
}

// PublishKeys makes the public part of the sinks' keyset known to whoever applies
// definitions. A published one with a newer key stays, which is an
// *OtherKeysError, unless force is set: then what only that key opens has to be
// written again.
func (s *Store) PublishKeys(ctx context.Context, keys *secret.PublicKeys, force bool) error {
	text, err := keys.MarshalJSON()
	if err != nil {
		return err
	}
	value, err := marshal(published{resourceFormat, time.Now().UTC().Truncate(time.Millisecond), text})
	if err != nil {
		return fmt.Errorf("writing the public keyset: %w", err)
	}
	_, err = s.log.WriteAmong(ctx, func(current map[string]pipeline.Record, _ int64) ([]pipeline.Record, error) {
		var now Snapshot
		now.Keys, now.keysErr = parsePublished(current[publishedKey].Value)
		replace, err := now.CheckKeys(keys)
		if err != nil && !force || err == nil && !replace {
			return nil, err
		}
		return []pipeline.Record{{Topic: s.cfg.Names.Definitions(), Key: []byte(publishedKey), Value: value}}, nil
	})
	if err != nil {
		return fmt.Errorf("publishing the public keyset: %w", err)
	}
	return nil
}
