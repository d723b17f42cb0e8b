<?php
add_action('case', function () {
	wp_mail('a@example.jp', "line\r\nbreak", 'x');
});
