// Package database lists what databases say about mail: the lookup tables of
// Postfix in MySQL, PostgreSQL, SQLite and LDAP (mysql_table(5), pgsql_table(5),
// sqlite_table(5), ldap_table(5)), and the tables of hosting panels.
//
// A lookup table of this kind answers one key at a time. To list it, the query is
// turned round: the conditions that hold the key are taken out and become columns,
// and what they would have had to be equal to is solved for the key (derive.go,
// solve.go). Where that alone would not be exact (OR, UNION, LIMIT, conditions of
// another form) it gives candidates only, and each is asked by the very query that
// Postfix would send. A query that cannot be turned round at all, such as a stored
// procedure, is asked with the values of its tables and all known addresses; the
// listing is then Incomplete, and says so.
//
// Nothing is written: sessions are read-only by the server's own means, each
// statement is one SELECT (or CALL), ends after a timeout, and returns a bounded
// number of rows. What to judge, and where .cf files are named, is left to others.
//
// The trap: what is equal, the database decides. With the collations that MySQL
// uses by default "alicé@corp.test" and "alice@corp.test " answer for
// alice@corp.test. Such keys are asked for in their plain form too.
package database
