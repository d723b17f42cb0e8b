-- A call is a batch of steps, done one after the other; see script.go for what
-- it is given and what it answers, state.go for what a bucket looks like.
-- Time is microseconds. A number is exact below 2^53.
--
-- A step is hot if all windows of its buckets just add to their newest cells, and
-- all have room: then the heads of the buckets are enough, and only the last event
-- and the amount since change. Redis runs all of this text for each call, so what
-- the others need, cold.lua, is made when one comes.
local call, attempt, sub, find, concat = redis.call, redis.pcall, string.sub, string.find, table.concat
local pack, read, KEYS, steps = struct.pack, struct.unpack, KEYS, ARGV[1]
local heads, news = {}, {} -- of keys: as they were read, and what begins them now

local function chill()
-- cold.lua
end

-- hot does a step and returns its answer, or nil: then it has done nothing. It
-- also says whether it was the first to do that step.
local keys, parts, changes = {}, {[0] = '\3'}, {}
local function hot(n, tx, now, at, peek)
  for i = 1, n do
    local k, amount, last, limits
    k, amount, last, limits, at = read('<I2I7Bc0Bc0', steps, at)
    local head, new = heads[k], news[k]
    if not head then
      head = attempt('GETRANGE', KEYS[k], '0', last)
      heads[k] = head
    end
    if #head ~= 37 + (#limits - 2) / 11 * 18 or find(head, limits, 29, true) ~= 29 then return nil end
    if new then head = new .. sub(head, 15) end
    local t, since, till, room = read('<I7I7I7I7', head)
    if now > t then t = now end
    if t >= till or amount > room - since then return nil end
    keys[i], parts[i], changes[i] = k, head, amount > 0 and pack('<I7I7', t, since + amount)
  end
  local text = concat(parts, '', 0, n)
  if tx > 0 and not call('SET', KEYS[tx], text, 'NX', 'PX', '60000') then return call('GET', KEYS[tx]) end
  for i = 1, peek and 0 or n do
    if changes[i] then news[keys[i]] = changes[i] end
  end
  return text, true
end

local at, told, cold = 1, {}
while at <= #steps do
  local op, simple, n, tx, account, now, size, rest, text, done
  op, simple, n, tx, account, now, size, rest, at = read('<BBI2I2I2I7I4I4', steps, at)
  if simple == 1 then text, done = hot(n, tx, now, at, op == 2) end
  if not text then
    cold = cold or chill()
    text = cold.step(op, n, tx, account, now, at, at + size)
  elseif account > 0 and op == 1 and done then
    cold = cold or chill()
    cold.learn(account, at + size + 1, now)
  end
  told[#told + 1], at = text, at + size + rest
end
if cold then cold.write() end
for k, new in pairs(news) do call('SETRANGE', KEYS[k], '0', new) end
return told[2] and told or told[1]
