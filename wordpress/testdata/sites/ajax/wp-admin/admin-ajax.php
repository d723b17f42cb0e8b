<?php
define('DOING_AJAX', true);
define('WP_ADMIN', true);
require dirname(__DIR__) . '/wp-load.php';
do_action('wp_ajax_share');
