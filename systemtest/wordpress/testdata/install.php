<?php
// install.php ROOT - sets WordPress in ROOT up in the empty database that its
// wp-config.php names: an admin, eight customers, a post and the theme "plain".

$_SERVER['HTTP_HOST']       = 'template.example.jp';
$_SERVER['REQUEST_URI']     = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

// In the place of WordPress's own: installing mails nobody.
function wp_mail() {
	return true;
}

define( 'WP_INSTALLING', true );
require $argv[1] . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

wp_install( 'Template', 'admin', 'owner@template.example.jp', true, '', 'secret' );
switch_theme( 'plain' );
foreach ( array( 'hanako', 'jiro', 'saburo', 'yoshiko', 'goro', 'michiko', 'kenji', 'naomi' ) as $login ) {
	$id = wp_create_user( $login, 'secret', $login . '@customers.example.net' );
	if ( is_wp_error( $id ) ) {
		fwrite( STDERR, $id->get_error_message() . "\n" );
		exit( 1 );
	}
}
