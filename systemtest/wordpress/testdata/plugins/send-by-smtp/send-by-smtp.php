<?php
/*
Plugin Name: Send by SMTP
Description: All mail of wp_mail() goes to a mail server on this host by SMTP, as the "SMTP" plugins do. SEND_BY_SMTP_PORT is its port.
Version: 1.0
*/

defined( 'ABSPATH' ) || exit;

add_action( 'phpmailer_init', 'send_by_smtp' );

function send_by_smtp( $mailer ) {
	$mailer->isSMTP();
	$mailer->Host        = '127.0.0.1';
	$mailer->Port        = SEND_BY_SMTP_PORT;
	$mailer->SMTPAuth    = false;
	$mailer->SMTPAutoTLS = false;
}
