<?php
// As much of WordPress as mail goes through, in the shapes that it has: hooks,
// wp_mail, plugins behind links, a PHPMailer. It prints what it would send.

$GLOBALS['fake_hooks'] = array();
$GLOBALS['wp_plugin_paths'] = array();
$GLOBALS['wp_theme_directories'] = array(WP_CONTENT_DIR . '/themes');

class WP_Hook
{
	public static function run($name, $args)
	{
		if (!isset($GLOBALS['fake_hooks'][$name])) {
			return;
		}
		ksort($GLOBALS['fake_hooks'][$name]);
		foreach ($GLOBALS['fake_hooks'][$name] as $each) {
			foreach ($each as $hook) {
				call_user_func_array($hook, $args);
			}
		}
	}
}

function add_action($name, $hook, $priority = 10, $args = 1)
{
	$GLOBALS['fake_hooks'][$name][$priority][] = $hook;
}

function do_action($name)
{
	WP_Hook::run($name, array_slice(func_get_args(), 1));
}

function do_action_ref_array($name, $args)
{
	WP_Hook::run($name, $args);
}

function is_admin()
{
	return defined('WP_ADMIN') && WP_ADMIN;
}

function is_multisite()
{
	return defined('MULTISITE') && MULTISITE;
}

function get_current_blog_id()
{
	return isset($GLOBALS['fake_blog']) ? $GLOBALS['fake_blog'] : 1;
}

class Fake_Mailer
{
	public $Subject = '';
	public $CharSet = 'UTF-8';
	public $Mailer = 'mail';
	protected $RecipientsQueue = array();
	private $lists = array('to' => array(), 'cc' => array(), 'bcc' => array());
	private $custom = array();

	public function add($list, $address)
	{
		if (preg_match('/[\x80-\xff]/', $address)) {
			$this->RecipientsQueue[$address] = array($list, $address, '');
		} else {
			$this->lists[$list][] = array($address, '');
		}
	}

	public function getToAddresses()
	{
		return $this->lists['to'];
	}

	public function getCcAddresses()
	{
		return $this->lists['cc'];
	}

	public function getBccAddresses()
	{
		return $this->lists['bcc'];
	}

	public function punyencodeAddress($address)
	{
		return 'puny-' . bin2hex($address);
	}

	public function getCustomHeaders()
	{
		return $this->custom;
	}

	public function clearCustomHeaders()
	{
		$this->custom = array();
	}

	public function addCustomHeader($name, $value = null)
	{
		$this->custom[] = $value === null ? explode(':', $name, 2) : array($name, $value);
	}

	public function secureHeader($text)
	{
		return trim(str_replace(array("\r", "\n"), '', $text));
	}

	public function encodeHeader($text)
	{
		if (!preg_match('/[\x80-\xff\x00-\x08\x0b\x0c\x0e-\x1f]/', $text)) {
			return $text;
		}
		$words = array();
		foreach (preg_match('/[\x80-\xff]/', $text) && preg_match('//u', $text) ? preg_split('/(?<=\G.{8})/us', $text) : array($text) as $part) {
			if ($part !== '') {
				$words[] = '=?' . $this->CharSet . '?B?' . base64_encode($part) . '?=';
			}
		}
		return implode("\r\n ", $words);
	}

	public function show()
	{
		$headers = array();
		foreach ($this->custom as $header) {
			$headers[] = array($header[0], $header[1]);
		}
		return $headers;
	}
}

// Plugins first: one may have a wp_mail of its own.
foreach (array_merge((array) glob(WP_CONTENT_DIR . '/mu-plugins/*.php'), (array) glob(WP_CONTENT_DIR . '/plugins/*.php'), (array) glob(WP_CONTENT_DIR . '/plugins/*/plugin.php')) as $fake_file) {
	if (is_link(dirname($fake_file))) {
		$GLOBALS['wp_plugin_paths'][dirname($fake_file)] = dirname(realpath($fake_file));
	}
	require_once $fake_file;
}

if (!function_exists('wp_mail')) {
	function wp_mail($to, $subject, $message, $headers = array())
	{
		fake_send(new Fake_Mailer(), $to, $subject, $headers);
		return true;
	}
}

function fake_send($phpmailer, $to, $subject, $headers = array())
{
	foreach ((array) $to as $one) {
		$phpmailer->add('to', $one);
	}
	foreach ((array) $headers as $header) {
		list($name, $value) = explode(':', $header, 2);
		if (in_array(strtolower($name), array('cc', 'bcc'), true)) {
			foreach (explode(',', $value) as $one) {
				$phpmailer->add(strtolower($name), trim($one));
			}
		} else {
			$phpmailer->addCustomHeader($name, trim($value));
		}
	}
	$phpmailer->Subject = $subject;
	do_action_ref_array('phpmailer_init', array(&$phpmailer));
	echo json_encode(array('headers' => $phpmailer->show())), "\n";
}

foreach ((array) glob(WP_CONTENT_DIR . '/themes/*/functions.php') as $fake_file) {
	require_once $fake_file;
}
