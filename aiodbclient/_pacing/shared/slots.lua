-- One ask of one process for slots of an account's sliding windows. Everything is in microseconds of the server's clock.
--
-- KEYS[1]  sorted set: every slot by its stamp. A slot counts in a window until its stamp is as old as the window. A slot
--          in flight is stamped ahead, at the end of its lease, so that those of a killed process expire by themselves.
-- KEYS[2]  hash: epoch (which memory this is), settled, gate, allowance (see below), granted, heard
-- KEYS[3]  hash: what each process waits for, as "interactive bulk used until"
-- ARGV[1]  the ask, in JSON; see Slots in slots.py
local slots, state, queue = KEYS[1], KEYS[2], KEYS[3]
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local shortest, longest = ask.windows[1], ask.windows[#ask.windows]

local function whole(number)
  return string.format('%.0f', number)
end

local function add(stamp, id)
  redis.call('ZADD', slots, whole(stamp), id)
end

local function count(window, at)
  return redis.call('ZCOUNT', slots, '(' .. whole(at - window.length), '+inf')
end

local function read(name)
  return tonumber(redis.call('HGET', state, name) or nil)
end

for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.ceil((longest.length + 3 * ask.lease) / 1000))
end

-- A memory that a caller does not know has forgotten what that caller did: nobody gets a slot until all have told again.
local epoch = redis.call('HGET', state, 'epoch')
if not epoch then
  epoch = ask.batch
  redis.call('HSET', state, 'epoch', epoch)
end
if ask.epoch ~= '' and ask.epoch ~= epoch then
  redis.call('HSETNX', state, 'settled', whole(now + ask.settle))
  return cjson.encode({epoch = epoch, forgotten = true})
end
local settling = (read('settled') or 0) - now

for _, done in ipairs(ask.done) do
  add(now - done.age, done.id)
end
for _, id in ipairs(ask.held) do
  add(now + ask.lease, id)
end
for _, id in ipairs(ask.unused) do
  redis.call('ZREM', slots, id)
end
redis.call('ZREMRANGEBYSCORE', slots, '-inf', whole(now - longest.length - 2 * ask.lease))

-- The API counted more than is known here: somebody outside spends the same budget. Just now, if it was told recently.
-- It counted at some moment before its answer came, so what expired here within a lease before that may still be in it.
local unexplained = math.huge
if ask.counted and settling <= 0 then
  local at = now - ask.counted.age
  unexplained = ask.counted.requests - count(longest, at)
  local missing = math.min(ask.counted.requests - count(longest, at - ask.lease), longest.limit)
  local step = 0
  if at - (read('heard') or 0) > shortest.length then
    step = longest.length / math.max(missing, 1)
  end
  for i = 1, missing do
    add(at - step * (i - 1), 'foreign:' .. ask.batch .. ':' .. i)
  end
  redis.call('HSET', state, 'heard', whole(at))
end

-- A 429 that these counts do not explain: others hold the rest of the window that is nearest to its limit. They are
-- believed for one window and fade in the next; a share is always ours, or nobody would learn when they stop.
if ask.refused then
  local fullest, room = nil, 2
  for i, window in ipairs(ask.windows) do
    local left = (window.limit - count(window, now)) / window.limit
    if left < room and (i < #ask.windows or i == 1) then
      fullest, room = window, left
    end
  end
  local ours = math.max(1, math.floor(fullest.limit / 16))
  local missing = math.min(fullest.limit - count(fullest, now), fullest.limit - ours, unexplained)
  for i = 1, missing do
    add(now + fullest.length * i / missing, 'foreign:' .. ask.batch .. ':' .. i)
  end
  redis.call('HSET', state, 'gate', whole(math.max(read('gate') or 0, now + ask.refused)), 'allowance', 1)
end

-- After a 429 the gate opens gently: one slot, and two more for each answer, until that is as good as open.
local gate = (read('gate') or 0) - now
local allowance = read('allowance')
if allowance and gate <= 0 then
  allowance = allowance + 2 * ask.answered
  if allowance < 1 and now - (read('granted') or 0) > ask.lease then
    allowance = 1
  end
  if allowance > shortest.limit / 4 then
    redis.call('HDEL', state, 'allowance')
    allowance = nil
  end
end

local room = math.huge
for _, window in ipairs(ask.windows) do
  room = math.min(room, window.limit - count(window, now))
end
if settling > 0 or gate > 0 then
  room = 0
elseif allowance then
  room = math.min(room, allowance)
end

-- Every process that waits has a claim to its share of the shortest window: beyond its own, nobody takes what is others'.
local others = {}
local waiting = redis.call('HGETALL', queue)
for i = 1, #waiting, 2 do
  local interactive, bulk, used, till = string.match(waiting[i + 1], '(%d+) (%d+) (%d+) (%d+)')
  if tonumber(till) < now then
    redis.call('HDEL', queue, waiting[i])
  elseif waiting[i] ~= ask.process then
    others[#others + 1] = {interactive = tonumber(interactive), bulk = tonumber(bulk), used = tonumber(used)}
  end
end
local share = math.ceil(shortest.limit / (#others + 1))

local function grant(lane, free, used)
  local claimed = 0
  for _, other in ipairs(others) do
    claimed = claimed + math.max(0, math.min(other[lane], share - other.used))
  end
  return math.max(0, math.min(ask[lane], free, math.max(share - used, free - claimed)))
end

local interactive = grant('interactive', room, ask.used)
local bulk = 0
if interactive == ask.interactive then
  local free = room - interactive - ask.reserve
  for _, other in ipairs(others) do
    free = free - other.interactive
  end
  bulk = grant('bulk', free, ask.used + interactive)
end
local granted = interactive + bulk
for i = 1, granted do
  add(now + ask.lease, ask.batch .. ':' .. i)
end
if allowance then
  redis.call('HSET', state, 'allowance', allowance - granted)
end
if granted > 0 then
  redis.call('HSET', state, 'granted', whole(now))
end

-- How long until `rank` more slots are free, if what is in flight is answered now and the place of each is taken anew.
local function wait(rank)
  local longest_wait = math.max(gate, settling, 0)
  for _, window in ipairs(ask.windows) do
    local used = count(window, now)
    local expiring = used - window.limit + rank
    if expiring > 0 then
      local rounds = math.floor((expiring - 1) / window.limit)
      local place = used - (expiring - 1) % window.limit - 1
      local slot = place >= 0 and redis.call('ZREVRANGE', slots, place, place, 'WITHSCORES') or {}
      local stamp = tonumber(slot[2] or now)
      if string.sub(slot[1] or '', 1, 8) ~= 'foreign:' then
        stamp = math.min(stamp, now)
      end
      longest_wait = math.max(longest_wait, stamp + window.length * (rounds + 1) - now)
    end
  end
  return longest_wait
end

local left = {interactive = ask.interactive - interactive, bulk = ask.bulk - bulk}
local first = 0
if left.interactive + left.bulk > 0 then
  first = wait(left.interactive > 0 and 1 or 1 + ask.reserve)
  local until_asked_again = now + math.min(first, ask.longest_pause) + ask.patience
  redis.call('HSET', queue, ask.process, string.format('%d %d %d %.0f',
    left.interactive, left.bulk, ask.used + granted, until_asked_again))
else
  redis.call('HDEL', queue, ask.process)
end

-- For a place in the caller's queue: others are served side by side with it.
local waits = {}
for i, place in ipairs(ask.places) do
  local rank = place.place - granted
  local ahead = rank + (place.bulk and ask.reserve or 0)
  for _, other in ipairs(others) do
    ahead = ahead + math.min(other.interactive + (place.bulk and other.bulk or 0), rank)
  end
  waits[i] = rank > 0 and wait(ahead) or 0
end

local used = {}
for i, window in ipairs(ask.windows) do
  used[i] = count(window, now)
end
return cjson.encode({
  epoch = epoch, interactive = interactive, bulk = bulk, wait = first, waits = waits, used = used,
  settling = math.max(settling, 0),
})
