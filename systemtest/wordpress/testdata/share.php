<?php
// share.php ROOT TO HOST - the share plugin of the WordPress in ROOT, the site of HOST,
// shares its post with TO.

$_SERVER['HTTP_HOST']       = $argv[3];
$_SERVER['REQUEST_URI']     = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require $argv[1] . '/wp-load.php';

$sent = share_by_mail_wp_mail(
	array(
		'name'  => 'Taro Yamada',
		'email' => 'taro@visitors.example.org',
		'to'    => $argv[2],
		'title' => get_the_title( 1 ),
		'url'   => get_permalink( 1 ),
	)
);
exit( $sent ? 0 : 1 );
