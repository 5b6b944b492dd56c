package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// packages are a server or clients or both from another suite of Debian, unpacked beside each other and run
// through their own dynamic loader.
type packages struct {
	dir      string
	suite    string
	names    []string
	server   string   // below the directory
	bin      string   // of the clients, below the directory
	clients  []string // the first is for the engine's own tests, which know it by its name with the suffix
	suffix   string
	settings []string // of the server; @ is the directory
	env      []string // of the clients
	share    string   // of a MariaDB's SQL
}

var (
	mariadb118 = &packages{
		dir: "mariadb-11.8", suite: "trixie", names: []string{"mariadb-server-core", "mariadb-server", "mariadb-client", "mariadb-client-core"},
		server: "usr/sbin/mariadbd", bin: "usr/bin", clients: []string{"mariadb", "mariadb-dump", "mariadb-slap"}, suffix: "118", share: "usr/share/mariadb",
		settings: []string{"--basedir=@/usr", "--plugin-dir=@/usr/lib/mysql/plugin", "--lc-messages-dir=@/usr/share/mariadb", "--character-sets-dir=@/usr/share/mariadb/charsets"},
		env:      []string{"MARIADB_PLUGIN_DIR=@/usr/lib/x86_64-linux-gnu/libmariadb3/plugin"},
	}
	// No stable Debian has a MySQL.
	mysql9 = &packages{
		dir: "mysql-9", suite: "sid", names: []string{"mysql-server-core", "mysql-client-core"},
		server: "usr/sbin/mysqld", bin: "usr/bin", clients: []string{"mysql", "mysqldump", "mysqlslap"}, suffix: "9",
		settings: []string{"--basedir=@/usr", "--plugin-dir=@/usr/lib/mysql/plugin", "--lc-messages-dir=@/usr/share/mysql", "--character-sets-dir=@/usr/share/mysql/charsets"},
		env:      []string{"LIBMYSQL_PLUGIN_DIR=@/usr/lib/mysql/plugin"},
	}
	// pg_dump refuses a server that is newer than itself. No suite of Debian has the clients of 16.
	postgresql17 = &packages{dir: "postgresql-client-17", suite: "trixie", names: []string{"postgresql-client-17"}, bin: "usr/lib/postgresql/17/bin", clients: []string{"pg_dump", "pg_restore", "psql"}}
	// From 18 on psql gets itself a token, with a library that is a package of its own.
	postgresql18 = &packages{dir: "postgresql-client-18", suite: "sid", names: []string{"postgresql-client-18", "libpq-oauth"}, bin: "usr/lib/postgresql/18/bin", clients: []string{"pg_dump", "pg_restore", "psql"}}

	postgresClients = map[string]*packages{"16": postgresql17, "17": postgresql17, "18": postgresql18}
)

// get gives the environment for the tests of a MariaDB or MySQL.
func (p *packages) get(ctx context.Context, cache string) (env []string, version string, err error) {
	dir, programs, err := p.unpack(ctx, cache)
	if err != nil {
		return nil, "", err
	}
	server, err := p.script(dir, p.server, filepath.Base(p.server), nil, p.settings)
	if err != nil {
		return nil, "", err
	}
	client, err := p.script(dir, filepath.Join(p.bin, p.clients[0]), p.clients[0]+p.suffix, p.env, nil)
	if err != nil {
		return nil, "", err
	}
	if version, err = says(ctx, server, "--version"); err != nil {
		return nil, "", err
	}
	env = []string{"CURFEW_MYSQL_SERVER=" + server, "CURFEW_MYSQL_CLIENTS=" + client, "CURFEW_MYSQL_PROGRAMS=" + programs}
	if p.share != "" {
		env = append(env, "CURFEW_MYSQL_SHARE="+filepath.Join(dir, p.share))
	}
	return env, version, nil
}

// unpack unpacks them into the cache, unless they are there, and gives the directory of the clients.
func (p *packages) unpack(ctx context.Context, cache string) (dir, programs string, err error) {
	dir = filepath.Join(cache, p.dir)
	programs, done, want := filepath.Join(dir, "programs"), filepath.Join(dir, ".complete"), strings.Join(p.names, "\n")+"\n"
	if have, err := os.ReadFile(done); err != nil || string(have) != want {
		fmt.Printf("     fetching %s from Debian %s\n", strings.Join(p.names, " "), p.suite)
		if err := p.fetch(ctx, cache, dir); err != nil {
			return "", "", err
		}
		if err := os.WriteFile(done, []byte(want), 0o644); err != nil {
			return "", "", err
		}
	}
	for _, name := range p.clients {
		if _, err := p.script(dir, filepath.Join(p.bin, name), filepath.Join("programs", name), p.env, nil); err != nil {
			return "", "", err
		}
	}
	return dir, programs, nil
}

// fetch asks apt for the packages and all that they stand on, as on a machine that has nothing, and unpacks them.
func (p *packages) fetch(ctx context.Context, cache, dir string) error {
	archive, err := archive(ctx)
	if err != nil {
		return err
	}
	apt := filepath.Join(cache, "apt-"+p.suite)
	debs := filepath.Join(apt, "cache", "archives")
	for _, d := range []string{filepath.Join(apt, "lists", "partial"), filepath.Join(debs, "partial"), dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	source := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + archive + " " + p.suite + " main\n"
	if err := errors.Join(os.WriteFile(filepath.Join(apt, "sources.list"), []byte(source), 0o644),
		os.WriteFile(filepath.Join(apt, "status"), nil, 0o644)); err != nil {
		return err
	}
	options := []string{"-q", "-o", "Dir::Etc::sourcelist=" + filepath.Join(apt, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::lists=" + filepath.Join(apt, "lists"), "-o", "Dir::State::status=" + filepath.Join(apt, "status"),
		"-o", "Dir::Cache=" + filepath.Join(apt, "cache"), "-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User=",
		"-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-o", "Debug::NoLocking=true", "-o", "Acquire::Check-Date=false"}
	if _, err := does(ctx, apt, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	if _, err := does(ctx, apt, "apt-get", append(append(options, "install", "--download-only", "--yes"), p.names...)...); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range found {
		if _, err := does(ctx, apt, "dpkg-deb", "-x", deb, dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(apt)
}

// archive is where this machine has its Debian from.
func archive(ctx context.Context) (string, error) {
	text, err := does(ctx, "", "apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Debian" && !strings.Contains(f[1], "-") {
			return f[2], nil
		}
	}
	return "", errors.New("apt knows no archive of Debian")
}

// script writes a script that runs a program of theirs with their own loader and libraries.
func (p *packages) script(dir, program, name string, env, settings []string) (string, error) {
	text := "#!/bin/sh\nunset LD_PRELOAD\n"
	for _, e := range env {
		text += "export " + e + "\n"
	}
	text += `exec "@/usr/lib64/ld-linux-x86-64.so.2" --argv0 "@/` + program + `" --library-path "@/usr/lib/x86_64-linux-gnu" "@/` + program + `" "$@"`
	for _, s := range settings {
		text += ` "` + s + `"`
	}
	path := filepath.Join(dir, name)
	return path, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(strings.ReplaceAll(text, "@/", dir+"/")+"\n"), 0o755))
}
