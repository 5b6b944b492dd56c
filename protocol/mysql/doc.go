// Package mysql is everything that knows MySQL and MariaDB: their wire protocol, both logins, what to
// record of a session, and the accounts on a server.
package mysql
