// Package databasetest starts private real servers for tests: MariaDB, PostgreSQL
// and slapd, each with its data below a directory of the test, on a Unix socket
// only, ended by its pid at the end of the test. And it runs the real postmap(1).
//
// Debian packages: mariadb-server, postgresql-15, slapd, ldap-utils, sqlite3;
// postfix, postfix-mysql, postfix-pgsql, postfix-sqlite, postfix-ldap.
//
// Trap: MariaDB and PostgreSQL do not run as root; as root they are started under
// their own accounts, which must be able to reach the directory.
package databasetest
