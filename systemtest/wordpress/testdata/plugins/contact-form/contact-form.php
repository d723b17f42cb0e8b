<?php
/*
Plugin Name: Contact form
Description: Mails what visitors write in the form of the front page to the site's owner.
Version: 1.0
*/

defined( 'ABSPATH' ) || exit;

add_action( 'template_redirect', 'contact_form_answer' );

function contact_form_answer() {
	if ( ! isset( $_POST['contact_form_email'], $_POST['contact_form_text'] ) ) {
		return;
	}
	$email = sanitize_email( wp_unslash( $_POST['contact_form_email'] ) );
	$text  = sanitize_textarea_field( wp_unslash( $_POST['contact_form_text'] ) );
	if ( ! is_email( $email ) || '' === $text ) {
		wp_die( 'incomplete', '', array( 'response' => 400 ) );
	}
	$sent = wp_mail(
		get_option( 'admin_email' ),
		'[' . get_option( 'blogname' ) . '] Message from a visitor',
		$text . "\n\n-- \nSent by the contact form.\n",
		array( 'Reply-To: ' . $email )
	);
	if ( ! $sent ) {
		wp_die( 'not sent', '', array( 'response' => 502 ) );
	}
	wp_send_json_success();
}
