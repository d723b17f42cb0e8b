// Package sites keeps the register of web sites that sign their mail: name, Unix
// account, key, directory. The daemon alone writes it; "relayguard wordpress" and
// "relayguard php" ask the daemon to.
//
// The file has keys in it: mode 0600. A file that cannot be read is put aside
// and not overwritten: with the keys in it gone, the sites' mail would be
// unattributed until each is installed again.
package sites
