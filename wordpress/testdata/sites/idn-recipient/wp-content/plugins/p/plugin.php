<?php
add_action('case', function () {
	wp_mail('a@例え.jp', '=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?= shop', 'x');
});
