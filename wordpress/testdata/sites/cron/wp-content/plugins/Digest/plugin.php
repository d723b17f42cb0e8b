<?php
class Digest
{
	public static function send()
	{
		array_map(array('Digest', 'one'), array('a@example.jp'));
	}

	public static function one($to)
	{
		wp_mail($to, '今週のお知らせ：新商品のご案内とイベント情報', 'x', array('Bcc: b@example.jp, C@example.jp', 'Cc: d@example.jp'));
	}
}
add_action('digest', array('Digest', 'send'));
