<?php
add_action('wp_ajax_share', 'share_send');
function share_send()
{
	wp_mail('friend@example.com', '[Shared Post] Spring sale', 'look');
}
