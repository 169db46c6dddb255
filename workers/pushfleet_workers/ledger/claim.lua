-- Work and permits together: what is due moves to its lane, then as much is leased as gate, rate and window allow.
-- KEYS  books, gate, owners, leased of the owner, suspect, ready urgent/normal/bulk, delayed, delayed entries, late oks,
--       that retries wait
-- ARGV  owner, lease_ms, most parcels, most deliveries, most bulk deliveries, rate per second (0: none), capacity,
--       1 when the owner has nothing in hand, so that it may take a suspect, and then nothing else,
--       1 to take what a shut gate holds up, without permits: it goes another way
-- Returns now, ms until more may be had (0: at once or nothing there), deliveries left ready, fence, entries, 1 when
-- deliveries are known that were accepted after their lease was lost, 1 when the gate waits to hear of answers,
-- suspects left, until when message classes pause (JSON), 1 when the gate is shut and no probe is out, so that work may
-- go another way, 1 when what was taken is a probe, 1 when an operator pauses the account, 1 when retries wait.
local books, gate, owners, leased = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local READY = {KEYS[6], KEYS[7], KEYS[8]}
local BULK, BULK_SHARE = 3, 0.1
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local now_us = t[1] * 1000000 + t[2]
pass_when_full(books)
local retrying = redis.call('EXISTS', KEYS[12])

-- What is due goes to the head of its lane: it is older than what waits there. A suspect stays one.
local moved = 0
local due = redis.call('ZRANGE', KEYS[9], '-inf', now, 'BYSCORE', 'LIMIT', 0, 200)
if #due > 0 then
  local entries = redis.call('HMGET', KEYS[10], unpack(due))
  for i = #due, 1, -1 do
    local n, lane, lost = header(entries[i])
    redis.call('LPUSH', lost > 1 and KEYS[5] or READY[lane], entries[i])
    moved = moved + n
  end
  redis.call('ZREM', KEYS[9], unpack(due))
  redis.call('HDEL', KEYS[10], unpack(due))
  add(books, 'delayed', -moved)
  add(books, 'ready', moved)
end

local left = tonumber(redis.call('HGET', books, 'ready') or 0)
local function wait_for_next_due()
  local next = redis.call('ZRANGE', KEYS[9], 0, 0, 'WITHSCORES')
  if #next == 0 then return 0 end
  return math.max(1, next[2] - now)
end
if left == 0 then
  local known = redis.call('HMGET', gate, 'classes', 'operator_until')
  local paused = (tonumber(known[2]) or 0) > now and 1 or 0
  return {now, wait_for_next_due(), 0, 0, {}, 0, 0, 0, known[1] or '', 0, 0, paused, retrying}
end

local g = redis.call(
  'HMGET', gate, 'pause_until', 'open_until', 'level', 'level_at', 'factor', 'classes', 'probing', 'operator_until',
  'operator_elsewhere', 'bulk_saved'
)
local classes = g[6] or ''
local operator = tonumber(g[8]) or 0
local pause = math.max(tonumber(g[1]) or 0, tonumber(g[2]) or 0, operator)
-- What a probe finds is known in a moment: its neighbours wait for it here.
local shut = pause > now and not (g[7] and (tonumber(g[1]) or 0) <= now)
local paused = operator > now and 1 or 0
-- Whether work goes another way is for the operator to say, whatever else shuts the gate.
if paused == 1 then shut = g[9] == '1' end
local elsewhere = ARGV[9] == '1' and shut
if ARGV[9] == '1' and not shut then return {now, 0, left, 0, {}, 0, 0, 0, classes, 0, 0, paused, retrying} end
if pause > now and not elsewhere then
  return {now, pause - now, left, 0, {}, 0, 1, 0, classes, shut and 1 or 0, 0, paused, retrying}
end
local parcels_max = tonumber(ARGV[3])
-- Half open: one parcel probes, the others wait for what it finds. One that has expired finds nothing.
local live_max = g[2] and not elsewhere and 1 or math.huge

local rate, capacity = tonumber(ARGV[6]), tonumber(ARGV[7])
local level = math.huge
-- The next bulk parcel may be larger than what the others ever leave: a tenth of the rate is saved for it.
local saved, bulk_cost = 0, 0
if elsewhere then rate = 0 end
if rate > 0 then
  rate = rate * (tonumber(g[5]) or 1)
  local before = tonumber(g[3]) or capacity
  level = math.min(capacity, before + math.max(0, now_us - (tonumber(g[4]) or now_us)) * rate / 1000000)
  local next_bulk = redis.call('LINDEX', READY[BULK], 0)
  if next_bulk then
    local n, _, _, expires = header(next_bulk)
    bulk_cost = expires > now and math.min(n, capacity) or 0
    saved = math.min(bulk_cost, (tonumber(g[10]) or 0) + math.max(0, level - before) * BULK_SHARE)
  end
end

local fence = redis.call('HINCRBY', books, 'fence', 1)
local stamp = struct.pack('>d', fence)
local taken, lease = {}, {}
local parcels, deliveries, live = 0, 0, 0
local starved = nil

-- *kept* permits are not for it.
local function take(key, quota, most, kept)
  if quota <= 0 or most <= 0 then return end
  local entries = redis.call('LRANGE', key, 0, most - 1)
  local count, got = 0, 0
  for _, entry in ipairs(entries) do
    local n, _, _, expires = struct.unpack('>HBBd', entry)
    if got > 0 and got + n > quota then break end
    local cost = expires > now and n or 0
    if cost > 0 and live >= live_max then break end
    -- A parcel above the capacity passes when the bucket is full, and is paid back before the next.
    if cost > level - kept and not (cost > capacity - kept and level >= capacity) then
      starved = math.min(cost + kept, capacity)
      break
    end
    level = level - cost
    if cost > 0 then live = live + 1 end
    count = count + 1
    got = got + n
    taken[#taken + 1] = entry
    lease[#lease + 1] = string.sub(entry, ID_AT, BODY_AT - 1)
    lease[#lease + 1] = stamp .. entry
  end
  if count > 0 then redis.call('LTRIM', key, count, -1) end
  parcels = parcels + count
  deliveries = deliveries + got
end

local room, bulk_max = tonumber(ARGV[4]), tonumber(ARGV[5])
local suspects = redis.call('LLEN', KEYS[5])
local function lane(number)
  local quota = room - deliveries
  if number ~= BULK then
    -- Who has no room for bulk leaves it nothing.
    if not starved then take(READY[number], quota, parcels_max - parcels, bulk_max > 0 and saved or 0) end
    return
  end
  local before = level
  if not starved then take(READY[BULK], math.min(quota, bulk_max), parcels_max - parcels, 0) end
  if rate > 0 then saved = math.max(0, saved - (before - level)) end
end
if ARGV[8] == '1' and suspects > 0 then
  -- Whatever it does to the process, it does to nobody else.
  take(KEYS[5], room, 1, 0)
  suspects = suspects - parcels
else
  -- Every tenth claim serves bulk first, and whoever finds its next parcel saved for: a minimum share, whatever the
  -- others want.
  local bulk_first = fence % 10 == 0 or (bulk_cost > 0 and saved >= bulk_cost)
  local bulk_starved = nil
  if bulk_first then
    lane(BULK)
    -- What it cannot have yet is saved for; the others need not wait for it.
    bulk_starved, starved = starved, nil
  end
  lane(1)
  lane(2)
  if not bulk_first then lane(BULK) end
  if bulk_starved then starved = math.min(bulk_starved, starved or bulk_starved) end
end

if rate > 0 then redis.call('HSET', gate, 'level', level, 'level_at', now_us, 'bulk_saved', saved) end
local probe = g[2] and live > 0 and not elsewhere
if probe then redis.call('HSET', gate, 'open_until', now + 15000, 'probing', 1) end
local wait = 0
if starved then wait = math.max(1, math.ceil((starved - level) * 1000 / rate)) end
if parcels > 0 then
  push_all('HSET', leased, lease)
  redis.call('ZADD', owners, now + tonumber(ARGV[2]), ARGV[1])
  add(books, 'ready', -deliveries)
  add(books, 'leased', deliveries)
end
if elsewhere then wait = pause - now end
return {
  now, wait, left - deliveries, fence, taken, redis.call('EXISTS', KEYS[11]), (g[2] or g[5]) and 1 or 0, suspects,
  classes, elsewhere and 1 or 0, probe and 1 or 0, paused,
  retrying,
}
