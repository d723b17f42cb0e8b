<?php
// What the must-use plugin and the prepend have in common: the signed line that
// says where a mail comes from. relayguard puts this into both of them. It keeps
// to what PHP 5.4 could parse, for the sites that run old ones.

if (!class_exists('Relayguard_Stamp_1', false)) {
	class Relayguard_Stamp_1
	{
		const FIELD = 'X-Relayguard-Origin';

		/**
		 * The field's value. $key has 'id' and 'key' (raw); $origin has 'plugin',
		 * 'script', 'blog', 'entry', 'client'; $subject is decoded.
		 */
		public static function value($key, $time, $nonce, $origin, $recipients, $subject)
		{
			$text = 'v1 k=' . $key['id'] . ' t=' . $time . ' n=' . self::base64($nonce)
				. ' b=' . (int) $origin['blog'] . ' p=' . self::base64($origin['plugin']) . ' e=' . $origin['entry']
				. ' f=' . self::base64($origin['script']) . ' c=' . $origin['client']
				. ' r=' . self::recipients($recipients) . ' s=' . self::subject($subject);
			return $text . ' m=' . self::mac($key['key'], $text);
		}

		/** A stamp of now. */
		public static function make($key, $origin, $recipients, $subject)
		{
			return self::value($key, time(), random_bytes(12), $origin, $recipients, $subject);
		}

		/** Whether the key made this value, which may be encoded and folded. */
		public static function made($key, $value)
		{
			$parts = explode(' m=', self::blanks(self::decoded($value)));
			return count($parts) === 2 && strpos($parts[0], 'v1 k=' . $key['id'] . ' ') === 0
				&& hash_equals(self::mac($key['key'], $parts[0]), $parts[1]);
		}

		private static function mac($key, $text)
		{
			return self::base64(hash_hmac('sha256', "relayguard-origin\n" . $text, $key, true));
		}

		private static function recipients($all)
		{
			$each = array();
			foreach ($all as $one) {
				$each[] = strtr(trim((string) $one), 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz');
			}
			$each = array_unique($each, SORT_STRING);
			sort($each, SORT_STRING);
			return self::base64(substr(hash('sha256', implode("\n", $each), true), 0, 16));
		}

		private static function subject($text)
		{
			return self::base64(substr(hash('sha256', self::blanks($text), true), 0, 16));
		}

		private static function blanks($text)
		{
			return trim(preg_replace('/[ \t\r\n]+/', ' ', (string) $text), ' ');
		}

		public static function base64($bytes)
		{
			return rtrim(strtr(base64_encode((string) $bytes), '+/', '-_'), '=');
		}

		/**
		 * A site's key as array('id', 'key'), null if there is none to be read. The
		 * file is read and not run: an opcode cache would keep one that was changed.
		 */
		public static function key($file)
		{
			if (!is_file($file) || !is_readable($file)) {
				return null;
			}
			$text = file_get_contents($file, false, null, 0, 4096);
			if (!is_string($text) || !preg_match("/'id' => '([0-9a-f]{8})'/", $text, $id) || !preg_match("/'key' => '([A-Za-z0-9_-]{43})'/", $text, $key)) {
				return null;
			}
			$raw = base64_decode(strtr($key[1], '-_', '+/'), true);
			return is_string($raw) && strlen($raw) === 32 ? array('id' => $id[1], 'key' => $raw) : null;
		}

		/** A header field's text as it is meant: unfolded, RFC 2047 decoded, UTF-8. */
		public static function decoded($text)
		{
			$text = preg_replace('/\r?\n(?=[ \t])/', '', (string) $text);
			if (!preg_match_all('/=\?([^?* ]+)(?:\*[^? ]*)?\?([bBqQ])\?([^? ]*)\?=/', $text, $words, PREG_SET_ORDER | PREG_OFFSET_CAPTURE)) {
				return $text;
			}
			$out = '';
			$at = 0;
			$after = false;
			foreach ($words as $w) {
				$between = substr($text, $at, $w[0][1] - $at);
				$word = self::word($w[1][0], $w[2][0], $w[3][0]);
				if (!$after || $word === null || trim($between, " \t\r\n") !== '') {
					$out .= $between;
				}
				$out .= $word === null ? $w[0][0] : $word;
				$after = $word !== null;
				$at = $w[0][1] + strlen($w[0][0]);
			}
			return $out . substr($text, $at);
		}

		private static function word($charset, $how, $text)
		{
			$bytes = $how === 'B' || $how === 'b' ? base64_decode($text) : quoted_printable_decode(strtr($text, '_', ' '));
			$charset = strtolower($charset);
			if ($charset === 'utf-8' || $charset === 'us-ascii') {
				return $bytes;
			}
			$utf8 = null;
			if (function_exists('mb_convert_encoding')) {
				try {
					$utf8 = mb_convert_encoding($bytes, 'UTF-8', $charset);
				} catch (Exception $e) {
				} catch (Throwable $e) { // it does not know the charset
				}
			}
			if (!is_string($utf8) && function_exists('iconv')) {
				$utf8 = iconv($charset, 'UTF-8', $bytes);
			}
			return is_string($utf8) ? $utf8 : null;
		}

		/**
		 * Who called, by a backtrace: 'plugin' and 'script'. $root is the directory
		 * that paths are shown below. Without WordPress a script goes by $main, what
		 * the web server or the shell started.
		 */
		public static function caller($trace, $root, $main)
		{
			$first = '';
			$script = null;
			foreach ($trace as $frame) {
				if (empty($frame['file'])) {
					continue;
				}
				$file = str_replace('\\', '/', $frame['file']);
				$line = isset($frame['line']) ? (int) $frame['line'] : 0;
				if (preg_match('/^(.*?)\((\d+)\) : [a-z]/s', $file, $eval)) { // FILE(LINE) : eval()'d code
					$file = $eval[1];
					$line = (int) $eval[2];
				}
				$found = self::locate($file, $root);
				if ($found === null) {
					continue;
				}
				$shown = $found['path'] . ':' . $line;
				if ($found['kind'] === 'plugin') {
					return array('plugin' => self::name($found['name']), 'script' => self::tail($shown));
				}
				if ($first === '') {
					$first = $shown;
				}
				if ($found['kind'] === 'script' && $script === null) {
					$script = array('plugin' => $found['path'], 'script' => $shown);
				}
			}
			if (!defined('ABSPATH') && $main !== '') {
				$found = self::locate($main, $root);
				$path = $found === null ? basename($main) : $found['path'];
				$script = array('plugin' => $path, 'script' => $first === '' ? $path : $first);
			}
			if ($script === null) {
				return array('plugin' => '', 'script' => self::tail($first));
			}
			return array('plugin' => self::name('script:' . $script['plugin']), 'script' => self::tail($script['script']));
		}

		/**
		 * The part of a backtrace from the caller of wp_mail outward: an SMTP plugin
		 * that wp_mail goes through has not written the mail.
		 */
		public static function outward($trace)
		{
			foreach ($trace as $i => $frame) {
				if ($frame['function'] === 'wp_mail' && empty($frame['class'])) {
					return array_slice($trace, $i);
				}
			}
			return $trace;
		}

		/** What a file belongs to: 'kind' (plugin, core, script), 'name', 'path'; null: nothing of the site's. */
		private static function locate($file, $root)
		{
			$file = self::linked($file);
			foreach (self::places() as $place) {
				foreach (self::both($place[0]) as $dir) {
					$rest = self::below($dir, $file);
					if ($rest !== null) {
						return self::part($place[1], $place[2], $rest);
					}
				}
			}
			if (!defined('ABSPATH') && preg_match('#/wp-content/(plugins|mu-plugins|themes)/(.+)$#s', $file, $m)) {
				$prefix = array('plugins' => '', 'mu-plugins' => 'mu:', 'themes' => 'theme:');
				return self::part($prefix[$m[1]], 'wp-content/' . $m[1], $m[2]);
			}
			if (defined('ABSPATH')) {
				foreach (self::both(ABSPATH) as $dir) {
					$rest = self::below($dir, $file);
					if ($rest !== null && preg_match('#^(wp-includes/|wp-admin/|(index|xmlrpc|wp-(activate|app|blog-header|comments-post|config|cron|links-opml|load|login|mail|register|settings|signup|trackback))\.php$)#', $rest)) {
						return array('kind' => 'core', 'name' => '', 'path' => $rest);
					}
					if (dirname($file) === dirname($dir) && in_array(basename($file), array('index.php', 'wp-config.php'), true)) {
						return array('kind' => 'core', 'name' => '', 'path' => basename($file)); // WordPress has a directory of its own
					}
				}
			}
			foreach (array($root, defined('ABSPATH') ? ABSPATH : '') as $top) {
				foreach (self::both($top) as $dir) {
					$rest = self::below($dir, $file);
					if ($rest !== null) {
						return array('kind' => 'script', 'name' => '', 'path' => $rest);
					}
				}
			}
			return null;
		}

		/** Where plugins, must-use plugins and themes are: directory, prefix of the name, how the directory is shown. */
		private static function places()
		{
			global $wp_theme_directories;
			$all = array();
			if (defined('WPMU_PLUGIN_DIR')) {
				$all[] = array(WPMU_PLUGIN_DIR, 'mu:', 'wp-content/mu-plugins');
			}
			if (defined('WP_PLUGIN_DIR')) {
				$all[] = array(WP_PLUGIN_DIR, '', 'wp-content/plugins');
			}
			foreach (is_array($wp_theme_directories) ? $wp_theme_directories : array() as $dir) {
				if (is_string($dir)) {
					$all[] = array($dir, 'theme:', 'wp-content/themes');
				}
			}
			if (defined('WP_CONTENT_DIR')) {
				$all[] = array(WP_CONTENT_DIR . '/themes', 'theme:', 'wp-content/themes');
				foreach (array('advanced-cache', 'db', 'object-cache', 'sunrise') as $dropin) {
					$all[] = array(WP_CONTENT_DIR . '/' . $dropin . '.php', 'mu:' . $dropin, 'wp-content/' . $dropin . '.php');
				}
			}
			return $all;
		}

		/** The path below the site's directories of a file that a symbolic link there leads to. */
		private static function linked($file)
		{
			global $wp_plugin_paths;
			$paths = is_array($wp_plugin_paths) ? $wp_plugin_paths : array();
			arsort($paths); // the longer one first, as plugin_basename does it
			foreach ($paths as $link => $real) {
				$rest = self::below($real, $file);
				if ($rest !== null) {
					return $link . '/' . $rest;
				}
			}
			$links = self::links();
			for ($at = $file; strlen($at) > 1; $at = dirname($at)) {
				if (isset($links[$at])) {
					return $links[$at] . substr($file, strlen($at));
				}
			}
			return $file;
		}

		/** Symbolic links among plugins and themes: what they lead to => link. WordPress knows no others than plugins' directories. */
		private static function links()
		{
			static $links = null;
			if ($links !== null) {
				return $links;
			}
			$links = array();
			foreach (self::places() as $place) {
				if (!is_dir($place[0])) {
					continue;
				}
				foreach ((array) scandir($place[0]) as $entry) {
					$link = $place[0] . '/' . $entry;
					if ($entry !== '.' && $entry !== '..' && is_link($link) && is_string($real = realpath($link))) {
						$links[$real] = $link;
					}
				}
			}
			return $links;
		}

		private static function part($prefix, $shown, $rest)
		{
			if ($rest === '') { // a drop-in
				return array('kind' => 'plugin', 'name' => $prefix, 'path' => $shown);
			}
			$parts = explode('/', $rest);
			$name = count($parts) === 1 ? preg_replace('/\.php$/i', '', $rest) : $parts[0];
			return array('kind' => 'plugin', 'name' => $prefix . $name, 'path' => $shown . '/' . $rest);
		}

		private static function both($dir)
		{
			static $real = array();
			$dir = rtrim(str_replace('\\', '/', (string) $dir), '/');
			if ($dir === '') {
				return array();
			}
			if (!isset($real[$dir])) {
				$real[$dir] = realpath($dir);
			}
			return is_string($real[$dir]) && $real[$dir] !== $dir ? array($dir, $real[$dir]) : array($dir);
		}

		/** The path of a file below a directory, '' if it is it, null if it is elsewhere. */
		private static function below($dir, $file)
		{
			if ($file === $dir) {
				return '';
			}
			return strncmp($file, $dir . '/', strlen($dir) + 1) === 0 ? substr($file, strlen($dir) + 1) : null;
		}

		/** A name as the stamp has it: lower case, printable, at most 100 octets. */
		public static function name($text)
		{
			$text = self::printable($text);
			$text = function_exists('mb_strtolower') ? mb_strtolower($text, 'UTF-8') : strtolower($text);
			$text = substr($text, 0, 100);
			return preg_match('//u', $text) ? $text : preg_replace('/[\xc0-\xff][\x80-\xbf]*\z/', '', $text);
		}

		/** The last 200 octets. */
		private static function tail($text)
		{
			$text = self::printable($text);
			return strlen($text) > 200 ? preg_replace('/^[\x80-\xbf]+/', '', substr($text, -200)) : $text;
		}

		private static function printable($text)
		{
			if (!preg_match('//u', $text)) {
				$text = preg_replace('/[\x80-\xff]/', '?', $text);
			}
			return preg_replace('/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u', '', $text);
		}

		/** The address of the web request's client, '-' if there is none. */
		public static function client()
		{
			$ip = isset($_SERVER['REMOTE_ADDR']) ? $_SERVER['REMOTE_ADDR'] : null;
			return is_string($ip) && preg_match('/^[0-9A-Fa-f:.]{2,45}$/', $ip) && is_string(inet_pton($ip)) ? $ip : '-';
		}

		/** How PHP was called where WordPress does not say. */
		public static function request()
		{
			if (PHP_SAPI === 'cli') {
				return 'cli';
			}
			$method = isset($_SERVER['REQUEST_METHOD']) ? $_SERVER['REQUEST_METHOD'] : '';
			$entries = array('POST' => 'post', 'GET' => 'page', 'HEAD' => 'page');
			return is_string($method) && isset($entries[$method]) ? $entries[$method] : 'other';
		}

		/** How WordPress was called. */
		public static function entry()
		{
			foreach (array('DOING_CRON' => 'cron', 'DOING_AJAX' => 'ajax', 'XMLRPC_REQUEST' => 'xmlrpc', 'REST_REQUEST' => 'rest', 'WP_CLI' => 'cli') as $constant => $entry) {
				if (defined($constant) && constant($constant)) {
					return $entry;
				}
			}
			if (PHP_SAPI !== 'cli' && function_exists('is_admin') && is_admin()) {
				return 'admin';
			}
			return self::request();
		}

		/** The rest of what a stamp says of a mail of WordPress. */
		public static function blog()
		{
			return function_exists('is_multisite') && is_multisite() ? (int) get_current_blog_id() : 0;
		}

		/** Calls something; whatever goes wrong in it is not heard of. Gives null then. */
		public static function quietly($act)
		{
			$result = null;
			set_error_handler(array(__CLASS__, 'unheard'));
			try {
				$result = $act();
			} catch (Exception $e) {
				$result = null;
			} catch (Throwable $e) {
				$result = null;
			}
			restore_error_handler();
			return $result;
		}

		public static function unheard()
		{
			return true;
		}
	}
}
