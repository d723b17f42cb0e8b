<?php
add_action('case', function () {
	eval('eval("wp_mail(\'a@example.jp\', \'evil\', \'x\');");');
});
