<?php
/*
Plugin Name: relayguard origin
Description: Signs into each mail which plugin, theme or page it comes from, so that the mail relay can stop one abused form and let the site's other mail go. Installed by the hoster with "relayguard wordpress install", removed with "relayguard wordpress remove".
Version: 1
*/
// relayguard:must-use-plugin. What is wrong here keeps no mail back: it goes
// without the signature, and counts as unattributed.

if (!defined('ABSPATH')) {
	exit;
}

require __DIR__ . '/stamp.php'; // relayguard:include

if (!class_exists('Relayguard_Must_Use', false)) {
	class Relayguard_Must_Use
	{
		/** phpmailer_init, the last of all: what SMTP plugins set is set. */
		public static function stamp($mailer)
		{
			Relayguard_Stamp_1::quietly(function () use ($mailer) {
				Relayguard_Must_Use::sign($mailer);
			});
		}

		public static function sign($mailer)
		{
			self::clean($mailer);
			$key = Relayguard_Stamp_1::key(dirname(__FILE__) . '/relayguard/key.php');
			if ($key === null) {
				return;
			}
			$trace = array();
			foreach (debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS) as $frame) {
				if (!isset($frame['file']) || $frame['file'] !== __FILE__) {
					$trace[] = $frame;
				}
			}
			$origin = Relayguard_Stamp_1::caller(Relayguard_Stamp_1::outward($trace), ABSPATH, '');
			$origin['blog'] = Relayguard_Stamp_1::blog();
			$origin['entry'] = Relayguard_Stamp_1::entry();
			$origin['client'] = Relayguard_Stamp_1::client();
			// The guard reads the subject from the field that the mailer will write.
			$subject = Relayguard_Stamp_1::decoded($mailer->encodeHeader($mailer->secureHeader((string) $mailer->Subject)));
			$mailer->addCustomHeader(Relayguard_Stamp_1::FIELD, Relayguard_Stamp_1::make($key, $origin, self::recipients($mailer), $subject));
		}

		/** Takes off what somebody else has put there under names of ours. */
		private static function clean($mailer)
		{
			$ours = 0;
			$others = array();
			foreach ($mailer->getCustomHeaders() as $header) {
				if (preg_match('/^\s*X-Relayguard-/i', $header[0])) {
					++$ours;
				} else {
					$others[] = $header;
				}
			}
			if ($ours === 0) {
				return;
			}
			$mailer->clearCustomHeaders();
			foreach ($others as $header) {
				$mailer->addCustomHeader($header[0], isset($header[1]) ? $header[1] : '');
			}
		}

		private static function recipients($mailer)
		{
			$all = array();
			foreach (array_merge($mailer->getToAddresses(), $mailer->getCcAddresses(), $mailer->getBccAddresses()) as $one) {
				$all[] = $one[0];
			}
			// Addresses of domains that are not ASCII wait apart until the mailer sends.
			$inside = (array) $mailer;
			$waiting = isset($inside["\0*\0RecipientsQueue"]) ? $inside["\0*\0RecipientsQueue"] : array();
			foreach (is_array($waiting) ? $waiting : array() as $one) {
				$all[] = $mailer->punyencodeAddress($one[1]);
			}
			return $all;
		}
	}
	add_action('phpmailer_init', array('Relayguard_Must_Use', 'stamp'), PHP_INT_MAX);
}
