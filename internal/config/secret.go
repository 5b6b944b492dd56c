package config

import (
	"fmt"
	"os"
	"strings"
)

func isReference(s string) bool {
	kind, name, ok := strings.Cut(s, ":")
	return ok && name != "" && (kind == "file" || kind == "env")
}

// Secret reads the secret behind a reference: file:/path gives the file's text without the newline at
// its end, env:NAME the variable's value. An empty reference is no secret: "". An empty secret is an
// error. Errors name the reference, never the value.
func Secret(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	if !isReference(ref) {
		return "", fmt.Errorf("a secret must be a reference: file:/path or env:NAME")
	}
	kind, name, _ := strings.Cut(ref, ":")
	var value string
	if kind == "env" {
		v, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("secret %s: the variable is not set", ref)
		}
		value = v
	} else {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("secret %s: %w", ref, err)
		}
		value = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	}
	if value == "" {
		return "", fmt.Errorf("secret %s: is empty", ref)
	}
	return value, nil
}
