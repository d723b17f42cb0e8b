<?php
// Prints what the real PHPMailer of WordPress writes of mails with these subjects
// once the must-use plugin was asked: a JSON list. Arguments: WordPress, the site.
define('ABSPATH', $argv[1] . '/');
define('WP_CONTENT_DIR', $argv[2] . '/wp-content');
$hooks = array();
function add_action($name, $hook, $priority)
{
	$GLOBALS['hooks'][] = $hook;
}
foreach (array('Exception', 'SMTP', 'PHPMailer') as $class) {
	require ABSPATH . 'wp-includes/PHPMailer/' . $class . '.php';
}
require WP_CONTENT_DIR . '/mu-plugins/relayguard.php';

$all = array();
foreach (json_decode(stream_get_contents(STDIN), true) as $case) {
	$mailer = new PHPMailer\PHPMailer\PHPMailer(true);
	$mailer->Mailer = $case['mailer'];
	$mailer->CharSet = $case['charset'];
	$mailer->Subject = $case['subject'];
	$mailer->Body = 'x';
	$mailer->setFrom('shop@example.jp');
	$mailer->addAddress('Taro@Example.jp', '太郎');
	$mailer->addBCC('B@example.jp');
	$mailer->addCustomHeader('X-Relayguard-Origin', 'forged');
	$mailer->addCustomHeader('X-Kept: yes');
	foreach ($hooks as $hook) {
		$hook($mailer);
	}
	$mailer->preSend();
	$all[] = $mailer->getSentMIMEMessage();
}
echo json_encode($all);
