<?php
require __DIR__ . "/wp-load.php";
do_action("case");
