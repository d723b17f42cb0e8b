<?php
define('REST_REQUEST', true);
require __DIR__ . '/wp-load.php';
do_action('case');
