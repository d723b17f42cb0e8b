<?php
add_action('case', function () {
	do_action('outer_done');
});
