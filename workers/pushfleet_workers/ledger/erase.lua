-- Users are erased: their deliveries leave the parcels that wait or are dead, those of others in the same parcels stay.
-- Each parcel only as it was seen: one that has moved on since is for whoever asked to look for again.
-- KEYS  books, ready urgent/normal/bulk, suspect, delayed, delayed entries, dead
-- ARGV  for each parcel: where it was seen, the entry as it was, the entry as it is to be ('': nothing is left).
--       Where: 'delayed', the place of a dead letter, or the number of a list (1 to 3: the lanes, 4: suspects) and the
--       index in it from its tail, as in '2:-17'. Those of one list from its head to its tail
-- Returns the deliveries that ended by it, and the positions (from 0) of parcels that were not there any more.
local LANES, DELAYED, ENTRIES, DEAD = {'urgent', 'normal', 'bulk'}, KEYS[6], KEYS[7], KEYS[8]
-- So many may have been pushed to a tail since.
local MOVED_MAX = 10000
local books = KEYS[1]
local ready, delayed, ends, gone = 0, 0, {}, {}
pass_when_full(books)

-- Seldom it is not where it was seen: what is pushed to the tail moves it.
local function take_from_list(key, at, was, becomes)
  if redis.call('LINDEX', key, at) ~= was then
    at = redis.call('LPOS', key, was, 'RANK', -1, 'MAXLEN', MOVED_MAX - at)
    if not at then return false end
  end
  if becomes ~= '' then
    redis.call('LSET', key, at, becomes)
  else
    local from_head = at < 0 and at + redis.call('LLEN', key) or at
    redis.call('LREM', key, 2 * from_head < redis.call('LLEN', key) and 1 or -1, was)
  end
  return true
end

local function take_from_delayed(was, becomes)
  local id = id_of(was)
  if redis.call('HGET', ENTRIES, id) ~= was then return false end
  if becomes == '' then
    redis.call('ZREM', DELAYED, id)
    redis.call('HDEL', ENTRIES, id)
  else
    redis.call('HSET', ENTRIES, id, becomes)
  end
  return true
end

-- What of a letter is left comes again at the end of the stream, with the time when it died.
local function take_from_dead(place, was, becomes)
  local found = redis.call('XRANGE', DEAD, place, place)[1]
  if not found then return false end
  local fields, died = {}, string.match(place, '^%d+')
  for i = 1, #found[2], 2 do
    local name, value = found[2][i], found[2][i + 1]
    if name == 'entry' then
      if value ~= was then return false end
      value = becomes
    end
    if name == 'died' then died = value else fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  redis.call('XDEL', DEAD, place)
  if becomes ~= '' then redis.call('XADD', DEAD, '*', 'died', died, unpack(fields)) end
  return true
end

for at = 1, #ARGV, 3 do
  local where, was, becomes = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local list, index = string.match(where, '^(%d):(-%d+)$')
  local there
  if list then
    there = take_from_list(KEYS[1 + list], tonumber(index), was, becomes)
  elseif where == 'delayed' then
    there = take_from_delayed(was, becomes)
  else
    -- The books keep counting them as dead.
    there = take_from_dead(where, was, becomes)
  end
  if not there then
    table.insert(gone, (at - 1) / 3)
  elseif list or where == 'delayed' then
    local n, lane = header(was)
    if becomes ~= '' then n = n - header(becomes) end
    ends[lane] = (ends[lane] or 0) + n
    if list then ready = ready + n else delayed = delayed + n end
  end
end
add(books, 'ready', -ready)
add(books, 'delayed', -delayed)
add(books, 'ended', ready + delayed)
for lane, n in pairs(ends) do add(books, 'end:' .. LANES[lane] .. ':suppressed:user_erased', n) end
return {ready + delayed, gone}
