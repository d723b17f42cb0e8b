<?php
require dirname(__DIR__, 3) . '/wp-load.php';
wp_mail('a@example.jp', 's', 'x');
