<?php
require __DIR__ . '/wp-load.php';
wp_mail('a@example.jp', '[Shop] Password Reset', 'x');
