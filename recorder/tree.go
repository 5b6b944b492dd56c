package recorder

// TreeState is the RFC 6962 Merkle tree over a recording's first Count leaves.
type TreeState struct {
	Session string `json:"session"`
	Count   uint64 `json:"count"` // leaves, the header among them
	Root    string `json:"root"`  // hex
}

// Sealed describes a finished recording; it is what the ledger keeps of it.
type Sealed struct {
	TreeState
	File        string `json:"file"`   // path below the recordings' directory, slashes
	Length      int64  `json:"length"` // bytes of the sealed file
	SHA256      string `json:"sha256"` // of the sealed file, hex
	Interrupted bool   `json:"interrupted,omitempty"`
	End         End    `json:"end"`
}
