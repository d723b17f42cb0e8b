<?php
class A_Smtp
{
	public function send($to, $subject)
	{
		fake_send(new Fake_Mailer(), $to, $subject);
	}
}
function wp_mail($to, $subject, $message)
{
	$smtp = new A_Smtp();
	$smtp->send($to, $subject);
	return true;
}
