package mysql

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// helpTime is how long a client may take to print its help.
const helpTime = 10 * time.Second

// stockClient is mariadb, or else mysql, which may be either's; and what other clients take.
func stockClient() protocol.StockClient {
	return protocol.StockClient{
		Programs: []string{"mariadb", "mysql"},
		Install:  "Debian: apt install mariadb-client",
		Run:      runClient,
		Formats:  []string{"dsn", "cnf", "env"},
		Print:    printCredentials,
	}
}

// runClient gives the client an options file of its own: its password would be seen in its arguments, and
// others could not override what the person's own ~/.my.cnf says. That file and the system's are included
// in ours, before what must hold; --defaults-extra-file would be read before ~/.my.cnf, which often names
// another user, password and host.
func runClient(ctx context.Context, program string, c protocol.Credentials, p protocol.Person) (protocol.Run, error) {
	help := helpOf(ctx, program)
	var text strings.Builder
	for _, file := range defaultsFiles(help, p.Home) {
		text.WriteString("!include " + file + "\n")
	}
	text.WriteString(options(withSystemCAs(c), strings.Contains(help, "MariaDB")))
	path, err := p.Private(text.String())
	if err != nil {
		return protocol.Run{}, err
	}
	return protocol.Run{
		Args: []string{"--defaults-file=" + path}, // it counts as the first argument only
		Clear: []string{"MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT", "MYSQL_GROUP_SUFFIX", "MARIADB_GROUP_SUFFIX",
			"MARIADB_TLS_DISABLE_PEER_VERIFICATION", "LIBMYSQL_ENABLE_CLEARTEXT_PLUGIN"},
		// MySQL's clients read ~/.mylogin.cnf last, whatever they are told, unless it is elsewhere.
		Set: []string{"MYSQL_TEST_LOGIN_FILE=" + path + ".none"},
	}, nil
}

// helpOf is what the client says of itself: whose it is, and where it reads options. Without an answer
// the person's own options are not read, and both flavours' words are used.
func helpOf(ctx context.Context, program string) string {
	ctx, cancel := context.WithTimeout(ctx, helpTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--no-defaults", "--help").Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// defaultsFiles are the options files that the client would read, as its help lists them, and that can be
// read: an include of one that can't would end the client.
func defaultsFiles(help, home string) []string {
	_, list, _ := strings.Cut(help, "Default options are read from the following files in the given order:\n")
	list, _, _ = strings.Cut(list, "\n")
	var files []string
	for _, file := range strings.Fields(list) {
		if own, ok := strings.CutPrefix(file, "~/"); ok && home != "" {
			file = filepath.Join(home, own)
		}
		if f, err := os.Open(file); err == nil && filepath.IsAbs(file) {
			f.Close()
			files = append(files, file)
		}
	}
	return files
}

// options is the text of an options file. MySQL's and MariaDB's clients share the group [client]; MariaDB's
// have one of their own beside it, and don't know ssl-mode, which makes them warn: mariadb leaves it out.
func options(c protocol.Credentials, mariadb bool) string {
	var b strings.Builder
	set := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", name, quoteOption(value))
		}
	}
	b.WriteString("[client]\n")
	set("host", c.Host)
	set("port", strconv.Itoa(c.Port))
	set("protocol", "tcp") // or "localhost" would mean a socket
	set("user", c.User)
	set("password", c.Password)
	if c.TLS == protocol.TLSOff {
		if !mariadb {
			b.WriteString("loose-ssl-mode=DISABLED\n")
		}
		b.WriteString("[client-mariadb]\nskip-ssl\nskip-ssl-verify-server-cert\n")
	} else {
		set("ssl-ca", c.CAFile)
		if !mariadb {
			b.WriteString("loose-ssl-mode=VERIFY_IDENTITY\n")
		}
		b.WriteString("[client-mariadb]\nssl\nssl-verify-server-cert\n")
	}
	// Not in [client]: it would mean something else to mariadb-dump, or nothing and end it.
	if c.Database != "" {
		b.WriteString("[mysql]\n")
		set("database", c.Database)
	}
	return b.String()
}

// quoteOption writes a value so that blanks, quotes, # and backslashes in it are itself.
func quoteOption(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}

// withSystemCAs names the system's CAs where no other is: MySQL's clients verify by nothing else than a
// file that they are given.
func withSystemCAs(c protocol.Credentials) protocol.Credentials {
	if c.TLS == protocol.TLSOff || c.CAFile != "" {
		return c
	}
	for _, file := range []string{
		os.Getenv("SSL_CERT_FILE"),
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora
		"/etc/ssl/ca-bundle.pem",             // SUSE
		"/etc/ssl/cert.pem",                  // macOS, BSDs
	} {
		if _, err := os.Stat(file); file != "" && err == nil {
			c.CAFile = file
			return c
		}
	}
	return c
}

// sslMode says in MySQL's words how TLS is to be used.
func sslMode(c protocol.Credentials) string {
	if c.TLS == protocol.TLSOff {
		return "DISABLED"
	}
	return "VERIFY_IDENTITY"
}

func printCredentials(c protocol.Credentials, format string) string {
	switch format {
	case "cnf":
		return options(withSystemCAs(c), false)
	case "env":
		return protocol.ShellExports("MYSQL_HOST", c.Host, "MYSQL_TCP_PORT", strconv.Itoa(c.Port), "MYSQL_USER", c.User,
			"MYSQL_PWD", c.Password, "MYSQL_DATABASE", c.Database, "MYSQL_SSL_MODE", sslMode(c), "MYSQL_SSL_CA", c.CAFile)
	default:
		return dsn(c) + "\n"
	}
}

// dsn is a URL as MySQL Shell and many drivers take it.
func dsn(c protocol.Credentials) string {
	q := url.Values{"ssl-mode": {sslMode(c)}}
	if c.CAFile != "" && c.TLS != protocol.TLSOff {
		q.Set("ssl-ca", c.CAFile)
	}
	u := url.URL{
		Scheme: "mysql", User: url.UserPassword(c.User, c.Password),
		Host: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), Path: "/" + c.Database,
		RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20"),
	}
	return u.String()
}
