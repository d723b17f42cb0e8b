<?php
// liar.php ROOT HOW FILE - what somebody can do who has taken the site in ROOT
// over, key and all: mails a text of its own to each address in FILE, a line each.
//
// HOW says what the mail pretends to be: "core" (WordPress itself), "few" and
// "many" (plugins by turns, so many names), "nothing" (no stamp), "copy" (each
// has the stamp of the first) or "broken" (a stamp with a wrong signature).

list( , $root, $how, $file ) = $argv;

$text = file_get_contents( $root . '/wp-content/mu-plugins/relayguard/key.php' );
if ( ! preg_match( "/'id' => '([0-9a-f]{8})'/", $text, $id ) || ! preg_match( "/'key' => '([A-Za-z0-9_-]{43})'/", $text, $key ) ) {
	fwrite( STDERR, "no key in $root\n" );
	exit( 1 );
}

function base64( $octets ) {
	return rtrim( strtr( base64_encode( $octets ), '+/', '-_' ), '=' );
}

function digest( $text ) {
	return base64( substr( hash( 'sha256', $text, true ), 0, 16 ) );
}

/** A stamp as the must-use plugin makes it, for a plugin of our choice. */
function stamp( $id, $key, $plugin, $to, $subject ) {
	$value = 'v1 k=' . $id . ' t=' . time() . ' n=' . base64( random_bytes( 12 ) ) . ' b=0 p=' . base64( $plugin )
		. ' e=page f=' . base64( 'index.php:1' ) . ' c=192.0.2.1 r=' . digest( strtolower( $to ) ) . ' s=' . digest( $subject );
	return $value . ' m=' . base64( hash_hmac( 'sha256', "relayguard-origin\n" . $value, base64_decode( strtr( $key, '-_', '+/' ) ), true ) );
}

/** Words that no other mail has in this order. */
function words( $count ) {
	$all = array( 'amber', 'basket', 'candle', 'dune', 'ember', 'fjord', 'garnet', 'harbour', 'island', 'juniper', 'kettle', 'lantern', 'meadow', 'nectar', 'orchard', 'pebble', 'quartz', 'river', 'saddle', 'thicket', 'umber', 'valley', 'willow', 'yarrow', 'zephyr' );
	$some = array();
	while ( count( $some ) < $count ) {
		$some[] = $all[ random_int( 0, count( $all ) - 1 ) ];
	}
	return ucfirst( implode( ' ', $some ) ) . '.';
}

$names = array( 'few' => 8, 'many' => 1000 );
$first = null;
foreach ( file( $file, FILE_IGNORE_NEW_LINES ) as $n => $to ) {
	$subject = words( 4 );
	$plugin  = isset( $names[ $how ] ) ? 'plugin-' . $n % $names[ $how ] : '';
	$stamp   = stamp( $id[1], $key[1], $plugin, $to, $subject );
	$first   = null === $first ? $stamp : $first;
	if ( 'copy' === $how ) {
		$stamp = $first;
	} elseif ( 'broken' === $how ) {
		$stamp = strrev( $stamp );
	}
	$headers = "From: someone@example.org\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8";
	if ( 'nothing' !== $how ) {
		$headers .= "\r\nX-Relayguard-Origin: " . $stamp;
	}
	$body = words( 12 ) . "\n" . words( 9 ) . "\n" . words( 14 ) . "\n";
	if ( ! mail( $to, $subject, $body, $headers ) ) {
		echo "refused $to\n";
	}
}
