<?php
require __DIR__ . '/' . str_repeat('i', 120) . '.php';
