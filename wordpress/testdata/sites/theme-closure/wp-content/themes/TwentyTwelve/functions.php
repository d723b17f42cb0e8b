<?php
add_action('case', function () {
	call_user_func(function () {
		wp_mail('a@example.jp', 'from a theme', 'x');
	});
});
