// Package wordpress puts relayguard's must-use plugin and a key into a WordPress
// site, looks after them and takes them out, and has the PHP prepend for sites
// that call mail() themselves. The PHP is in stamp.php (what both have in
// common), relayguard.php and prepend.php.
//
// What stands in a document root belongs to the site, and the site may be
// hostile: it can replace any directory by a symbolic link at any moment. So no
// file there is written, read or removed with more rights than the site's own.
// The work is done by a child process with the site's uid (Serve), in a directory
// that is passed to it open, one path component at a time, never through a link.
// What the child answers is the site's word.
package wordpress
