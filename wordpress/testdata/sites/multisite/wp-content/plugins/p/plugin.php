<?php
define('MULTISITE', true);
add_action('case', function () {
	$GLOBALS['fake_blog'] = 12;
	wp_mail('a@example.jp', 's', 'x');
});
