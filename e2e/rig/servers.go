package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// StartPostgres starts a story's PostgreSQL with other settings.
func StartPostgres(ctx context.Context, dir string, settings map[string]string) (*harness.Postgres, error) {
	pg, err := harness.StartPostgres(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if err = pg.Exec(ctx, "postgres", fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, settings[name])); err != nil {
			return nil, errors.Join(err, pg.Close())
		}
	}
	if err := pg.Exec(ctx, "postgres", "CHECKPOINT"); err != nil {
		return nil, errors.Join(err, pg.Close())
	}
	if err := pg.Close(); err != nil {
		return nil, err
	}
	if err := pg.Restart(); err != nil {
		return nil, err
	}
	up := func(ctx context.Context) error { return pg.Exec(ctx, "postgres", "SELECT 1") }
	if err := harness.Eventually(ctx, 30*time.Second, up); err != nil {
		return nil, errors.Join(err, pg.Close())
	}
	return pg, nil
}

// Plain is a target's NAME=URL without TLS between Curfew and the database, as the anchors were measured.
func Plain(target string) string {
	base, _, _ := strings.Cut(target, "?")
	return base + "?sslmode=disable"
}
