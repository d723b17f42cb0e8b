<?php
add_action('outer_done', function () {
	wp_mail('a@example.jp', 's', 'x');
});
