<?php
// blog.php ROOT DOMAIN BLOG TITLE OWNER - adds the site BLOG (a host name below
// DOMAIN) to the network in ROOT.

$_SERVER['HTTP_HOST']       = $argv[2];
$_SERVER['REQUEST_URI']     = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
$_SERVER['REMOTE_ADDR']     = '127.0.0.1';

// In the place of WordPress's own: a new site mails nobody.
function wp_mail() {
	return true;
}

require $argv[1] . '/wp-load.php';

$id = wpmu_create_blog( $argv[3], '/', $argv[4], 1 );
if ( is_wp_error( $id ) ) {
	fwrite( STDERR, $id->get_error_message() . "\n" );
	exit( 1 );
}
switch_to_blog( $id );
switch_theme( 'plain' );
wp_update_post( array( 'ID' => 1, 'post_title' => $argv[4] ) );
update_option( 'admin_email', $argv[5] );
