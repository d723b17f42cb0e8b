<?php
// network.php ROOT DOMAIN - makes the tables of a network of sites (multisite)
// beside those of the WordPress in ROOT. Its wp-config.php has to say so after.

$_SERVER['HTTP_HOST']       = $argv[2];
$_SERVER['REQUEST_URI']     = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

define( 'WP_INSTALLING_NETWORK', true );
require $argv[1] . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/network.php';

foreach ( $wpdb->tables( 'ms_global' ) as $table => $name ) {
	$wpdb->$table = $name;
}
install_network();
$done = populate_network( 1, $argv[2], get_user_by( 'id', 1 )->user_email, 'Network', '/', true );
if ( is_wp_error( $done ) && 'no_wildcard_dns' !== $done->get_error_code() ) {
	fwrite( STDERR, $done->get_error_message() . "\n" );
	exit( 1 );
}
