-- One process asks for slots of a token's sliding windows. Only what must be atomic is here: counting the slots,
-- granting them, and storing the facts (facts.py). What the facts mean, Python decides (account.py). Times are in
-- microseconds of the server's clock.
--
-- KEYS[1]  sorted set of slots, by their stamps. The stamp of an answered request is when it was answered. That of one
--          in flight is when its lease ends, in the future: so the slots of a killed process expire by themselves. A
--          slot counts in a window until its stamp is as old as the window.
-- KEYS[2]  hash: epoch (names this memory), recovered (when all processes have reported what is not known here), asked
--          (when somebody last asked), facts, version (of the facts)
-- KEYS[3]  hash: for each process that waits, what it waits for
-- ARGV[1]  the ask, in JSON, as Slots._run_once in slots.py and Script.run in script.py make it
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

-- How many slots have a stamp after `from`, and not after `to`.
local function stamped(from, to)
  return redis.call('ZCOUNT', slots, '(' .. whole(from), to and whole(to) or '+inf')
end

local function read(name)
  return tonumber(redis.call('HGET', state, name) or nil)
end

-- The process has given this ask up, so nobody would use its slots.
if ask.expires and now > ask.expires then
  return cjson.encode({late = true, now = whole(now)})
end

for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.ceil((longest.length + 3 * ask.lease) / 1000))
end

-- If a process knows another memory, this one lacks what that process reported. Nobody gets a slot until all processes
-- had time to report again.
local epoch = redis.call('HGET', state, 'epoch')
if not epoch then
  epoch = ask.batch
  redis.call('HSET', state, 'epoch', epoch)
end
if ask.epoch ~= '' and ask.epoch ~= epoch then
  redis.call('HSETNX', state, 'recovered', whole(now + ask.recovery))
  return cjson.encode({epoch = epoch, forgotten = true})
end

-- If nobody asked during the outage from which this process returns, other processes may have sent on their own, too.
-- Nobody gets a slot until they had time to report that.
local outage = now - ask.alone
if ask.alone > 0 and (read('asked') or 0) < outage and (read('recovered') or 0) < outage then
  redis.call('HSET', state, 'recovered', whole(now + ask.recovery))
end
redis.call('HSET', state, 'asked', whole(now))
local recovering = math.max((read('recovered') or 0) - now, 0)

for _, answered in ipairs(ask.answered) do
  add(now - answered.age, answered.id)
end
for _, id in ipairs(ask.held) do
  add(now + ask.lease, id)
end
for _, id in ipairs(ask.unused) do
  redis.call('ZREM', slots, id)
end
redis.call('ZREMRANGEBYSCORE', slots, '-inf', whole(now - longest.length - 2 * ask.lease))

-- Only a process with the newest facts may change them. Any other one receives them, gets no slot, and asks again.
local version = read('version') or 0
local stale = version ~= ask.version
if ask.facts and not stale then
  version = version + 1
  redis.call('HSET', state, 'facts', ask.facts, 'version', version)
end

local used, room = {}, math.huge
for i, window in ipairs(ask.windows) do
  used[i] = stamped(now - window.length)
  window.room = window.limit - used[i] - window.others
end

-- Each process that waits may have an equal part of the shortest window, as long as it asks again in time. One that does
-- not may be cut off and use its fallback share, so that share stays free for five shortest windows.
local others = {}
local waiting = redis.call('HGETALL', queue)
for i = 1, #waiting, 2 do
  local other = cjson.decode(waiting[i + 1])
  if waiting[i] ~= ask.process then
    if tonumber(other.till) >= now then
      others[#others + 1] = other
    elseif not other.gone then
      other.gone = whole(now)
      redis.call('HSET', queue, waiting[i], cjson.encode(other))
    elseif now - other.gone > 5 * shortest.length then
      redis.call('HDEL', queue, waiting[i])
      other.share = 0
    end
    if other.gone then
      for _, window in ipairs(ask.windows) do
        window.room = window.room - math.floor(window.limit * other.share * math.min(1, shortest.length / window.length))
      end
    end
  end
end
local share = math.ceil(shortest.limit / (#others + 1))

for _, window in ipairs(ask.windows) do
  room = math.min(room, window.room)
end
if recovering > 0 or ask.closed > 0 or stale then
  room = 0
elseif ask.at_most >= 0 then
  -- Only requests of the last ask.latency count as in flight: the answers to older ones may not be reported yet.
  room = math.min(room, ask.at_most - stamped(now + ask.lease - ask.latency))
end

-- How many of the `free` slots this process gets for a lane: its fair share, or all that the others do not need,
-- whichever is larger. It has `taken` some already.
local function grant(lane, free, taken)
  local due = 0
  for _, other in ipairs(others) do
    due = due + math.max(0, math.min(other[lane], share - other.used))
  end
  return math.max(0, math.min(ask[lane], free, math.max(share - taken, free - due)))
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

-- How long until `rank` more slots are free, if the requests in flight are answered now, and each slot is taken again as
-- soon as it is free.
local function wait(rank)
  local longest_wait = math.max(ask.closed, recovering)
  for i, window in ipairs(ask.windows) do
    local expiring = rank + granted - window.room
    if expiring > 0 then
      local limit = math.max(1, window.limit - window.others)
      local taken = used[i] + granted
      local rounds = math.floor((expiring - 1) / limit)
      local place = taken - (expiring - 1) % limit - 1
      local slot = place >= 0 and redis.call('ZREVRANGE', slots, place, place, 'WITHSCORES') or {}
      local stamp = math.min(tonumber(slot[2] or now), now)
      longest_wait = math.max(longest_wait, math.min(stamp + window.length - now, window.opens or math.huge)
        + window.length * rounds)
    end
  end
  return longest_wait
end

-- How long the calls at ask.places would wait. Those of other processes are served side by side with them.
local left = {interactive = ask.interactive - interactive, bulk = ask.bulk - bulk}
local waits = {}
for i, place in ipairs(ask.places) do
  local rank = place.place - granted
  local ahead = rank + (place.bulk and ask.reserve or 0)
  for _, other in ipairs(others) do
    ahead = ahead + math.min(other.interactive + (place.bulk and other.bulk or 0), rank)
  end
  waits[i] = rank > 0 and wait(ahead) or 0
  if waits[i] > place.patience then
    local lane = place.bulk and 'bulk' or 'interactive'
    left[lane] = left[lane] - 1
  end
end

local first = 0
if left.interactive + left.bulk > 0 then
  first = wait(left.interactive > 0 and 1 or 1 + ask.reserve)
  redis.call('HSET', queue, ask.process, cjson.encode({
    interactive = left.interactive, bulk = left.bulk, used = ask.used + granted, share = ask.share,
    till = whole(now + math.min(first, ask.longest_pause) + ask.grace),
  }))
elseif ask.wants then
  redis.call('HDEL', queue, ask.process)
end

-- What the API counted when it gave the answers that the process will learn from. The first of these requests was sent
-- probably ask.sent ago, and no longer than ask.busy ago.
local in_flight, counted = stamped(now), {}
for i, window in ipairs(ask.windows) do
  used[i] = used[i] + granted
  counted[i] = stamped(now - ask.sent - window.length) - in_flight
end
return cjson.encode({
  epoch = epoch, stale = stale, version = version, facts = stale and redis.call('HGET', state, 'facts') or nil,
  now = whole(now), interactive = interactive, bulk = bulk, wait = first, waits = waits, used = used,
  counted = counted, in_flight = in_flight, recovering = recovering,
  most = stamped(now - ask.busy - longest.length), least = stamped(now - longest.length + ask.margin, now - ask.busy),
})
