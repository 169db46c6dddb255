-- Users are erased: their deliveries leave the parcels that wait or are dead, those of others in the same parcels stay.
-- Each parcel only as it was seen: one that has moved on since is for whoever asked to look for again.
-- KEYS  books, ready urgent/normal/bulk, suspect, delayed, delayed entries, dead
-- ARGV  for each parcel: where it was seen, the entry as it was, the entry as it is to be ('': nothing is left).
--       Where: the number of its list (1 to 3: the lanes, 4: suspects; negative: from its tail), 0: delayed, else its
--       place among the dead letters
-- Returns the deliveries that ended by it, and the positions (from 0) of parcels that were not there any more.
local LANES, DELAYED, ENTRIES, DEAD = {'urgent', 'normal', 'bulk'}, KEYS[6], KEYS[7], KEYS[8]
local books = KEYS[1]
local ready, delayed, ends, gone = 0, 0, {}, {}
pass_when_full(books)

local function take_from_list(number, was, becomes)
  local key, from = KEYS[1 + math.abs(number)], number < 0 and -1 or 1
  if becomes == '' then return redis.call('LREM', key, from, was) == 1 end
  local at = redis.call('LPOS', key, was, 'RANK', from)
  if at then redis.call('LSET', key, at, becomes) end
  return at
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
  local number, was, becomes = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  local there
  if not number then
    -- The books keep counting them as dead.
    there = take_from_dead(ARGV[at], was, becomes)
  elseif number == 0 then
    there = take_from_delayed(was, becomes)
  else
    there = take_from_list(number, was, becomes)
  end
  if not there then
    table.insert(gone, (at - 1) / 3)
  elseif number then
    local n, lane = header(was)
    if becomes ~= '' then n = n - header(becomes) end
    ends[lane] = (ends[lane] or 0) + n
    if number == 0 then delayed = delayed + n else ready = ready + n end
  end
end
add(books, 'ready', -ready)
add(books, 'delayed', -delayed)
add(books, 'ended', ready + delayed)
for lane, n in pairs(ends) do add(books, 'end:' .. LANES[lane] .. ':suppressed:user_erased', n) end
return {ready + delayed, gone}
