-- Opens a shut bucket (KEYS[1]; its items are KEYS[2]) at the time ARGV[1].
local value = redis.call('GET', KEYS[1])
local kind, n = string.byte(value or '', 29, 30)
if not n or kind < 1 or kind > 2 or n < 1 or n > 6 then return 0 end
local at = 37 + 18 * n + 29 * (n + 1)
if #value < at + 7 then return 0 end
local latched = struct.unpack('<I7', value, at + 1)
if latched == 0 then return 0 end
local seconds = 0
for i = 1, n do seconds = math.max(seconds, (struct.unpack('<I4', value, 27 + 4 * i))) end
local ms = seconds * 17000 / 16 + math.max(latched - ARGV[1], 0) / 1000
ms = ms - ms % 1 + 600000
redis.call('SETRANGE', KEYS[1], at, string.rep('\0', 7))
redis.call('PEXPIRE', KEYS[1], ms)
redis.call('PEXPIRE', KEYS[2], ms)
return 1
