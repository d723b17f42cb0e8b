<?php
class Throwing_Mailer extends Fake_Mailer
{
	public function getToAddresses()
	{
		throw new Error('not today');
	}
}
set_error_handler(function ($number, $text) {
	throw new ErrorException($text);
});
add_action('case', function () {
	$nothing = null;
	do_action_ref_array('phpmailer_init', array(&$nothing));
	fake_send(new Throwing_Mailer(), 'a@example.jp', 's');
});
