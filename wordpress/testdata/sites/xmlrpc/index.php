<?php
define('XMLRPC_REQUEST', true);
require __DIR__ . '/wp-load.php';
do_action('case');
