package enginetest

import (
	"context"

	"github.com/curfewdb/curfew/protocol"
)

// NoTokens is the half of a Doorman who takes none.
type NoTokens struct{}

// Token refuses.
func (NoTokens) Token(context.Context, protocol.TokenLogin) (string, error) {
	return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: "no tokens are taken here"}
}

// Offer has nothing to offer.
func (NoTokens) Offer() (protocol.Offer, bool) { return protocol.Offer{}, false }
