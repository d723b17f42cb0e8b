<?php
add_action('case', function () {
	wp_mail('a@example.jp', 's', 'x', array('X-Relayguard-Origin: forged'));
});
