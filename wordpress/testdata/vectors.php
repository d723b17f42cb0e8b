<?php
// Prints the stamps of the vectors in a file, a JSON list.
require __DIR__ . '/../stamp.php';
$all = array();
foreach (json_decode(file_get_contents($argv[1]), true) as $v) {
	$key = array('id' => $v['key_id'], 'key' => hex2bin($v['key_hex']));
	$origin = array('blog' => $v['blog'], 'plugin' => $v['plugin'], 'entry' => $v['entry'], 'script' => $v['script'], 'client' => $v['client']);
	$value = Relayguard_Stamp_1::value($key, $v['time'], base64_decode(strtr($v['nonce'], '-_', '+/')), $origin, $v['recipients'], $v['subject']);
	$words = array();
	foreach (str_split($value, 40) as $part) { // as PHPMailer's long fields are
		$words[] = '=?us-ascii?Q?' . str_replace(array('=', '_', ' '), array('=3D', '=5F', '_'), $part) . '?=';
	}
	if (!Relayguard_Stamp_1::made($key, implode("\r\n ", $words))) {
		$value = 'its own stamp is not known again: ' . $value;
	}
	$all[] = $value;
}
echo json_encode($all);
