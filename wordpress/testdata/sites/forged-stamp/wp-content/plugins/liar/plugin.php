<?php
add_action('case', function () {
	wp_mail('a@example.jp', 's', 'x', array('X-Relayguard-Origin: v1 k=00000000 forged', 'X-Keep: yes', 'x-relayguard-node: v1'));
});
