<?php
// relayguard:prepend. For auto_prepend_file together with disable_functions =
// mail,mb_send_mail: gives PHP a mail() that signs which plugin or script a mail
// comes from, and hands it to sendmail_path as PHP's own does. It does so for
// PHP 8.0 and newer, which let a disabled function be defined anew; for older
// ones it does nothing but to run the prepend that was there before.

require __DIR__ . '/stamp.php'; // relayguard:include

if (PHP_VERSION_ID >= 80000 && !class_exists('Relayguard_Prepend', false)) {
	class Relayguard_Prepend
	{
		const SITES = '/etc/relayguard/php-sites.php'; // relayguard:sites

		private static $main = '';

		public static function start()
		{
			$main = isset($_SERVER['SCRIPT_FILENAME']) ? Relayguard_Stamp_1::quietly(function () {
				return realpath($_SERVER['SCRIPT_FILENAME']);
			}) : null;
			self::$main = is_string($main) ? $main : '';
		}

		/** mail() as PHP's manual has it. */
		public static function mail($name, $to, $subject, $message, $headers, $params)
		{
			$to = self::text($name, 1, 'to', $to);
			$subject = self::text($name, 2, 'subject', $subject);
			$message = self::text($name, 3, 'message', $message);
			if (is_array($headers)) {
				$headers = self::built($headers);
			} else {
				$headers = rtrim(self::text($name, 4, 'additional_headers', $headers), " \t\n\r\0\x0B");
			}
			$params = self::text($name, 5, 'additional_params', $params);
			$to = self::oneLine($to);
			$subject = self::oneLine($subject);
			$trace = self::trace();
			$from = isset($trace[0]['file']) ? $trace[0]['file'] : '';
			self::log($from, isset($trace[0]['line']) ? $trace[0]['line'] : 0, $to, $headers, $subject);
			$eol = ini_get('mail.mixed_lf_and_crlf') ? "\n" : "\r\n";
			if (ini_get('mail.add_x_header')) {
				$headers = 'X-PHP-Originating-Script: ' . getmyuid() . ':' . basename($from) . ($headers === '' ? '' : $eol . $headers);
			}
			if (self::malformed($headers)) {
				trigger_error($name . '(): Multiple or malformed newlines found in additional_header', E_USER_WARNING);
				return false;
			}
			$stamp = Relayguard_Stamp_1::quietly(function () use ($trace, $to, $subject, $headers) {
				return Relayguard_Prepend::stamp($trace, $to, $subject, $headers);
			});
			if (is_string($stamp)) {
				$headers = Relayguard_Stamp_1::FIELD . ': ' . $stamp . ($headers === '' ? '' : $eol . $headers);
			}
			$text = 'To: ' . $to . $eol . 'Subject: ' . $subject . $eol . ($headers === '' ? '' : $headers . $eol) . $eol . $message . $eol;
			return self::send($name, $text, $params);
		}

		/** The stamp for a mail, null if it has one, or none can be made. */
		public static function stamp($trace, $to, $subject, $headers)
		{
			list($root, $key) = self::key();
			if ($key === null) {
				return null;
			}
			$to = array($to);
			foreach (self::fields($headers) as $field) {
				if ($field[0] === strtolower(Relayguard_Stamp_1::FIELD) && Relayguard_Stamp_1::made($key, $field[1])) {
					return null; // by the must-use plugin
				}
				if (in_array($field[0], array('to', 'cc', 'bcc'), true)) {
					$to[] = $field[1];
				}
			}
			$wordpress = defined('ABSPATH');
			$origin = Relayguard_Stamp_1::caller(Relayguard_Stamp_1::outward($trace), $root, self::$main);
			$origin['blog'] = $wordpress ? Relayguard_Stamp_1::blog() : 0;
			$origin['entry'] = $wordpress ? Relayguard_Stamp_1::entry() : Relayguard_Stamp_1::request();
			$origin['client'] = Relayguard_Stamp_1::client();
			return Relayguard_Stamp_1::make($key, $origin, self::addresses(implode(',', $to)), Relayguard_Stamp_1::decoded($subject));
		}

		/** The directory of the site, and its key or null. */
		private static function key()
		{
			$root = isset($_SERVER['DOCUMENT_ROOT']) && is_string($_SERVER['DOCUMENT_ROOT']) ? rtrim($_SERVER['DOCUMENT_ROOT'], '/') : '';
			$own = '/relayguard/key.php';
			if (defined('ABSPATH') && defined('WPMU_PLUGIN_DIR') && ($key = Relayguard_Stamp_1::key(WPMU_PLUGIN_DIR . $own)) !== null) {
				return array(rtrim(ABSPATH, '/'), $key);
			}
			$sites = is_readable(self::SITES) ? include self::SITES : array();
			$sites = is_array($sites) ? $sites : array();
			for ($dir = dirname(self::$main); strlen($dir) > 1; $dir = dirname($dir)) {
				if (isset($sites[$dir]) && is_string($sites[$dir]) && ($key = Relayguard_Stamp_1::key($sites[$dir])) !== null) {
					return array($dir, $key);
				}
				if (($key = Relayguard_Stamp_1::key($dir . '/wp-content/mu-plugins' . $own)) !== null) {
					return array($dir, $key);
				}
			}
			return array($root, null);
		}

		private static function trace()
		{
			$trace = array();
			foreach (debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS) as $frame) {
				if (!isset($frame['file']) || $frame['file'] !== __FILE__) {
					$trace[] = $frame;
				}
			}
			return $trace;
		}

		/** An argument as PHP takes it. Null is taken, as PHP's own mail() takes it. */
		private static function text($name, $number, $argument, $value)
		{
			if (is_array($value) || is_object($value) && !method_exists($value, '__toString') || is_resource($value)) {
				throw new TypeError($name . '(): Argument #' . $number . ' ($' . $argument . ') must be of type ' . ($number === 4 ? 'array|string' : 'string') . ', ' . get_debug_type($value) . ' given');
			}
			$value = (string) $value;
			if (strpos($value, "\0") !== false) {
				throw new ValueError($name . '(): Argument #' . $number . ' ($' . $argument . ') must not contain any null bytes');
			}
			return $value;
		}

		/** To and Subject: control characters become blanks, but for folding. */
		private static function oneLine($text)
		{
			$text = rtrim($text, " \t\n\r\x0B\x0C");
			return preg_replace('/\r\n[ \t]+(*SKIP)(*FAIL)|[\x00-\x1f\x7f]/', ' ', $text);
		}

		/** Headers of an array: what may stand once, and what may be in a field. */
		private static function built($headers)
		{
			$once = array('orig-date', 'from', 'sender', 'reply-to', 'cc', 'bcc', 'message-id', 'references');
			$never = array('to' => 'To', 'subject' => 'Subject'); // mail() writes them
			$lines = array();
			foreach ($headers as $field => $value) {
				if (!is_string($field)) {
					throw new TypeError('Header name cannot be numeric, ' . $field . ' given');
				}
				if (isset($never[strtolower($field)])) {
					throw new ValueError('The additional headers cannot contain the "' . $never[strtolower($field)] . '" header');
				}
				$array = is_array($value);
				$single = in_array(strtolower($field), $once, true);
				if (!is_string($value) && (!$array || $single)) {
					throw new TypeError('Header "' . ($single ? strtolower($field) : $field) . '" must be of type ' . ($single ? 'string' : 'array|string') . ', ' . get_debug_type($value) . ' given');
				}
				foreach ((array) $value as $number => $one) {
					if (!is_int($number)) {
						throw new TypeError('Header "' . $field . '" must only contain numeric keys, "' . $number . '" found');
					}
					if (!is_string($one)) {
						throw new TypeError('Header "' . $field . '" must only contain values of type string, ' . get_debug_type($one) . ' found');
					}
					if (!preg_match('/^[\x21-\x39\x3b-\x7e]+\z/', $field)) {
						throw new ValueError('Header name "' . $field . '" contains invalid characters');
					}
					if (preg_match('/\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n(?![ \t])|\x00/', $one, $m)) {
						$what = array("\r\n" => 'CRLF characters that are used as a line separator and are', "\r" => 'CR character that is', "\n" => 'LF character that is', "\0" => 'NULL character that is');
						throw new ValueError('Header "' . $field . '" contains ' . $what[$m[0]] . ' not allowed in the header');
					}
					$lines[] = $field . ': ' . $one;
				}
			}
			return implode("\r\n", $lines);
		}

		/** Whether headers begin with none, or have an empty line, with which a body would begin. */
		private static function malformed($headers)
		{
			return $headers !== '' && (preg_match('/^[^\x21-\x39\x3b-\x7e]/', $headers)
				|| preg_match('/\r(?:\z|\r|\n(?:\z|\n|\r))|\n(?:\z|\r|\n)/', $headers));
		}

		/** Header fields as array(name in lower case, value). */
		private static function fields($headers)
		{
			$all = array();
			foreach (preg_split('/\r?\n(?![ \t])|\r(?!\n)/', $headers) as $line) {
				$parts = explode(':', $line, 2);
				if (count($parts) === 2) {
					$all[] = array(strtolower(trim($parts[0])), trim($parts[1]));
				}
			}
			return $all;
		}

		/** The addresses of a list (RFC 5322 §3.4): without names, comments, groups. */
		private static function addresses($list)
		{
			$all = array();
			$one = $angle = '';
			$depth = 0;
			$inAngle = false;
			preg_match_all('/"(?:[^"\\\\]|\\\\.)*"?|\\\\.|[(),:;<>]|[^"\\\\(),:;<>]+/s', $list . ',', $tokens);
			foreach ($tokens[0] as $token) {
				if ($token === '(' || $token === ')') {
					$depth = max(0, $depth + ($token === '(' ? 1 : -1));
				} elseif ($depth > 0) {
					continue;
				} elseif ($token === '<') {
					$inAngle = true;
					$angle = '';
				} elseif ($token === '>') {
					$inAngle = false;
				} elseif ($inAngle) {
					$angle .= $token;
				} elseif ($token === ':') {
					$one = ''; // a group's name
				} elseif ($token === ',' || $token === ';') {
					$address = trim($angle !== '' ? $angle : $one);
					if ($address !== '') {
						$all[] = $address;
					}
					$one = $angle = '';
				} else {
					$one .= $token;
				}
			}
			return $all;
		}

		/** mail.log, as PHP's own mail() keeps it. */
		private static function log($file, $line, $to, $headers, $subject)
		{
			$log = (string) ini_get('mail.log');
			if ($log === '') {
				return;
			}
			$text = 'mail() on [' . $file . ':' . $line . ']: To: ' . $to . ' -- Headers: ' . preg_replace('/[\r\n]+/', ' ', $headers) . ' -- Subject: ' . $subject;
			Relayguard_Stamp_1::quietly(function () use ($log, $text) {
				if (strtolower($log) === 'syslog') {
					syslog(LOG_NOTICE, $text);
				} else {
					error_log('[' . date('d-M-Y H:i:s e') . '] ' . $text . "\n", 3, $log);
				}
			});
		}

		/** Hands the text to sendmail_path; true if the program says it has it. */
		private static function send($name, $text, $params)
		{
			$command = (string) ini_get('sendmail_path');
			$forced = (string) ini_get('mail.force_extra_parameters');
			$params = $forced !== '' ? $forced : $params;
			if ($command === '') {
				return false;
			}
			if ($params !== '') {
				if (!function_exists('escapeshellcmd') && !preg_match('#^[A-Za-z0-9 @._/=+-]*\z#', $params)) {
					trigger_error($name . '(): escapeshellcmd() is disabled, so that additional_params cannot be made safe', E_USER_WARNING);
					return false;
				}
				$command .= ' ' . (function_exists('escapeshellcmd') ? escapeshellcmd($params) : $params);
			}
			$status = Relayguard_Stamp_1::quietly(function () use ($command, $text) {
				return Relayguard_Prepend::pipe($command, $text);
			});
			if ($status === null) {
				trigger_error($name . '(): Could not execute mail delivery program', E_USER_WARNING);
			}
			return $status === 0;
		}

		/** The exit status of a command that read the text; null if it cannot be run. */
		public static function pipe($command, $text)
		{
			if (function_exists('popen') && function_exists('pclose')) {
				$pipe = popen($command, 'w');
				if (!is_resource($pipe)) {
					return null;
				}
				self::write($pipe, $text);
				return pclose($pipe);
			}
			if (!function_exists('proc_open') || !function_exists('proc_close')) {
				return null;
			}
			$process = proc_open($command, array(0 => array('pipe', 'r')), $pipes);
			if (!is_resource($process)) {
				return null;
			}
			self::write($pipes[0], $text);
			fclose($pipes[0]);
			return proc_close($process);
		}

		/** Writes all of it, or as much as the other end reads. */
		private static function write($pipe, $text)
		{
			for ($at = 0; $at < strlen($text); $at += $n) {
				$n = fwrite($pipe, $at === 0 ? $text : substr($text, $at));
				if (!is_int($n) || $n === 0) {
					return;
				}
			}
		}

		/** mb_send_mail(): encodes for mb_language(), then mail(). */
		public static function multibyte($to, $subject, $message, $headers, $params)
		{
			if (is_array($headers)) {
				$headers = self::built($headers);
			}
			$headers = rtrim(self::text('mb_send_mail', 4, 'additional_headers', $headers), " \t\n\r\0\x0B");
			$info = mb_get_info();
			$charset = $info['mail_charset'];
			$encoding = strtoupper($info['mail_body_encoding']);
			$has = array();
			foreach (self::fields($headers) as $field) {
				$has[$field[0]] = true;
				if ($field[0] === 'content-type' && preg_match('/charset\s*=\s*"?([^\s;"]+)/i', $field[1], $m) && in_array(strtolower($m[1]), array_map('strtolower', mb_list_encodings()), true)) {
					$charset = $m[1];
				}
				if ($field[0] === 'content-transfer-encoding' && in_array(strtoupper($field[1]), array('BASE64', '7BIT', '8BIT', 'QUOTED-PRINTABLE'), true)) {
					$encoding = strtoupper($field[1]);
				}
			}
			$subject = mb_encode_mimeheader((string) $subject, $charset, strtoupper($info['mail_header_encoding']) === 'BASE64' ? 'B' : 'Q', "\r\n", strlen('Subject: [PHP-jp nnnnnnnn]'));
			$message = mb_convert_encoding((string) $message, $charset, mb_internal_encoding());
			if ($encoding === 'BASE64') {
				$message = rtrim(chunk_split(base64_encode($message), 76, "\r\n"));
			} elseif ($encoding === 'QUOTED-PRINTABLE' || $encoding === 'QPRINT') {
				$encoding = 'quoted-printable';
				$message = quoted_printable_encode($message);
			}
			$add = array();
			if (!isset($has['mime-version'])) {
				$add[] = 'MIME-Version: 1.0';
			}
			if (!isset($has['content-type'])) {
				$add[] = 'Content-Type: text/plain; charset=' . mb_preferred_mime_name($charset);
			}
			if (!isset($has['content-transfer-encoding'])) {
				$add[] = 'Content-Transfer-Encoding: ' . ($encoding === 'BASE64' ? 'BASE64' : strtolower($encoding));
			}
			if ($headers !== '') {
				array_unshift($add, $headers);
			}
			return self::mail('mb_send_mail', $to, $subject, $message, implode("\r\n", $add), $params);
		}
	}

	Relayguard_Prepend::start();

	if (!function_exists('mail')) {
		function mail($to, $subject, $message, $additional_headers = array(), $additional_params = '')
		{
			return Relayguard_Prepend::mail('mail', $to, $subject, $message, $additional_headers, $additional_params);
		}
	}
	if (!function_exists('mb_send_mail') && function_exists('mb_encode_mimeheader')) {
		function mb_send_mail($to, $subject, $message, $additional_headers = array(), $additional_params = null)
		{
			return Relayguard_Prepend::multibyte($to, $subject, $message, $additional_headers, $additional_params);
		}
	}
}

// The prepend that was there before. It runs here and not in a function: its
// variables are the page's.
if ('' !== '' && is_file('')) { // relayguard:chain
	require '';
}
