// Package phpsetup puts the sendmail wrapper and the PHP prepend into the
// settings of the PHPs of a Debian system, and takes them out again. What is set
// already stays where it is: a file of ours that is read after the others, or a
// marked block at the end of a pool's file, says otherwise.
//
// The wrapper goes into a file for each PHP. The prepend goes into single pools
// of php-fpm only. It takes PHP's own mail() away, so where it does not run,
// mail() is a fatal error; and everywhere but in a pool's php_admin_value a site
// can say by .user.ini or .htaccess that another prepend runs in its place, as
// security plugins do.
//
// Traps: PHP services read their settings when they are reloaded, which is not
// ours to do. Until then those that run go by the old ones: a program or a
// prepend that is taken away too early costs mail, or every page.
package phpsetup
