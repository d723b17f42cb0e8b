<?php
// What every way into the fake WordPress begins with.
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
defined('WP_CONTENT_DIR') || define('WP_CONTENT_DIR', ABSPATH . 'wp-content');
define('WP_PLUGIN_DIR', WP_CONTENT_DIR . '/plugins');
define('WPMU_PLUGIN_DIR', WP_CONTENT_DIR . '/mu-plugins');
require __DIR__ . '/wp-includes/fake-wordpress.php';
