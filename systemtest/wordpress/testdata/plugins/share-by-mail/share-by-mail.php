<?php
/*
Plugin Name: Share by mail
Description: A button below each post that mails it to a friend, without a login. As such buttons were when attackers drove them.
Version: 1.0

The constant SHARE_BY_MAIL_WAY says how the mail leaves: "wp_mail" (as when it
is not defined), "own_mailer" (a PHPMailer of its own, as WP-EMail 2.67 had),
"plain" (PHP's mail()) or "cron" (the post is answered at once, wp-cron sends).
*/

defined( 'ABSPATH' ) || exit;

add_action( 'wp_ajax_share_by_mail', 'share_by_mail_answer' );
add_action( 'wp_ajax_nopriv_share_by_mail', 'share_by_mail_answer' );
add_action( 'share_by_mail_work', 'share_by_mail_work' );

/** Answers the button. */
function share_by_mail_answer() {
	$post  = get_post( isset( $_POST['post'] ) ? absint( $_POST['post'] ) : 0 );
	$share = array(
		'name'  => isset( $_POST['name'] ) ? substr( sanitize_text_field( wp_unslash( $_POST['name'] ) ), 0, 200 ) : '',
		'email' => isset( $_POST['email'] ) ? sanitize_email( wp_unslash( $_POST['email'] ) ) : '',
		'to'    => isset( $_POST['to'] ) ? sanitize_email( wp_unslash( $_POST['to'] ) ) : '',
	);
	if ( ! $post || '' === $share['name'] || ! is_email( $share['email'] ) || ! is_email( $share['to'] ) ) {
		wp_send_json_error( 'incomplete', 400 );
	}
	$share['title'] = html_entity_decode( get_the_title( $post ), ENT_QUOTES, 'UTF-8' );
	$share['url']   = get_permalink( $post );
	if ( share_by_mail_send( $share ) ) {
		wp_send_json_success();
	}
	wp_send_json_error( 'not sent', 502 );
}

/** Sends or queues one mail; false if it could not be handed over. */
function share_by_mail_send( array $share ) {
	switch ( defined( 'SHARE_BY_MAIL_WAY' ) ? SHARE_BY_MAIL_WAY : 'wp_mail' ) {
		case 'own_mailer':
			return share_by_mail_own_mailer( $share );
		case 'plain':
			return share_by_mail_plain( $share );
		case 'cron':
			return share_by_mail_queue( $share );
	}
	return share_by_mail_wp_mail( $share );
}

function share_by_mail_subject( array $share ) {
	return '[Shared Post] ' . $share['title'];
}

function share_by_mail_text( array $share ) {
	return $share['name'] . ' (' . $share['email'] . ") thinks you may be interested in the following post:\n\n"
		. $share['title'] . "\n" . $share['url'] . "\n";
}

function share_by_mail_from() {
	return 'wordpress@' . wp_parse_url( network_home_url(), PHP_URL_HOST );
}

function share_by_mail_wp_mail( array $share ) {
	$headers = array( 'Reply-To: ' . $share['name'] . ' <' . $share['email'] . '>' );
	return wp_mail( $share['to'], share_by_mail_subject( $share ), share_by_mail_text( $share ), $headers );
}

function share_by_mail_own_mailer( array $share ) {
	require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php';
	require_once ABSPATH . WPINC . '/PHPMailer/SMTP.php';
	require_once ABSPATH . WPINC . '/PHPMailer/Exception.php';
	try {
		$mailer          = new PHPMailer\PHPMailer\PHPMailer( true );
		$mailer->CharSet = 'UTF-8';
		$mailer->isMail();
		$mailer->setFrom( share_by_mail_from(), $share['name'], false );
		$mailer->addReplyTo( $share['email'], $share['name'] );
		$mailer->addAddress( $share['to'] );
		$mailer->Subject = share_by_mail_subject( $share );
		$mailer->Body    = share_by_mail_text( $share );
		return $mailer->send();
	} catch ( PHPMailer\PHPMailer\Exception $e ) {
		return false;
	}
}

function share_by_mail_plain( array $share ) {
	$headers = 'From: ' . share_by_mail_from() . "\r\nReply-To: " . $share['email']
		. "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit";
	$subject = '=?UTF-8?B?' . base64_encode( share_by_mail_subject( $share ) ) . '?=';
	return mail( $share['to'], $subject, share_by_mail_text( $share ), $headers );
}

/** Keeps a share for wp-cron: one row each, as many posts come at once. */
function share_by_mail_queue( array $share ) {
	if ( ! add_option( 'share_by_mail_job_' . bin2hex( random_bytes( 8 ) ), $share, '', 'no' ) ) {
		return false;
	}
	if ( ! wp_next_scheduled( 'share_by_mail_work' ) ) {
		wp_schedule_single_event( time(), 'share_by_mail_work' );
	}
	return true;
}

/** Sends what is queued, some at a time; wp-cron calls it. */
function share_by_mail_work() {
	global $wpdb;
	$jobs = $wpdb->get_col( "SELECT option_name FROM {$wpdb->options} WHERE option_name LIKE 'share\\_by\\_mail\\_job\\_%' ORDER BY option_id LIMIT 50" );
	foreach ( $jobs as $job ) {
		$share = get_option( $job );
		delete_option( $job );
		if ( is_array( $share ) ) {
			share_by_mail_wp_mail( $share );
		}
	}
}
