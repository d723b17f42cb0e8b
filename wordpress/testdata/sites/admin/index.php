<?php
define('WP_ADMIN', true);
require __DIR__ . '/wp-load.php';
do_action('case');
