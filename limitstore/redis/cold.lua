-- This is cold.lua: what a step does that is not simple. It is inside a function
-- of script.lua, so that simple steps need not make all these functions.
local byte, rep, format, unpack = string.byte, string.rep, string.format, unpack
local MOST, SPARE, TERM = 9007199254740992, 600000, 400 * 86400 * 1000000

-- A shape is what buckets with the same windows have in common: lengths of the
-- windows and, last, of the attempts.
local shapes = {}
local function shapeOf(prefix)
  local s = shapes[prefix]
  if s then return s end
  local n, longest = byte(prefix, 2), 0
  s = {read('<' .. rep('I4', n), prefix, 3)}
  for i = 1, n do
    s[i] = s[i] * 1000000
    if s[i] > longest then longest = s[i] end
  end
  s[n + 1], s.n, s.longest = longest, n, longest
  s.prefix, s.runs, s.shut, s.last = prefix, 38 + 18 * n, 5 * n + 6, 5 * n + 6
  s.size = s.runs - 1 + 29 * (n + 1) + 7
  s.counts, s.sums = '<' .. rep('I7', n), '<' .. rep('I7', n + 1)
  s.format = '<' .. rep('I7I7I7I7B', n + 1) .. 'I7'
  if byte(prefix) == 2 then
    s.items, s.size, s.last, s.format = true, s.size + 15, s.last + 3, s.format .. 'BI7I7'
  end
  shapes[prefix] = s
  return s
end

-- A bucket is {sum, first, last, count, older, ..., latched}: of each
-- run of cells the sum of all, when the oldest and the newest were last used,
-- what the newest counts, and how many older ones there are. Those are in body,
-- behind base.
-- One that counts items has no cells but of attempts, and behind latched the
-- level of its sample, when something was last left out of it, and its last
-- event; the items are a sorted set of their own, by last event.
--
-- In front of all this is the head, which is enough as long as every window just
-- adds to its newest cell, since no slot has ended and no cell has expired: the
-- last event, how much came since the rest was written, until when that is so,
-- how much room there was, for which limits, and what attempts and windows count.
-- (Fields are named at once: a table that grows costs more than all the rest.)
local function parse(s, value, grown)
  return {shape = s, counts = false, body = value, base = s.size, changed = false, grown = grown, now = 0, zset = false, read(s.format, value, s.runs)}
end

local function empty(s)
  return parse(s, rep('\0', s.size), true)
end

-- settle puts what came since into every window.
local function settle(b, t, amount)
  for i = 1, 5 * b.shape.n - 4, 5 do
    if b[i + 4] == 0 then b[i + 1] = t end
    b[i], b[i + 2], b[i + 3] = b[i] + amount, t, b[i + 3] + amount
  end
end

-- bodyOf is where the older cells of a run begin.
local function bodyOf(b, run)
  local at = b.base + 1
  for i = 5, 5 * run - 5, 5 do at = at + 14 * b[i] end
  return at
end

-- add puts amount into a run at t, when nothing later is in it.
local function add(b, run, amount, t)
  local i, length = 5 * run - 4, b.shape[run]
  local last, count = b[i + 2], b[i + 3]
  b.changed = true
  if count > 0 and last >= t - t % (length / 16) then -- the same slot
    if amount > MOST - count then amount = MOST - count end
    b[i + 2], b[i + 3] = t, count + amount
    if b[i + 4] == 0 then b[i + 1] = t end
    if b[i] > MOST - amount then b[i] = MOST else b[i] = b[i] + amount end
    return
  end
  b.grown = true
  local from, body, base, at, older = t - length, b.body, b.base + 1, bodyOf(b, run), b[i + 4]
  local sum, first, rest, keep = b[i], t, at, older
  while keep > 0 do -- drop what has expired
    local was, had, after = read('<I7I7', body, rest)
    if was >= from then
      first = was
      break
    end
    sum, rest, keep = sum - had, after, keep - 1
  end
  local tail = at + 14 * older
  if count == 0 or last < from then
    body, older, sum = sub(body, base, at - 1) .. sub(body, tail), 0, 0
  else
    if keep == 0 then first = last end
    body, older = sub(body, base, at - 1) .. sub(body, rest, tail - 1) .. pack('<I7I7', last, count) .. sub(body, tail), keep + 1
  end
  if b[i] >= MOST and older > 0 then -- it was no exact sum
    sum, at = count, at - base + 1
    for p = at, at + 14 * (older - 2), 14 do
      local _, had = read('<I7I7', body, p)
      if sum > MOST - had then sum = MOST else sum = sum + had end
    end
  end
  if sum > MOST - amount then sum = MOST else sum = sum + amount end
  b[i], b[i + 1], b[i + 2], b[i + 3], b[i + 4] = sum, first, t, amount, older
  b.body, b.base = body, 0
end

-- used is what a run counts from then on: so much, and so many times 2^53; and
-- of the first that counts, the last event.
local function used(b, run, from)
  local i = 5 * run - 4
  local sum, count = b[i], b[i + 3]
  if count == 0 or b[i + 2] < from then return 0, 0 end
  if sum < MOST and b[i + 1] >= from then return sum, 0, b[i + 1] end
  local at, whole = bodyOf(b, run), 0
  if sum < MOST then
    for p = at, at + 14 * (b[i + 4] - 1), 14 do
      local last, had = read('<I7I7', b.body, p)
      if last >= from then return sum, 0, last end
      sum = sum - had
    end
    return sum, 0, b[i + 2]
  end
  sum = 0
  for p = at, at + 14 * b[i + 4], 14 do
    local last, had = b[i + 2], count
    if p < at + 14 * b[i + 4] then last, had = read('<I7I7', b.body, p) end
    if last >= from then
      if sum >= MOST - had then sum, whole = sum - (MOST - had), whole + 1 else sum = sum + had end
    end
  end
  return sum, whole
end

-- blocker is the last event of the newest cell that leaves too little room.
local function blocker(b, run, room)
  local i = 5 * run - 4
  local at, sum = bodyOf(b, run), b[i + 3]
  if sum > room then return b[i + 2] end
  for p = at + 14 * (b[i + 4] - 1), at, -14 do
    local last, had = read('<I7I7', b.body, p)
    if had > room - sum then return last end
    sum = sum + had
  end
  return 0
end

-- newestOf is t in the time of the bucket, which never runs backwards.
local function newestOf(b, t)
  local s = b.shape
  for i = 3, 5 * s.n + 3, 5 do
    if b[i] > t then t = b[i] end
  end
  if s.items and b[s.last] > t then t = b[s.last] end
  return t
end

-- reshaped is a bucket after its limit got other windows: each takes over what
-- the shortest that is longer knows, or else the longest. One that counts items
-- now, or does no more, begins anew, but shut if it was.
local function reshaped(old, s)
  local b, was, newest = empty(s), old.shape, newestOf(old, 0)
  b.zset = old.zset
  if s.items and was.items then
    for i = 1, 3 do b[s.shut + i] = old[was.shut + i] end
  else
    b.fresh = s.items
  end
  b[s.shut] = old[was.shut]
  for run = s.items == was.items and 1 or s.n + 1, s.n + 1 do
    local length, best = s[run], 1
    for i = 2, was.n do
      local l, w = was[i], was[best]
      if l >= length and (w < length or l < w) or l < length and w < l then best = i end
    end
    if run > s.n then best = was.n + 1 end
    local i, at = 5 * best - 4, bodyOf(old, best)
    for p = at, at + 14 * old[i + 4], 14 do
      local last, had = old[i + 2], old[i + 3]
      if p < at + 14 * old[i + 4] then last, had = read('<I7I7', old.body, p) end
      if had > 0 and last >= newest - length then add(b, run, had, last) end
    end
  end
  b.changed = true
  return b
end

local buckets = {}

-- parsed is the bucket of a key, in the windows that it has; nil without one,
-- false if what is there is none.
local function parsed(k)
  local b = buckets[k]
  if b then return b end
  local value, since = attempt('GET', KEYS[k]), news[k]
  heads[k] = ''
  if not value then return nil end
  if #value < 37 then return false end
  local kind, n = byte(value, 29, 30)
  if kind < 1 or kind > 2 or n < 1 or n > 6 or #value < 6 * n + 28 then return false end
  local s = shapeOf(sub(value, 29, 30 + 4 * n))
  if #value < s.size then return false end
  b = parse(s, value)
  if #value ~= bodyOf(b, n + 2) - 1 then return false end
  if since then b.changed, news[k] = true, nil end
  local t, amount = read('<I7I7', since or value)
  if amount > 0 then settle(b, t, amount) end
  b.counts = sub(value, 31 + 4 * n, 30 + 11 * n)
  buckets[k] = b
  return b
end

-- open is the bucket of a key with these windows; false if what is there is none.
local function open(k, limits, peek)
  local at = 2 + 4 * byte(limits, 2)
  local b, s = parsed(k), shapeOf(sub(limits, 1, at))
  if b and b.shape ~= s then
    local old = b
    b = reshaped(old, s)
    if peek then b.old = old end
    buckets[k] = b
  elseif b == nil then
    b = empty(s)
    b.fresh = s.items
    buckets[k] = b
  end
  if b then b.counts = sub(limits, at + 1) end
  return b
end

-- headOf is what is in front of the runs: how long the bucket is hot, and how
-- much room it has until then.
local function headOf(b)
  local s, t = b.shape, newestOf(b, 0)
  local n, till, room, sums, counts = s.n, MOST, MOST, {}, {read(s.counts, b.counts)}
  for i = 1, n + 1 do
    local sum, whole, first = used(b, i, t - s[i])
    if whole > 0 then till = 0 elseif first and first + s[i] < till then till = first + s[i] end
    if i <= n then
      local slot, last = s[i] / 16, b[5 * i - 2]
      local ends = first and last - last % slot + slot or 0
      if ends < till then till = ends end
      if counts[i] - sum < room then room = counts[i] - sum end
      sums[1 + i] = sum
    else
      sums[1] = sum
    end
  end
  if b[s.shut] > 0 or room < 0 or s.items then till, room = 0, 0 end
  return pack('<I7I7I7I7', t, 0, till, room) .. s.prefix .. b.counts .. pack(s.sums, unpack(sums))
end

local function write(k, b)
  local s = b.shape
  local header = headOf(b) .. pack(s.format, unpack(b, 1, s.last))
  if b.fresh then call('DEL', KEYS[b.zset]) end
  if not b.grown then -- the time to live has a slot to spare
    return call('SETRANGE', KEYS[k], '0', header)
  end
  local value = header .. sub(b.body, b.base + 1)
  if b[s.shut] > 0 then
    call('SET', KEYS[k], value)
    if b.zset then call('PERSIST', KEYS[b.zset]) end
    return
  end
  local ms = (newestOf(b, b.now) - b.now + s.longest * 17 / 16) / 1000
  ms = ms - ms % 1 + SPARE
  call('SET', KEYS[k], value, 'PX', ms)
  if b.zset then call('PEXPIRE', KEYS[b.zset], ms) end
end

-- scores are those of items in a sorted set, as strings, false without one.
local function scores(k, items)
  local all, n = {}, #items
  for i = 1, n, 1000 do
    for _, score in ipairs(call('ZMSCORE', KEYS[k], unpack(items, i, i + 999 < n and i + 999 or n))) do all[#all + 1] = score end
  end
  return all
end

local function note(k, items, t)
  local pairs = {}
  for i = 1, #items do
    pairs[#pairs + 1], pairs[#pairs + 2] = t, items[i]
    if i % 1000 == 0 or i == #items then
      call('ZADD', KEYS[k], unpack(pairs))
      pairs = {}
    end
  end
end

-- known is whom the step's account wrote to: the sorted sets of last and of
-- first events.
local known

local function knownFrom(now)
  local newest = call('ZRANGE', KEYS[known.last], -1, -1, 'WITHSCORES')[2]
  newest = newest and tonumber(newest) or 0
  if now > newest then newest = now end
  return newest - TERM, newest
end

-- strangers is how many of the items the account does not know, or not since
-- before that time.
local function strangers(items, now, before)
  if #items == 0 then return 0 end
  local from, n = knownFrom(now), 0
  local lasts = scores(known.last, items)
  local firsts = before and scores(known.first, items)
  for i = 1, #items do
    if not lasts[i] or tonumber(lasts[i]) < from or before and tonumber(firsts[i] or 0) >= before then n = n + 1 end
  end
  return n
end

local function learn(now)
  local items = known.items
  if #items == 0 then return end
  local from, t = knownFrom(now)
  if t < 1 then t = 1 end
  local lasts, new = scores(known.last, items), {}
  for i = 1, #items do
    if not lasts[i] or tonumber(lasts[i]) < from then new[#new + 1] = items[i] end
  end
  note(known.last, items, t)
  note(known.first, new, t)
  local over = call('ZCARD', KEYS[known.last]) - known.most
  if over > 0 then
    local gone = call('ZPOPMIN', KEYS[known.last], over)
    for i = 1, #gone, 2 do call('ZREM', KEYS[known.first], gone[i]) end
  end
  local ms = (t - now + TERM) / 1000
  ms = ms - ms % 1 + SPARE
  call('PEXPIRE', KEYS[known.last], ms)
  call('PEXPIRE', KEYS[known.first], ms)
end

-- levelAt is the level of a bucket's sample: all is known again when what was
-- left out is out of the longest window.
local function levelAt(b, t)
  local s = b.shape
  if b[s.shut + 2] < t - s.longest then return 0 end
  return b[s.shut + 1]
end

local function sampled(item, level)
  return read('>I4', item, 5) % 2 ^ level == 0
end

local function takeItems(c, most)
  local b, items, t, z = c.b, c.items, c.t, KEYS[c.b.zset]
  if b.fresh then
    call('DEL', z)
    b.fresh = nil
  end
  if #items == 0 then return end
  local s = b.shape
  local i, level, some = s.shut, levelAt(b, t), items
  if level == 0 then
    b[i + 2] = 0
  else
    some = {}
    for _, item in ipairs(items) do
      if sampled(item, level) then some[#some + 1] = item else b[i + 2] = t end
    end
  end
  b[i + 3], b.changed, b.grown = t, true, true
  note(b.zset, some, t)
  local n = call('ZCARD', z)
  if n > most then n = n - call('ZREMRANGEBYSCORE', z, '-inf', format('(%.0f', t - s.longest)) end
  while n > most and level < 32 do
    level = level + 1
    local all, gone = call('ZRANGE', z, 0, -1, 'WITHSCORES'), {}
    for j = 1, #all, 2 do
      if not sampled(all[j], level) then
        local last = tonumber(all[j + 1])
        gone[#gone + 1] = all[j]
        if last > b[i + 2] then b[i + 2] = last end
      end
    end
    for j = 1, #gone do call('ZREM', z, gone[j]) end
    n = n - #gone
  end
  b[i + 1] = level
end

-- answer collects numbers.
local answer, a = {}, 0
local formats = {}

local function flush()
  local text
  for i = 1, a, 200 do
    local n = a - i + 1
    if n > 200 then n = 200 end
    local f = formats[-n]
    if not f then
      f = '<' .. rep('I7', n)
      formats[-n] = f
    end
    local part = pack(f, unpack(answer, i, i + n - 1))
    text = text and text .. part or part
  end
  a = 0
  return text
end

-- A charge is {windows, abuse, tells, unit, key, amount}, and what is named.
local charges = {}
local DISTINCT, FIRST_TIME, BOUNCES = 4, 5, 6

-- weigh answers for a charge: a mark (1 there is more, 2 the bucket was shut, 4
-- it is now), what each window and the attempts count. More is, of attempts and
-- then of each window with its amount and how it stands (0 it fits, 2 never, or 3
-- more than the time of the cell that leaves no room), what 2^53 are missing.
local function weigh(c, now)
  local b, n, amount, unit = c.b, c[1], c[6], c[4]
  local s = b.shape
  local t, shut, free, pending, mark = newestOf(b, now), b[s.shut] > 0, false, b.pending, a + 1
  local need, over = amount, nil
  if unit >= 5 then
    if unit == FIRST_TIME then
      amount = strangers(c.items, now, shut and b[s.shut])
      need, free = amount, amount == 0 and #c.items > 0
    elseif amount == 0 then
      need = 1
    end
  end
  local fits = free or not shut
  for i = 1, n do
    local j = 5 * i - 4
    local sum, whole = b[j], 0
    if sum > 0 and (sum >= MOST or b[j + 1] < t - s[i]) then sum, whole = used(b, i, t - s[i]) end
    answer[mark + i] = sum
    if not free and (shut or whole > 0 or need > c.counts[i] - (pending and pending[i] or 0) - sum) then
      over = over or {}
      over[i] = whole
      if c.softs[i] == 0 then fits = false end
    end
  end
  local j, whole = 5 * n + 1, 0
  local sum = b[j]
  if sum > 0 and (sum >= MOST or b[j + 1] < t - s.longest) then sum, whole = used(b, n + 1, t - s.longest) end
  a = mark + n + 1
  answer[a] = sum
  c.t, c.over, c.fits, c.mark, c.shut, c.wanted = t, over, fits, mark, shut, amount
  if over or shut or whole > 0 or unit == FIRST_TIME then
    answer[mark] = shut and 3 or 1
    answer[a + 1], a = whole, a + 1
    for i = 1, n do
      local how, whole = 0, over and over[i]
      if whole then
        local room = c.counts[i] - need - (pending and pending[i] or 0)
        how = 2
        if not shut and room >= 0 then how = 3 + blocker(b, i, room) end
      end
      answer[a + 1], answer[a + 2], answer[a + 3], a = whole or 0, amount, how, a + 3
    end
  else
    answer[mark] = 0
  end
  return fits
end

-- freeAt is when a window has room for items, which are not more than it counts.
local function freeAt(c, t, length, count)
  local b, s, z = c.b, c.b.shape, KEYS[c.b.zset]
  local level, own, all, first = levelAt(b, t), {}, {}, 1
  for i, last in ipairs(scores(b.zset, c.items)) do
    if last then own[c.items[i]] = true end
  end
  local found = call('ZRANGEBYSCORE', z, t - length, '+inf', 'WITHSCORES')
  local total, mine = #found / 2, 0
  for i = 1, #found, 2 do
    if own[found[i]] then mine = mine + 1 end
    all[#all + 1] = tonumber(found[i + 1])
  end
  while total * 2 ^ level + #c.items - mine > count do
    local whole = b[s.shut + 2] + s.longest + 1
    t = whole
    if total > 0 then
      t = all[first] + length + 1
      if level > 0 and whole < t then t = whole end
    end
    if level > 0 and t == whole then level = 0 end
    while total > 0 and all[first] < t - length do
      if own[found[2 * first - 1]] then mine = mine - 1 end
      total, first = total - 1, first + 1
    end
  end
  return t
end

-- weighItems is weigh for a bucket that counts items.
local function weighItems(c, now)
  local b, n, items = c.b, c[1], c.items
  local s, t, mark, fresh = b.shape, newestOf(b, now), a + 1, b.fresh
  local shut, level = b[s.shut] > 0, levelAt(b, t)
  local fits, wanted, z = not shut, 0, KEYS[b.zset]
  local lasts = fresh and {} or scores(b.zset, items)
  for i = 1, #lasts do lasts[i] = lasts[i] and tonumber(lasts[i]) or -MOST * 2 end
  a = mark + n + 2
  for i = 1, n do
    local from, count, how = t - s[i], c.counts[i], 0
    local sum, own = fresh and 0 or call('ZCOUNT', z, from, '+inf') * 2 ^ level, 0
    for j = 1, #lasts do
      if lasts[j] >= from then own = own + 1 end
    end
    local amount = #items - own
    if amount > wanted then wanted = amount end
    if shut or (amount > 0 or #items == 0) and sum + amount > count then
      how = 2
      if not shut and #items <= count then how = 3 + freeAt(c, t, s[i], count) end
      if c.softs[i] == 0 then fits = false end
    end
    answer[mark + i] = sum
    answer[a + 1], answer[a + 2], answer[a + 3], a = 0, amount, how, a + 3
  end
  answer[mark] = shut and 3 or 1
  answer[mark + n + 1], answer[mark + n + 2] = used(b, n + 1, t - s.longest)
  c.t, c.over, c.fits, c.mark, c.shut, c.wanted = t, nil, fits, mark, shut, wanted
  return fits
end

-- defer has later charges of the step find what this one takes from the bucket.
local function defer(c)
  local b, over = c.b, c.over
  b.pending = b.pending or {}
  for i = 1, c[1] do
    if not (over and over[i]) then b.pending[i] = (b.pending[i] or 0) + c.wanted end
  end
end

local function take(c)
  if c[4] == DISTINCT then return takeItems(c, c.most) end
  local b, amount, over = c.b, c.wanted, c.over
  if amount == 0 then return end
  for i = 1, c[1] do
    if not (over and over[i]) then add(b, i, amount, c.t) end
  end
end

-- stop counts what was not taken, and shuts an abuse bucket.
local function stop(c)
  local b, t = c.b, c.t
  if c.wanted > 0 then add(b, c[1] + 1, c.wanted, t) end
  local shut = b.shape.shut
  if c.latches and b[shut] == 0 then
    b[shut] = t > 0 and t or 1
    b.changed, b.grown = true, true
  end
end

-- latch says which buckets the step shuts.
local function latch(n, taken, twins)
  for i = 1, n do
    local c = charges[i]
    local asks = c[6] == 0
    if c.items then asks = #c.items == 0 elseif c[4] == BOUNCES then asks = false end
    c.latches = c[2] == 1 and not c.fits and not asks and (taken or c[3] == 0)
  end
  for i = 1, twins and not taken and n or 0 do
    for j = 1, n do
      if charges[j].latches and charges[i].b == charges[j].b then charges[i].latches = true end
    end
  end
  for i = 1, n do
    local c = charges[i]
    if c.latches and not c.shut then answer[c.mark] = answer[c.mark] + 4 end
  end
end

-- spend decides a step; it changes nothing if it peeks.
local function spend(n, now, twins, peek)
  local taken, all = true, true
  for i = 1, n do
    local c = charges[i]
    local fits
    if c[4] == DISTINCT then fits = weighItems(c, now) else fits = weigh(c, now) end
    if not fits then
      all = false
      if c[3] == 0 then taken = false end
    end
    if twins then defer(c) end
  end
  for i = 1, twins and n or 0 do charges[i].b.pending = nil end
  answer[1] = taken and 1 or 0
  if not all then latch(n, taken, twins) end
  if peek then return end
  for i = 1, n do
    local c = charges[i]
    if taken and c.fits then take(c) elseif taken or c[3] == 0 then stop(c) end
  end
  if taken and known then learn(now) end
end

-- push takes all charges whether they fit or not.
local function push(n, now)
  for i = 1, n do
    local c = charges[i]
    c.wanted, c.over, c.t = c[6], nil, newestOf(c.b, now)
    if c[4] == FIRST_TIME then c.wanted = strangers(c.items, now) end
    take(c)
  end
  if known then learn(now) end
  answer[1] = 1
end

-- readItems reads as many items as it is told.
local function readItems(steps, at, n)
  local items = {}
  for i = 1, n do items[i], at = sub(steps, at, at + 7), at + 8 end
  return items, at
end

-- readCharge reads a charge, which is in two places, and opens its bucket.
local function readCharge(at, rest, now, peek)
  local abuse, tells, unit, k, amount, limits, _
  k, amount, _, limits, at = read('<I2I7Bc0Bc0', steps, at)
  abuse, tells, unit, rest = read('<BBB', steps, rest)
  local w = byte(limits, 2)
  local c = {b = open(k, limits, peek), t = 0, over = false, fits = false, mark = 0, shut = false, wanted = 0, items = false, latches = false,
    counts = {read('<' .. rep('I7', w), limits, 3 + 4 * w)}, softs = {byte(steps, rest, rest + w - 1)}, w, abuse, tells, unit, k, amount}
  local zset, n
  rest = rest + w
  if unit == DISTINCT then
    zset, c.most, n, rest = read('<I2I4I4', steps, rest)
    c.items, rest = readItems(steps, rest, n)
  elseif unit == FIRST_TIME then
    n, rest = read('<I4', steps, rest)
    c.items, rest = readItems(steps, rest, n)
  end
  if c.b then c.b.now, c.b.zset = now, zset end
  return c, at, rest
end

local function readKnown(account, rest)
  known = nil
  if account == 0 then return rest end
  local first, most, n
  first, most, n, rest = read('<I2I4I4', steps, rest)
  known = {last = account, first = first, most = most}
  known.items, rest = readItems(steps, rest, n)
  return rest
end

local cold = {}

-- learn is what is left of a step that was hot.
function cold.learn(account, rest, now)
  readKnown(account, rest)
  learn(now)
end

-- step does a step and returns its answer.
function cold.step(op, n, tx, account, now, at, rest)
  local text = tx > 0 and call('GET', KEYS[tx])
  if text then return text end
  local twins, damaged = byte(steps, rest) == 1
  rest, a = readKnown(account, rest + 1), 1
  for i = 1, n do
    charges[i], at, rest = readCharge(at, rest, now, op == 2)
    if not charges[i].b then damaged = i end
  end
  if damaged then
    answer[1], answer[2], a = 2, damaged, 2
  elseif op < 3 then
    spend(n, now, twins, op == 2)
  else
    push(n, now)
  end
  local taken = answer[1] == 1
  text = flush()
  if tx > 0 and taken then call('SET', KEYS[tx], text, 'PX', '60000') end
  for i = 1, op == 2 and n or 0 do
    local c = charges[i]
    if c.b and c.b.old then buckets[c[5]] = c.b.old end
  end
  return text
end

function cold.write()
  for k, b in pairs(buckets) do
    if b.changed then write(k, b) end
  end
end

return cold
